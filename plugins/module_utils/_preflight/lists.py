# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The lists that the role declares, judged on a host before anything is installed there."""

from __future__ import annotations

import typing as t

from .._active.idle import find_idle
from .._base.clock import read_clock
from .._base.errors import PacketwatchError
from .._declared.bulk import read_prefixes
from .._declared.edits import set_lists
from .._declared.policy import resolve_policies
from .._declared.store import ROLE, State
from .._feeds.spare import has_feeds, spared_now
from .._network import protect

if t.TYPE_CHECKING:
    from .._active.idle import Idle
    from .._declared.bulk import DropIn

KINDS: tuple[t.Literal["allow", "deny"], ...] = ("allow", "deny")


def find_idle_entries(lists: t.Mapping[str, DropIn]) -> Idle:
    """Return the entries of the role's lists that have no effect, judged by those lists alone."""
    passed, is_trusted = read_clock("")
    allow, deny = (
        read_prefixes(lists.get(kind, ""), f"the {kind} list", passed, is_trusted, kind)
        for kind in KINDS
    )
    state = State(allow={ROLE: lists.get("allow", "")}, deny={ROLE: lists.get("deny", "")})
    return find_idle(state, allow, deny, passed if is_trusted else None)


def check_lists(
    lists: t.Mapping[str, DropIn], declared: State, protected: t.Sequence[str], memory: int
) -> t.Iterator[str]:
    """Yield why the host would refuse these lists of the role; lists that it has already are not compiled.

    lists: drop-ins by kind ("allow", "deny"). protected: the declared protected sources. memory: maximum
    kernel memory of the lists, in MiB.
    """
    after = set_lists(ROLE, lists, True)(declared)
    if (after.allow, after.deny) == (declared.allow, declared.deny):
        return
    # Imported here: a run that changes no lists does not need them.
    from .._active.build import build
    from .._active.generation import capacity_for
    from .._active.lists import compile_lists
    from .._active.loaded import check_memory
    from .._active.protected import DeniesProtected, check_protected

    network = protect.read_network()
    protection = protect.compute(protect.parse_declared(",".join(protected)), True, network)
    spared = spared_now(network, protection) if has_feeds(after) else {}
    areas = compile_lists(after, spared, for_good=True).areas
    try:
        check_protected(areas, protection, after)
    except DeniesProtected as error:
        yield error.unforced
    try:
        check_memory(capacity_for(build(areas, resolve_policies({}), {}, bytes(32)).pages), memory)
    except PacketwatchError as error:
        yield str(error)
