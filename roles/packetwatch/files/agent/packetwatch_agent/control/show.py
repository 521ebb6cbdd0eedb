# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results of commands as lines of text."""

from __future__ import annotations

import time

from packetwatch_core._base.clock import WHY_UNTRUSTED

from . import wire
from .words import count, moment, printable, span, table

Lines = list[str]
_UNDECIDED = "a deny entry counts although it may have expired, and an allow entry does not"


def status(result: wire.Result) -> Lines:
    """The filter, the agent, and what is wrong."""
    lines = []
    for name, item in sorted(result.get("interfaces", {}).items()):
        lines.append(f"{name}: {_filtered(item['mode'], item['action'])}")
    if "lists" in result:
        lines.append(f"entries: {_entries(result['lists'], result.get('entries', {}))}")
    if result.get("bans"):
        numbers = [f"{number} {origin}" for origin, number in result["bans"].items()]
        lines.append(f"bans: {', '.join(numbers)}")
    if result.get("packets"):
        sums = {"pass": 0, "drop": 0}
        for name, number in result["packets"].items():
            sums[name.split()[0]] += number
        lines.append(f"packets: {sums['pass']} passed, {sums['drop']} dropped")
    agent = result.get("agent")
    if agent:
        age = span(time.time() - agent["since"])
        lines.append(
            f"agent: {agent['state']}, version {agent['version']}, up {age}, "
            f"since {moment(agent['since'])}"
        )
    lines += [f"note: {text}" for text in result.get("notes", [])]
    lines += [f"PROBLEM: {text}" for text in result.get("problems", [])]
    return [printable(line) for line in lines]


def _entries(declared: dict[str, dict[str, int]], compiled: dict[str, int]) -> str:
    """Entries that count, as in the metrics, and those that do not; only declared ones if none is active."""
    kinds = ("allow", "deny")
    if not compiled:
        return ", ".join(f"{sum(declared[kind].values())} {kind}" for kind in kinds)
    parts = [f"{compiled.get(kind, 0)} {kind}" for kind in kinds]
    words = {
        "expired": "expired",
        "undecided": "with an end that is not trusted yet",
        "left_out": "of feeds left out",
    }
    parts += [f"{compiled[name]} {word}" for name, word in words.items() if compiled.get(name)]
    return ", ".join(parts)


def _filtered(mode: str, action: str) -> str:
    if mode == "none":
        return "NOT FILTERED"
    words = {"monitor": "only monitored: nothing is dropped", "off": "passes everything"}
    return f"{words.get(action, 'filtered')}, {mode}{f', {action}' if action else ''}"


def lists(result: wire.Result) -> Lines:
    """Declared entries by owner, or one by one."""
    rows: list[tuple[object, ...]] = []
    if "entries" in result:
        rows = [
            (
                item["kind"],
                item["prefix"],
                item["owner"],
                f"expires={item['expires']}" if item["expires"] else "",
                "" if item["state"] == "active" else item["state"].upper(),
                item["comment"],
                item["origin"],
            )
            for item in result["entries"]
        ]
    else:
        for kind in ("allow", "deny"):
            rows += [
                (kind, owner, count(n, "prefix", "prefixes")) for owner, n in result[kind].items()
            ]
    lines = table(rows) if rows else ["nothing is declared"]
    return lines + [f"note: {printable(text)}" for text in result["notes"]]


def bans(result: wire.Result) -> Lines:
    """One line for each ban."""
    rows = [
        ("SOURCE", "ORIGIN", "KIND", "EVIDENCE", "UNTIL", "LEFT", "PORTS", "DROPPED", "INTERFACE")
    ]
    now = time.time()
    for item in result["bans"]:
        left = span(item["until"] - now) if item["until"] else "-"
        until = moment(item["until"], "lifted")
        rows.append(
            (
                item["source"],
                item["origin"] + ("*" if item["short"] else ""),
                item["kind"] or "-",
                item["evidence"],
                until,
                left,
                item["ports"],
                item["dropped"],
                item["interface"],
            )
        )
    lines = table(rows) if result["bans"] else ["no source is banned"]
    return lines + [f"note: {printable(text)}" for text in result["notes"]]


def protect(result: wire.Result) -> Lines:
    """One line for each protected prefix."""
    rows = [
        (item["prefix"], item["reason"], moment(item["until"], "")) for item in result["protected"]
    ]
    return table(rows) if rows else ["no address is protected"]


def _chain(interface: str, chain: list[wire.Result]) -> Lines:
    """The programs on an interface, in the order in which a packet meets them; nothing if ours is alone."""
    if len(chain) < 2:
        return []
    lines = [f"  programs on {interface}, in this order:"]
    for number, member in enumerate(chain, 1):
        origin = f" from {member['origin']}" if member["origin"] else ""
        if member["id"]:
            what = f"{member['name']} (id {member['id']}, tag {member['tag']}){origin}"
        else:
            what = f"the {member['kind']} program{origin}, which DOES NOT RUN"
        passes = f", hands on: {', '.join(member['passes_on'])}" if member["passes_on"] else ""
        problem = f": {member['problem']}" if member["problem"] else ""
        lines.append(f"    {number}. {what}{passes}{problem}")
    return lines


def why(result: wire.Result) -> Lines:
    """The verdict, then its reasons by precedence."""
    reason = {"unlisted": "it is on no list and not banned"}.get(
        result["because"], result["because"]
    )
    lines = [f"{result['address']} {result['verdict']}: {reason}"]
    if len({item["verdict"] for item in result["interfaces"]}) > 1:
        rows = [
            (item["interface"], item["action"], item["verdict"]) for item in result["interfaces"]
        ]
        lines += table(rows, "  ")
    for item in result["declared"]["entries"]:
        origin = f" ({item['origin']})" if item["origin"] else ""
        rest = [f"in {item['kind']} list {item['owner']!r}{origin}"]
        if item["expires"]:
            rest.append(f"expires {item['expires']}")
        if not item["in_force"]:
            rest.append("NOT ACTIVE")
        if item["undecided"]:
            rest.append("which is NOT TRUSTED YET")
        if item["comment"]:
            rest.append(f"# {item['comment']}")
        lines.append(f"  {item['prefix']} {', '.join(rest)}")
    if result["declared"]["inside"]:
        lines.append(f"  {count(result['declared']['inside'], 'entry', 'entries')} inside it")
    if result["live"] is not None:
        lines.append(f"  lists in the kernel: {result['live']}")
    if result["protected"]:
        lines.append(f"  {result['protected']}")
    for ban in result["bans"]:
        since = f" since {moment(ban['since'])}" if ban["since"] else ""
        kind = f" of kind {ban['kind']}" if ban["kind"] else ""
        lines.append(
            f"  ban of {ban['source']} ({ban['origin']}{kind}, evidence {ban['evidence']}){since} "
            f"until {moment(ban['until'], 'it is lifted')}, {count(ban['ports'], 'port')}, "
            f"{count(ban['dropped'], 'packet')} dropped"
        )
    if "fleet" in result:
        lines.append(f"  {_fleet_on(result['fleet'])}")
    for name, chain in result["chains"].items():
        lines += _chain(name, chain)
    notes = list(result["notes"])
    if any(item["undecided"] for item in result["declared"]["entries"]):
        notes.append(f"{WHY_UNTRUSTED}: until then, {_UNDECIDED}")
    lines += [f"  note: {text}" for text in notes]
    return [printable(line) for line in lines]


def fleet(result: wire.Result) -> Lines:
    """The store, what the kernel has of it, and what was reported."""
    store, agent, reports = result["store"], result["agent"], result["reports"]
    state = f"following {store['endpoint']}" if store["connected"] else "NOT FOLLOWED"
    heard = "never heard of" if store["age"] is None else f"heard of {span(store['age'])} ago"
    refused = [f"{number} {reason}" for reason, number in sorted(agent["refused"].items())]
    lines = [
        f"store: {state}, revision {store['revision']}, {heard}",
        f"bans: {store['declared']} declared, {agent['bans']} in the kernel, {agent['missing']} missing"
        f"{', refused: ' if refused else ''}{', '.join(refused)}",
    ]
    if store["held"]:
        lines.append(f"kept: {count(store['held'], 'ban')} that the store does not have any more")
    if store["clock"] is not None:
        lines.append(f"clock: {store['clock']:+.1f} s from that of the fleet")
    lines += [
        f"enforcer {name}: last heard of {moment(then, 'never')}"
        for name, then in store["rules"].items()
    ]
    sent = [f"{number} {kind}" for kind, number in sorted(reports["reports"].items())]
    lines.append(f"reports of {reports['host']}: {', '.join(sent) or 'none'}")
    if reports["lost"]:
        lines.append(f"{count(reports['lost'], 'observation')} not reported")
    wrong = [f"{number} {reason}" for reason, number in sorted(store["values_refused"].items())]
    if wrong:
        lines.append(f"values of the store that do not count: {', '.join(wrong)}")
    lines += [f"PROBLEM: {part['problem']}" for part in (store, agent, reports) if part["problem"]]
    return [printable(line) for line in lines]


def _fleet_on(found: wire.Result) -> str:
    """What the fleet says about a source."""
    if "problem" in found:
        return f"fleet: not known: {found['problem']}"
    ban = found["ban"]
    if ban is None:
        lifted = f", lifted {moment(found['lifted'])}" if found["lifted"] else ""
        return f"fleet: {found['source']} is not banned{lifted}"
    shown = (
        f"fleet: {found['source']} is banned until {moment(ban['until'])} by {ban['enforcer']}/{ban['rule']}, evidence "
        f"{ban['evidence']}, seen by {count(ban['hosts'], 'host')}"
    )
    if ban.get("at"):
        shown += f" ({', '.join(ban['at'])})"
    if ban.get("ports"):
        shown += f", ports {', '.join(map(str, ban['ports']))}"
    return f"{shown}: {ban['why']}" if ban.get("why") else shown


def change(result: wire.Result) -> Lines:
    """The result of a change, or in check mode what it would change."""
    lines = []
    if result.get("check"):
        old, new = (set(result["diff"][side].splitlines()) for side in ("before", "after"))
        lines += [f"- {line}" for line in sorted(old - new)]
        lines += [f"+ {line}" for line in sorted(new - old)]
    lines.append(result["message"])
    lines += [f"note: {text}" for text in result.get("notes", [])]
    return [printable(line) for line in lines]


def selftest(result: wire.Result) -> Lines:
    """Each stage, green or red."""
    rows = [
        ("green" if stage["ok"] else "RED", stage["name"], stage["text"])
        for stage in result["stages"]
    ]
    return [*table(rows), "all green" if result["passed"] else "the drill has failed"]


def event(line: wire.Result) -> str:
    """An event of the log on one short line."""
    stamp = str(line.get("@timestamp", ""))[11:19]
    action = line.get("event.action")
    if action is None:
        return printable(f"{stamp} {line.get('log.level', '')}: {line.get('message', '')}")
    words = [stamp, str(action)]
    if action == "audit":
        words += [
            str(line.get("user.name") or line.get("user.id", "")),
            str(line.get("packetwatch.command", "")),
            *_list(line, "packetwatch.arguments"),
            str(line.get("event.outcome", "")),
        ]
    else:
        about = ("packetwatch.prefix", "source.ip", "message")
        words.append(next((str(line[name]) for name in about if line.get(name)), ""))
        if "destination.port" in line:
            words.append(f"to {line.get('destination.ip')} port {line['destination.port']}")
        if action != "connection":
            words.append(str(line.get("packetwatch.reason", "")))
        if "packetwatch.kind" in line:
            words.append(f"kind {line['packetwatch.kind']}")
        if "packetwatch.ports" in line:
            words.append("ports " + ",".join(_list(line, "packetwatch.ports")))
        if "packetwatch.expires" in line and action == "ban":
            words.append(f"until {line['packetwatch.expires']}")
    return printable(" ".join(word for word in words if word))


def _list(line: wire.Result, name: str) -> list[str]:
    value = line.get(name)
    return list(map(str, value)) if isinstance(value, list) else []
