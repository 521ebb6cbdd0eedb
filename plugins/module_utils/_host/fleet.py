# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Takes the lists of the fleet: a change like any other, which the self-test confirms."""

from __future__ import annotations

import typing as t

from .._change.pending import Terms
from .._declared.fleet import parse, read_file, set_fleet
from .._declared.store import FLEET

if t.TYPE_CHECKING:
    from .host import Host

# Long enough for the self-test. If this process dies, the host reverts the change.
_SECONDS = 60.0


class Taken(t.NamedTuple):
    """What became of the lists. counts: entries by kind. left_out: entries that match this host, as text."""

    changed: bool
    counts: t.Mapping[str, int]
    ignored: int
    left_out: t.Sequence[str]
    problems: t.Sequence[str]


def take_lists(host: Host, path: str, kinds: t.Collection[str]) -> Taken | None:
    """Make what the fleet process has left at a path the drop-in of the fleet; None if there is nothing.

    kinds: those that this host takes; without any, the drop-in is removed. Raises InvalidInput or `Unreadable`
    if the file is wrong, and LoadFailed if the self-test fails; then nothing has changed.
    """
    if not kinds:
        found = parse(b'{"v":1,"lists":{}}', kinds)
    else:
        try:
            found = parse(read_file(path), kinds)
        except FileNotFoundError:
            return None
    plan = host.apply(set_fleet(found.texts), terms=Terms(_SECONDS, owner="the fleet"))
    problems = list(plan.problems)
    if plan.pending:
        host.self_test(plan.pending.token)
        problems += host.confirm(plan.pending.token).problems
    left_out = plan.feeds.left_out.get(FLEET)
    counts = {
        kind: text.contents.lasting.entries + len(text.contents.expiring)
        for kind, text in found.texts.items()
    }
    return Taken(plan.changed, counts, found.ignored, _words(left_out), problems)


def _words(left_out: t.Any) -> list[str]:
    if left_out is None:
        return []
    more = left_out.total - len(left_out.examples)
    return [*left_out.examples, *([f"{more} more"] if more else [])]
