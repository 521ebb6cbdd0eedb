# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What is wrong with a host. Each viewer states what it knows as `Facts`; only `find` judges them.

Viewers are root (it reads kernel and files), the agent (it sees the links and root's note), members of
the control groups (they ask the agent) and the controller (it has the result of host_info).
"""

from __future__ import annotations

import time
import types
import typing as t

from .._base.interface import attach_command
from .._change.panic import LIFT
from .._change.pending import ENDS

# Root compares the tables every ten minutes.
_MAX_UNVERIFIED = 3 * 3600.0
FROZEN = "boot the host, or remove the filter and install it again"

Names = t.Collection[str]


class Problem(t.NamedTuple):
    """One thing that is wrong.

    remedy: what an operator can do about it. is_drift: the kernel differs from confirmed state, and
    root can repair that.
    """

    text: str
    remedy: str = ""
    is_drift: bool = False

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


class Unconfirmed(t.NamedTuple):
    """A change that is pending: who made it, and the seconds until it is reverted."""

    owner: str
    left: float


class Facts(t.NamedTuple):
    """What a viewer knows. A fact that it cannot know keeps its default, which is not a problem."""

    panic: str = ""
    """The panic in words; empty if there is none."""
    is_pending: bool = False
    """Whether a change is pending. If so, the tables are not those of confirmed state on purpose."""
    unconfirmed: Unconfirmed | None = None
    """Details of the pending change; None: it is not reported."""
    is_loaded: bool = True
    """Whether a filter is loaded."""
    declared: Names = ()
    """Interfaces of confirmed state."""
    filtered: Names = ()
    """Interfaces to which our program is attached."""
    present: Names | None = None
    """Interfaces that exist; None: all declared ones exist."""
    renamed: t.Mapping[str, str] = types.MappingProxyType({})
    """Filtered interfaces that are not declared, with the declared names that they had before."""
    is_declaration_judged: bool = False
    """Whether it is a problem if a filtered interface is not declared, or if there is no interface."""
    replaced: Names = ()
    """Interfaces on which the kernel does not run the program that their link holds."""
    nexts: t.Mapping[str, str] = types.MappingProxyType({})
    """What is wrong with the next program of each interface that has one; empty if nothing is."""
    strayed: Names = ()
    """Those of them whose next program an apply puts right."""
    unread: Names = ()
    """Interfaces whose dispatcher another tool has replaced, so that only root can see what it has now."""
    is_whole: bool = True
    """Whether all links hold the pinned program."""
    is_edited: bool = False
    """Whether an operator has edited files of confirmed state and not applied them."""
    matches: bool | None = None
    """Whether the kernel has the tables of confirmed state."""
    refusal: str = ""
    """Why confirmed state cannot be activated."""
    active: int | None = None
    """Number of the state whose tables the kernel has."""
    confirmed: int = 0
    """Number of the confirmed state."""
    unpinned: Names = ()
    """Maps that the program uses and that are not pinned."""
    is_blind: bool = False
    """Whether a filter is attached whose maps the agent cannot see."""
    has_failed: bool = False
    """Whether the last activation of confirmed state, or its verification, failed."""
    failure: str = ""
    """Why it failed, if that is known."""
    wrong_settings: t.Collection[str] = ()
    """What is wrong with settings for which the last good value or the default is in force."""
    distrusted: t.Collection[str] = ()
    """Which compiled files were not used, and why."""
    broken_feeds: t.Mapping[str, str] | int = 0
    """Feeds that are left out as a whole: their names with reasons, or only their number."""
    expired_feeds: t.Mapping[str, float] = {}
    """Feeds whose last copy has expired and is removed, with the time of that."""
    verified: float | None = None
    """When root last compared the tables, in Unix seconds."""
    unverified: str = ""
    """Why root could not compare them at its last attempt."""
    unsaved: str = ""
    """Why the agent could not save the bans at its last attempt."""
    frozen: Names = ()
    """Maps that can never be written again."""
    damaged_bans: Names = ()
    """Damaged records of bans, in words: what there was, and where it is."""
    are_events_lost: bool = False
    agent_error: str = ""
    """Why the agent does not answer."""
    is_agent_waiting: bool = False
    """Whether the agent sees no filter although one is loaded."""


def find(facts: Facts) -> list[Problem]:
    """All problems, the gravest first. A panic explains the other problems, as does a missing filter."""
    if facts.panic:
        found = [Problem(facts.panic, LIFT)]
    elif not facts.is_loaded:
        found = [Problem("no filter is loaded")]
    else:
        found = [*_of_interfaces(facts), *_of_tables(facts), *_of_maps(facts), *_of_root(facts)]
    return [*found, *_of_others(facts)]


def drift(facts: Facts) -> list[Problem]:
    """The problems that root can repair, whether or not a filter is loaded.

    While a change is pending, interfaces and tables differ from confirmed state on purpose.
    """
    found = list(_of_maps(facts))
    if not facts.is_pending:
        found = [*_of_interfaces(facts), *_of_tables(facts), *found]
    return [problem for problem in found if problem.is_drift]


def _of_interfaces(facts: Facts) -> t.Iterator[Problem]:
    yield from _of_renames(facts)
    for name in facts.declared:
        if name not in facts.filtered and name not in _missing(facts):
            # A device that has disappeared is not drift: nothing can be attached to it.
            is_there = facts.present is None or name in facts.present
            yield Problem(f"{name} is not filtered", attach_command(name), is_there)
    if facts.is_declaration_judged:
        yield from _of_declaration(facts)
    for name, why in facts.nexts.items():
        if why:
            text = f"the next program of {name} is not as declared: {why}"
            yield Problem(text, is_drift=name in facts.strayed)
    for name in facts.unread:
        text = f"another tool has replaced the dispatcher of {name}: root reads what it has now"
        yield Problem(text, is_drift=True)
    for name in facts.replaced:
        yield Problem(f"{name} is not filtered by the program that its link holds", is_drift=True)


def _of_renames(facts: Facts) -> t.Iterator[Problem]:
    missing = _missing(facts)
    for name, former in facts.renamed.items():
        if former in missing:
            text = f"{name} is filtered as {former}, which was its name before"
            yield Problem(text, f"declare {name}, or give the device its former name")
        else:
            text = (
                f"{name} is filtered but not declared: another device has its former name {former}"
            )
            yield Problem(text, attach_command(former), is_drift=True)


def _missing(facts: Facts) -> set[str]:
    """Former names of renamed interfaces that no device has now."""
    there = facts.present if facts.present is not None else facts.declared
    return {former for former in facts.renamed.values() if former not in there}


def _of_maps(facts: Facts) -> t.Iterator[Problem]:
    for name in facts.unpinned:
        yield Problem(f"the map {name} is in use and not pinned any more", is_drift=True)
    if facts.is_blind:
        yield Problem("a filter is there, but not its maps", is_drift=True)


def _of_declaration(facts: Facts) -> t.Iterator[Problem]:
    if not facts.declared and not facts.filtered:
        yield Problem("no interface is filtered, and none is declared")
    for name in facts.filtered:
        if name not in facts.declared and name not in facts.renamed:
            yield Problem(f"{name} is filtered but not declared: the next boot does not filter it")


def _of_tables(facts: Facts) -> t.Iterator[Problem]:
    apply = "packetwatchctl apply"
    if not facts.is_whole:
        text = (
            "interfaces hold other programs than the one that is pinned: a change was interrupted, "
            "or another tool has replaced one"
        )
        yield Problem(text, apply, is_drift=True)
    if facts.is_pending:
        return
    if facts.is_whole and facts.is_edited:
        yield Problem(f"confirmed state was edited by hand and is not active: {apply}")
    elif facts.is_whole and facts.matches is False:
        text = "the tables in the kernel are not those of confirmed state"
        yield Problem(text, apply, is_drift=True)
    if facts.refusal:
        yield Problem(f"confirmed state cannot be activated: {facts.refusal}")
    if facts.active not in (None, facts.confirmed):
        text = f"state {facts.active} is active, and {facts.confirmed} is confirmed"
        yield Problem(text, is_drift=True)


def _of_root(facts: Facts) -> t.Iterator[Problem]:
    """Failures of root's one-shots, and what they have not done for too long."""
    if facts.has_failed:
        why = f": {facts.failure}" if facts.failure else ""
        yield Problem(f"the last apply has failed{why}")
    if isinstance(facts.broken_feeds, int):
        if facts.broken_feeds:
            yield Problem("a feed is damaged, and left out")
    else:
        for name, why in sorted(facts.broken_feeds.items()):
            yield Problem(f"{name} is left out: {why}")
    for name, end in sorted(facts.expired_feeds.items()):
        when = time.strftime("%Y-%m-%d", time.gmtime(end))
        text = f"the feed {name} has no copy any more: the last one has expired on {when}"
        yield Problem(text, "run packetwatch.xdp.site")
    if facts.unverified:
        text = f"the tables could not be verified: {facts.unverified}"
        yield Problem(text, "systemctl restart packetwatch-verify tries again")
    elif facts.verified is not None and time.time() - facts.verified > _MAX_UNVERIFIED:
        yield Problem("the tables have not been verified for hours")


def _of_others(facts: Facts) -> t.Iterator[Problem]:
    """Problems that exist whether or not a filter is loaded."""
    for text in facts.wrong_settings:
        yield Problem(f"a setting is not in force: {text}")
    for text in facts.distrusted:
        yield Problem(text, "packetwatchctl apply makes it anew")
    if facts.unconfirmed:
        owner, left = facts.unconfirmed
        yield Problem(f"a change of {owner} is not confirmed yet and reverts in {left:.0f} s", ENDS)
    if facts.unsaved:
        text = f"bans are not saved and would be lost at a reboot: {facts.unsaved}"
        yield Problem(text, "the agent tries again by itself")
    for name in facts.frozen:
        text = f"the map {name} is frozen: what it has of bans or protected addresses cannot change"
        yield Problem(text, FROZEN)
    for text in facts.damaged_bans:
        yield Problem(text)
    if facts.are_events_lost:
        yield Problem("events are lost")
    if facts.agent_error:
        yield Problem(f"the agent does not answer, but filtering goes on: {facts.agent_error}")
    if facts.is_agent_waiting:
        yield Problem("the agent sees no filter", "systemctl restart packetwatch")
