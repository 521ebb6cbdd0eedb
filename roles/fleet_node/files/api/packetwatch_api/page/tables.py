# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the page shows, as tables of text."""

from __future__ import annotations

import heapq
import time
import typing as t

from packetwatch_agent.control.words import count, span

from .. import values
from ..values import Json

if t.TYPE_CHECKING:
    from ..fleet import OwnBan, View

# Longer tables are slow on a phone. The API has all rows.
MAX_ROWS = 200
# Hosts report every 30 seconds, and enforcers at least as often.
_SILENT = 90.0
_MAX_NAMES, _MAX_PORTS = 6, 8
GOOD, BAD, WARN = "good", "bad", "warn"


class Cell(t.NamedTuple):
    """A text. mark: how it is shown; the text says the same. moment: RFC 3339, if it is a time.

    is_long: whether the text may be broken anywhere.
    """

    text: str
    mark: str = ""
    moment: str = ""
    is_long: bool = False


class Table(t.NamedTuple):
    """columns: the first one names the row. note: below the heading. empty: instead of rows."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    empty: str
    note: str = ""


def tables(view: View) -> list[Table]:
    """All tables of the page, the most urgent first."""
    return [_hosts(view), _bans(view), _rules(view), _decisions(view)]


def answer(address: str, fleet: Json, hosts: t.Mapping[str, Json]) -> Table:
    """What the fleet and each host do with an address."""
    rows = [[Cell("the fleet"), *_verdict(fleet), Cell("")]]
    for name, found in sorted(hosts.items()):
        state = Cell("has all decisions", GOOD) if found["current"] else Cell("behind", WARN)
        rows.append([Cell(name), *_verdict(found), state])
    return Table(
        "answer",
        f"What happens to {address}",
        ("Who", "Verdict", "Because", "State"),
        _cut(rows),
        "",
        _shown(rows),
    )


def _verdict(found: Json) -> tuple[Cell, Cell]:
    mark = "" if found["verdict"] == "pass" else WARN
    return Cell(found["verdict"], mark), _long(found["because"])


# Hosts


def _hosts(view: View) -> Table:
    found = sorted(view.hosts(), key=lambda host: (_health(host).mark == GOOD, host["name"]))
    rows = [
        [
            Cell(host["name"]),
            _health(host),
            _number(host["bans"]),
            _number(host["missing"], bad=True),
            _long(_counts(host["refused"])),
            _ago(host["age"]),
            _long(host["version"]),
        ]
        for host in found
    ]
    ill = sum(row[1].mark != GOOD for row in rows)
    note = f"{count(len(rows), 'host')}, {ill} of them not well. {_shown(rows)}".strip()
    return Table(
        "hosts",
        "Hosts",
        ("Host", "State", "Bans of the fleet", "Missing", "Refused", "Reported", "Version"),
        _cut(rows),
        "No host has reported.",
        note if rows else "",
    )


def _health(host: Json) -> Cell:
    """The state of a host; the worst thing comes first."""
    if host["age"] is None or host["age"] > _SILENT:
        return Cell("silent", BAD)
    if host["missing"]:
        return Cell("bans are missing", BAD)
    return Cell("well", GOOD) if host["current"] else Cell("behind", WARN)


# Bans


def _bans(view: View) -> Table:
    """Bans of the fleet, and those that hosts have made for scans themselves, the newest first."""
    made = dict(view.banned())
    own: dict[str, list[OwnBan]] = {}
    for ban in view.own_bans():
        own.setdefault(ban.source, []).append(ban)
        made[ban.source] = max(made.get(ban.source, 0.0), ban.made)
    newest = heapq.nsmallest(MAX_ROWS, made, key=lambda source: (-made[source], source))
    note = f"{count(len(made), 'source')} banned. {_shown(made)}".strip()
    return Table(
        "bans",
        "Bans",
        ("Source", "Where", "Ends", "Why", "Made"),
        [_banned(view, source, own.get(source, []), made[source]) for source in newest],
        "Nobody is banned.",
        note if newest else "",
    )


def _banned(view: View, source: str, own: t.Sequence[OwnBan], made: float) -> list[Cell]:
    """The row of a source. own: bans of single hosts."""
    ends = [ban.until for ban in own]
    where = [ban.host for ban in own]
    why = [_scan(ban) for ban in own[:_MAX_NAMES]]
    if ban := view.ban(source):
        ends.append(ban["until"])
        where.insert(0, "all hosts")
        why.insert(0, _reason(ban))
    return [
        Cell(source),
        _long(_names(where)),
        _in(max(ends) - view.now),
        _long("; ".join(why)),
        _at(made),
    ]


def _scan(ban: OwnBan) -> str:
    """Why a host has banned a source."""
    ports = [port for port in map(values.count, values.rows(ban.ports)) if port]
    text = f", ports {', '.join(map(str, ports[:_MAX_PORTS]))}" if ports else ""
    return f"{ban.host}: a scan ({values.text(ban.evidence)}){text}"


def _reason(ban: Json) -> str:
    """Why the fleet has banned a source."""
    by = f"{ban['enforcer']}/{ban['rule']}" if ban["enforcer"] else ban["rule"]
    seen = f", seen by {count(ban['hosts'], 'host')}" if ban["hosts"] else ""
    reason = f": {ban['reason']}" if ban["reason"] else ""
    return f"{by} ({ban['evidence']}){seen}{reason}"


# Enforcers


def _rules(view: View) -> Table:
    rows = []
    for name, enforcer in sorted(view.enforcers().items()):
        state = _enforcer(enforcer)
        rules = sorted(enforcer["rules"].items())
        rows += [_rule(name, rule, found, state, enforcer) for rule, found in rules]
        if not rules:
            rows.append([Cell(name), state, *[Cell("")] * 3, _ago(enforcer["age"])])
    return Table(
        "rules",
        "Rules",
        ("Rule", "State", "Action and thresholds", "Counts now", "Decisions", "Reported"),
        _cut(rows),
        "No enforcer has reported.",
        _shown(rows),
    )


def _rule(enforcer: str, name: str, found: Json, state: Cell, report: Json) -> list[Cell]:
    if found["fault"]:
        state = Cell(f"switched off: {found['fault']}", BAD, is_long=True)
    elif state.mark == GOOD and found["values"].get("unreachable"):
        state = Cell("too few hosts or networks for its thresholds", WARN, is_long=True)
    numbers = dict(found["values"])
    if report["refused"]:
        numbers["refused"] = sum(report["refused"].values())
    thresholds = f"{found['action']}: {_counts(found['thresholds'])}".rstrip(": ")
    return [
        Cell(f"{enforcer}/{name}"),
        state,
        _long(thresholds),
        _long(_counts(numbers)),
        _number(found["decided"]),
        _ago(report["age"]),
    ]


def _enforcer(found: Json) -> Cell:
    if found["age"] is None or found["age"] > _SILENT:
        return Cell("silent", BAD)
    if found["blind"]:
        return Cell(f"blind: hosts have lost {found['lost']:,} probes", BAD)
    return Cell("well", GOOD)


# Decisions


def _decisions(view: View) -> Table:
    found = view.events()
    rows = [
        [
            Cell(event["address"]),
            Cell(event["action"]),
            Cell(event["by"]),
            Cell(span(event["seconds"]) if event["seconds"] else ""),
            _long(_evidence(event)),
            _at(event["t"]),
        ]
        for event in found
    ]
    return Table(
        "decisions",
        "Last decisions",
        ("Address", "Decision", "By", "For", "Because", "When"),
        _cut(rows),
        "Nothing was decided.",
        _shown(rows),
    )


def _evidence(event: Json) -> str:
    parts = [event["why"]]
    if event["hosts"]:
        parts.append(f"hosts {_names(event['hosts'])}")
    if event["ports"]:
        parts.append(f"ports {', '.join(map(str, event['ports']))}")
    return "; ".join(part for part in parts if part)


# Cells


def _long(text: str) -> Cell:
    return Cell(text, is_long=True)


def _number(value: int | None, bad: bool = False) -> Cell:
    if value is None:
        return Cell("unknown", WARN)
    return Cell(f"{value:,}", BAD if bad and value else "")


def _counts(numbers: t.Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number:,.10g}" for name, number in numbers.items() if number)


def _names(names: t.Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _ago(seconds: float | None) -> Cell:
    return Cell("never", BAD) if seconds is None else Cell(f"{span(seconds)} ago")


def _in(seconds: float) -> Cell:
    return Cell(f"in {span(seconds)}")


def _at(seconds: float) -> Cell:
    moment = time.gmtime(seconds)
    return Cell(
        time.strftime("%Y-%m-%d %H:%M:%S", moment),
        moment=time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
    )


def _cut(rows: list[list[Cell]]) -> list[list[Cell]]:
    return rows[:MAX_ROWS]


def _shown(rows: t.Sized) -> str:
    return f"The first {MAX_ROWS} are shown." if len(rows) > MAX_ROWS else ""
