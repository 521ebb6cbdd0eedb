# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands with ``--fleet``: the words of a host, for the whole fleet, over its API."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.address import format_prefix, parse_address, parse_prefix
from packetwatch_core._base.errors import InvalidInput, PacketwatchError

from .. import show, wire, words
from ..remote import Remote
from .session import Options, Outcome

# A host is silent if it has not reported for so many seconds; it reports every 30.
_SILENT = 90.0


def run(options: Options) -> Outcome:
    """Run a command on the fleet; raises `InvalidInput` if it is only for hosts."""
    command = COMMANDS.get(options.name)
    if command is None:
        raise InvalidInput(
            f"{options.name} is about this host: with --fleet, there are {', '.join(COMMANDS)}"
        )
    return command(Remote.of(options.fleet), options)


def _bans(remote: Remote, options: Options) -> Outcome:
    within = parse_prefix(options.within) if options.within else None
    items = []
    for item in remote.items("bans"):
        prefix = parse_prefix(item["source"])
        if within is None or (
            prefix.family == within.family
            and prefix.value <= within.last
            and within.value <= prefix.last
        ):
            items.append(item)
    items.sort(key=lambda item: parse_prefix(item["source"]))
    now = time.time()
    rows: list[tuple[object, ...]] = [
        ("SOURCE", "ORIGIN", "EVIDENCE", "UNTIL", "LEFT", "HOSTS", "REASON")
    ]
    rows += [
        (
            item["source"],
            f"{item['enforcer']}/{item['rule']}",
            item["evidence"],
            words.moment(item["until"]),
            words.span(item["until"] - now),
            item["hosts"],
            item["reason"],
        )
        for item in items
    ]
    lines = words.table(rows) if items else ["no source is banned"]
    return Outcome({"bans": items, "notes": []}, lines)


def _ban(remote: Remote, options: Options) -> Outcome:
    if options.duration is None:
        raise InvalidInput(
            "a ban of the fleet must end: write how long it lasts, such as --for 10m"
        )
    seconds = words.seconds_from(options.duration)
    if not seconds.is_integer():
        raise InvalidInput(f"--for is {options.duration!r}: write whole seconds")
    body = {"seconds": int(seconds), "reason": options.reason or ""}

    def ban(address: str) -> wire.Result:
        before = remote.ask("GET", "bans", address, missing=True)
        reply = remote.ask("PUT", "bans", address, body=body)
        source = reply.body["source"]
        message = f"{source} is banned on all hosts until {words.moment(reply.body['until'])}"
        return {"source": source, "changed": before.tag != reply.tag, "message": message}

    return _each(options, ban)


def _unban(remote: Remote, options: Options) -> Outcome:
    def lift(address: str) -> wire.Result:
        before = remote.ask("GET", "bans", address, missing=True)
        remote.ask("DELETE", "bans", address)
        was_banned = before.status != 404
        source = before.body["source"] if was_banned else address
        message = f"{source} {'is not banned any more' if was_banned else 'was not banned'}"
        return {"source": source, "changed": was_banned, "message": f"{message} by the fleet"}

    return _each(options, lift)


def _each(options: Options, act: t.Callable[[str], wire.Result]) -> Outcome:
    """Do something for each address; a refused one does not keep the others from it."""
    addresses = [format_prefix(parse_address(address)) for address in options.addresses]
    done: list[wire.Result] = []
    errors: list[PacketwatchError] = []
    for address in addresses:
        try:
            done.append(act(address))
        except PacketwatchError as error:
            errors.append(error)
    if errors and len(addresses) == 1:
        raise errors[0]
    lines = [line for result in done for line in show.change(result)]
    lines += [f"FAILED: {words.printable(str(error))}" for error in errors]
    if len(addresses) == 1:
        return Outcome(done[0], lines)
    changed = any(result["changed"] for result in done)
    found = {"changed": changed, "sources": done, "errors": [str(error) for error in errors]}
    return Outcome(found, lines, wire.status_of(errors[0]) if errors else wire.DONE)


def _why(remote: Remote, options: Options) -> Outcome:
    address = format_prefix(parse_address(options.address))
    found = remote.ask("GET", "addresses", address).body
    lines = [f"{found['address']} {found['verdict']}: {found['because']}"]
    for item in found["entries"]:
        expires = f", expires {words.moment(item['expires'])}" if item["expires"] else ""
        comment = f" # {item['comment']}" if item["comment"] else ""
        lines.append(
            f"  {item['address']} in {item['kind']} list {item['list']!r}{expires}{comment}"
        )
    for item in found["decisions"]:
        state = "" if item["counts"] else ", which does not count any more"
        reason = f" # {item['reason']}" if item["reason"] else ""
        lines.append(
            f"  ban of {item['source']} by {item['enforcer']}/{item['rule']}, evidence {item['evidence']}, since "
            f"{words.moment(item['made'])} until {words.moment(item['until'])}{state}{reason}"
        )
    if found["lift"]:
        lines.append(f"  lifted {words.moment(found['lift']['before'])}")
    if found["never"]:
        lines.append(f"  it is never banned: {found['never']}")
    different = {
        name: host
        for name, host in sorted(found["hosts"].items())
        if host["verdict"] != found["verdict"] or not host["current"]
    }
    lines += (
        words.table(
            [
                (name, host["verdict"], host["because"], "" if host["current"] else "NOT CURRENT")
                for name, host in different.items()
            ],
            "  ",
        )
        if different
        else []
    )
    same = len(found["hosts"]) - len(different)
    lines.append(f"  {words.count(same, 'host')} as above")
    return Outcome(found, [words.printable(line) for line in lines])


def _lists(remote: Remote, options: Options) -> Outcome:
    found = remote.ask("GET", "lists").body["lists"]
    names = [name for name in sorted(found) if options.owner in (None, name)]
    rows: list[tuple[object, ...]] = []
    result: wire.Result = {"lists": {name: found[name] for name in names}}
    if options.entries or options.owner:
        result = {"lists": {name: remote.ask("GET", "lists", name).body for name in names}}
        for name, item in result["lists"].items():
            rows += [
                (
                    kind,
                    entry["address"],
                    name,
                    f"expires={words.moment(entry['expires'])}" if entry["expires"] else "",
                    entry["comment"],
                )
                for kind in ("allow", "deny")
                for entry in item[kind]
            ]
    else:
        for kind in ("allow", "deny"):
            rows += [
                (kind, name, words.count(found[name][kind], "prefix", "prefixes"))
                for name in names
                if found[name][kind]
            ]
    return Outcome(result, words.table(rows) if rows else ["nothing is declared"])


def _hosts(remote: Remote, dummy: Options) -> Outcome:
    hosts = list(remote.items("hosts"))
    rows: list[tuple[object, ...]] = [("HOST", "VERSION", "REPORTED", "BANS", "MISSING", "STATE")]
    silent = False
    for host in hosts:
        is_silent = host["age"] is None or host["age"] > _SILENT
        silent |= is_silent
        state = "SILENT" if is_silent else "current" if host["current"] else "BEHIND"
        age = "never" if host["age"] is None else f"{words.span(host['age'])} ago"
        rows.append((host["name"], host["version"], age, host["bans"], host["missing"], state))
    lines = words.table(rows) if hosts else ["no host has reported"]
    return Outcome({"hosts": hosts}, lines, wire.FAILED if silent else wire.DONE)


COMMANDS: dict[str, t.Callable[[Remote, Options], Outcome]] = {
    "bans": _bans,
    "ban": _ban,
    "unban": _unban,
    "why": _why,
    "lists": _lists,
    "hosts": _hosts,
}
