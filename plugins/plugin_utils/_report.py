# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The state of a fleet's hosts as rows, and the rows as text, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import typing as t

from ansible_collections.packetwatch.xdp.plugins.module_utils._change.panic import describe
from ansible_collections.packetwatch.xdp.plugins.module_utils._health.problems import (
    Facts,
    Unconfirmed,
    find,
)

Info = t.Mapping[str, t.Any]

_TITLES = (
    "host",
    "version",
    "mode",
    "action",
    "digest",
    "expected",
    "confirmed_at",
    "change",
    "feeds",
)
# Seconds by unit. An age is shown in the largest unit of which it has two.
_UNITS = {"d": 86400, "h": 3600, "m": 60}


@dataclasses.dataclass(frozen=True)
class Row:
    """A host.

    mode: mode of each interface. action: panic during a panic; empty if no interface is filtered.
    digest, expected: digests of the lists that the role writes, on the host and in the inventory. change:
    outcome and owner of the last change. feeds: age of the copy of each feed.
    """

    host: str
    version: str = ""
    mode: str = ""
    action: str = ""
    digest: str = ""
    expected: str = ""
    confirmed_at: str = ""
    change: str = ""
    feeds: str = ""
    panic: bool = False
    problems: t.Sequence[str] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


class Wanted(t.NamedTuple):
    """What a host must have.

    owner: name of the pair of lists. lists: digest of these lists. policies: by interface, and by "default".
    program: digest of the program's source. version: of the software. modes: by interface; None if the
    inventory names no interfaces.
    """

    owner: str
    lists: str
    policies: t.Mapping[str, Info]
    program: str
    version: str
    modes: t.Mapping[str, str] | None = None


def not_reached(host: str, reason: str) -> Row:
    """A host that did not answer."""
    return Row(host, problems=[f"not reached: {_one_line(reason)}"])


def row(host: str, info: Info, wanted: Wanted) -> Row:
    """A host by the results of host_info."""
    digest = info["lists"]["declared"].get(wanted.owner, "")
    modes = {name: there["mode"] for name, there in sorted(info["interfaces"].items())}
    return Row(
        host,
        info["version"],
        " ".join(f"{name}={mode}" for name, mode in modes.items()),
        _action(info, modes),
        digest,
        wanted.lists,
        info["change"]["confirmed_at"] or "",
        _change(info["change"]),
        " ".join(f"{name}={_age(feed['age'])}" for name, feed in info["feeds"].items()),
        info["panic"] is not None,
        list(_problems(info, digest, wanted)),
    )


def _age(seconds: float) -> str:
    for unit, length in _UNITS.items():
        if seconds >= 2 * length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _action(info: Info, modes: t.Mapping[str, str]) -> str:
    """What the host does with packets; empty if it filters nothing, whatever its policy says."""
    if info["panic"]:
        return "panic"
    is_filtered = any(mode != "none" for mode in modes.values())
    return str(info["policy"]["default"]["action"]) if is_filtered else ""


def _change(change: Info) -> str:
    if change["status"] == "pending":
        return f"pending, {change['remaining']:.0f} s left ({change['owner']})"
    if change["status"] == "rolled_back":
        return f"reverted at {change['ended_at']} ({change['owner']})"
    if change["took_back"]:
        return f"rolled back state {change['took_back']}"
    return "confirmed" if change["number"] else "none"


def _problems(info: Info, digest: str, wanted: Wanted) -> t.Iterator[str]:
    """What is wrong with the host itself, then how it differs from the inventory."""
    yield from (problem.text for problem in find(_facts(info)))
    yield from _attachments(info["interfaces"], wanted.modes)
    if digest != wanted.lists:
        yield "the lists are not those of the inventory"
    yield from _policies(info["policy"], wanted, info["interfaces"])
    if info["change"]["program"] != wanted.program:
        yield "the program is not that of the controller"
    if info["version"] != wanted.version:
        yield f"the software is {info['version'] or 'not installed'}, not {wanted.version}"


def _facts(info: Info) -> Facts:
    interfaces, panic, change = info["interfaces"], info["panic"], info["change"]
    is_pending = change["status"] == "pending"
    return Facts(
        panic=describe(panic["owner"], panic["since"]) if panic else "",
        is_pending=is_pending,
        unconfirmed=Unconfirmed(change["owner"], change["remaining"]) if is_pending else None,
        declared=sorted(name for name, there in interfaces.items() if there["wanted"]),
        filtered=sorted(name for name, there in interfaces.items() if there["mode"] != "none"),
        is_declaration_judged=True,
        nexts={
            name: member["problem"]
            for name, there in interfaces.items()
            for member in there["chain"]
            if member["problem"]
        },
        matches=info["lists"]["current"] if info["lists"]["live"] else None,
    )


def _attachments(
    interfaces: t.Mapping[str, Info], modes: t.Mapping[str, str] | None
) -> t.Iterator[str]:
    """Interfaces whose declaration differs from the inventory; nothing if that names none."""
    if modes is None:
        return
    declared = {name: there["wanted"] for name, there in interfaces.items() if there["wanted"]}
    for name in sorted(declared.keys() | modes.keys()):
        if name not in modes:
            yield f"{name} is declared on the host, and not in the inventory"
        elif name in declared and declared[name] != modes[name]:
            yield f"{name} is declared with mode {declared[name]}, not {modes[name]}"
        elif name not in interfaces:
            yield f"{name} is in the inventory, and not declared on the host"


def _policies(
    policies: t.Mapping[str, Info], wanted: Wanted, interfaces: t.Iterable[str]
) -> t.Iterator[str]:
    """Policies that differ from those of the inventory."""
    if policies["default"] != wanted.policies["default"]:
        yield "the policy is not that of the inventory"
    for name in sorted(interfaces if wanted.modes is None else wanted.modes):
        own, other = (held.get(name) for held in (policies, wanted.policies))
        if (own or policies["default"]) != (other or wanted.policies["default"]) and (own or other):
            yield f"the policy of {name} is not that of the inventory"


def as_text(rows: t.Sequence[Row]) -> str:
    """A table, and the problems below it."""
    cells = [tuple(title.upper() for title in _TITLES)]
    cells += [tuple(str(getattr(item, title)) or "-" for title in _TITLES) for item in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
    ]
    lines += [f"{item.host}: {problem}" for item in rows for problem in item.problems]
    return "".join(f"{_one_line(line)}\n" for line in [*lines, summary(rows)])


def as_json(rows: t.Sequence[Row]) -> str:
    """An object for each host; ``ok`` is true if there are no problems."""
    hosts = {item.host: dataclasses.asdict(item) | {"ok": item.ok} for item in rows}
    return json.dumps({"ok": all(item.ok for item in rows), "hosts": hosts}, indent=2) + "\n"


def as_csv(rows: t.Sequence[Row]) -> str:
    """A line for each host, with problems separated by semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_TITLES, "panic", "ok", "problems"])
    for item in rows:
        values = [str(getattr(item, title)) for title in _TITLES]
        flags = [str(flag).lower() for flag in (item.panic, item.ok)]
        writer.writerow([*values, *flags, "; ".join(item.problems)])
    return text.getvalue()


FORMATS: dict[str, t.Callable[[t.Sequence[Row]], str]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".txt": as_text,
}


def summary(rows: t.Sequence[Row]) -> str:
    """One sentence about all hosts."""
    bad = [item.host for item in rows if not item.ok]
    if bad:
        return f"{len(bad)} of {len(rows)} hosts are not as they should be: {', '.join(bad)}"
    return f"all {len(rows)} hosts are as they should be"


def _one_line(text: str) -> str:
    """Replace control characters: text of a host may hold commands to the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
