# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Planning a change: read, check and compile all that it needs, and change nothing.

Check mode reports the plan, and apply carries out the same plan.
"""

from __future__ import annotations

import typing as t

from .._active import attach
from .._active.build import build
from .._active.generation import capacity_for
from .._active.images import Images
from .._active.lists import Lists, digest_of
from .._active.loaded import check_memory
from .._base.errors import InvalidInput
from .._declared.policy import resolve_policies
from .._kernel import abi
from .._kernel.source import check_format
from .._network.snapshot import Snapshot
from .links import NO_LINKS, NO_WISH, Links, Wish, plan_links, renamed
from .programs import NextPrograms, Programs
from .results import Plan
from .tables import ListCompiler

if t.TYPE_CHECKING:
    from .._active.generation import Areas, Image
    from .._active.loaded import Loaded
    from .._base.paths import Paths
    from .._declared.edits import Edit
    from .._declared.store import State, Store
    from .._kernel.bytecode import Bytecode
    from .._kernel.nexts import NextOf
    from .hits import Hits
    from .programs import Compilers


class Draft(t.NamedTuple):
    """A plan and what is needed to carry it out.

    renews: the generation is replaced. met: packets are decided differently than before. protects:
    other settings decide which sources are protected. nexts: the next programs of the filtered interfaces
    after the change.
    """

    plan: Plan
    state: State
    image: Image
    bytecode: t.Callable[[], Bytecode]
    lists: Lists | None
    declares: bool
    renews: bool
    met: bool
    links: Links
    protects: bool
    nexts: NextOf


class Now:
    """The active generation before a change.

    areas: its tables; None if nothing is filtered, or if the caller does not trust digests in kernel
    headers (`afresh`). noted: the same with the noted digests of their pages.
    """

    def __init__(
        self,
        digest: str,
        header: dict[str, t.Any],
        areas: Areas | None = None,
        noted: Areas | None = None,
    ) -> None:
        self.digest = digest
        self.header = header
        self.areas = areas
        self.noted = noted

    @property
    def lists(self) -> bytes:
        """Digest of the lists from which the tables were compiled."""
        return bytes(self.header["lists"])

    @property
    def is_read(self) -> bool:
        """Whether the loaded program reads tables of this version's format."""
        return bool(self.header["format"] == abi.FORMAT)


class NewCode:
    """digest: of the program that a generation is for. reaches: that program will filter an interface."""

    def __init__(self, digest: bytes, reaches: bool) -> None:
        self.digest = digest
        self.reaches = reaches


_UNKNOWN = bytes(32)
"""Stands for the digest of a program that check mode does not compile."""


class Planner:
    """Plans one operation. loaded: the filter in the kernel. snapshot: the host's network and settings."""

    def __init__(
        self,
        paths: Paths,
        store: Store,
        compilers: Compilers,
        loaded: Loaded,
        snapshot: Snapshot,
    ) -> None:
        self.snapshot = snapshot
        images = Images(paths.images)
        self.programs = Programs(compilers.filter, images, paths.source)
        self.nexts = NextPrograms(compilers.next, loaded.pins)
        self._last_settings = images.last_settings
        self.lists = ListCompiler(paths, snapshot)
        self._paths = paths
        self._store = store
        self._loaded = loaded

    def draft(
        self,
        edit: Edit | None,
        force: bool = False,
        wish: Wish = NO_WISH,
        *,
        moves: bool = True,
        candidate: int = 0,
        afresh: bool = False,
        check: bool = False,
        by_hand: bool = False,
    ) -> Draft:
        """Plan an edit of confirmed state, or its activation without an edit; raise why it is refused.

        moves: whether links may be made and removed. candidate: number of the state that counts instead
        of confirmed state, because it is pending. afresh: compile and compare everything, and do not
        trust digests in kernel headers. check: the plan will not be carried out. by_hand: an
        administrator has edited files of confirmed state, which have not been checked yet. If neither the loaded nor the installed program
        reads tables of this version's format, the loaded generation stays: the change is activated
        together with a program that reads them. An interface cannot be attached then.
        """
        loaded = self._loaded
        if candidate:
            before = self._store.read(candidate)
        else:
            # A writer has the lock, and is quick only if it does not read what does not change.
            before = self._store.read_current(reads_all=check or edit is None)[1]
        after = edit(renamed(before, wish.names, loaded)) if edit else before
        protects = after.settings != before.settings
        if protects:
            found = Snapshot(
                self._paths.settings, self._last_settings, after.settings, loaded.devices
            )
            self._use(found)
        if edit and self.snapshot.settings.problems:
            # A boot and an apply go on with the last good values. A person can correct them first.
            raise InvalidInput("; ".join(self.snapshot.settings.problems.values()))
        policies = resolve_policies(after.policy)
        planned = NO_LINKS
        if moves:
            planned = plan_links(before, after, wish, loaded, self.snapshot, check=check)
        ifindexes = planned.after(loaded.owned(after.interfaces))
        filters = planned.filters(loaded)
        now = self._now(afresh)
        code = self._code(now, before, after, filters, afresh=afresh, check=check)
        nexts = self.nexts.wanted(before, after, ifindexes, must=edit is not None)
        if edit and not check and after.next != before.next:
            self.nexts.compile(after)
        if planned.targets and not code.reaches:
            check_format(self.programs.source(after))
        areas, lists = self.lists.tables(
            after,
            None if protects else now.areas,
            loaded.active,
            before,
            now.noted,
            judge=edit is not None or by_hand,
        )
        if by_hand and not force and loaded.active and now.lists != digest_of(after):
            self._refuse_denied(areas, after)
        hits = None
        judged = protects or (after.allow, after.deny) != (before.allow, before.deny)
        if lists and judged:
            hits = self._check_lists(now, after, lists, force)
        image = build(areas, policies, ifindexes, code.digest, has_nexts=bool(after.next))
        if edit:
            attach.check_listeners(policies, ifindexes, self.snapshot.links)
        if edit and judged:
            check_memory(capacity_for(image.pages), self.snapshot.settings.list_memory)
        differs = image.digest != now.digest or code.digest != now.header["bytecode"]
        decides = code.reaches and (differs or not loaded.whole)
        # Lists whose text changed but whose tables did not still need their digest renewed.
        said = now.lists, now.header["next_expiry"], now.header["valid_from"]
        is_said = (areas.lists, areas.next_expiry, areas.valid_from) == said
        plan = Plan(
            changed=before != after
            or bool(planned.made or planned.drops)
            or self._drifts(now, code, areas, image, policies, decides, ifindexes, after),
            digest_before=now.digest,
            digest_after=image.digest,
            counts=lists.counts if lists else count(after),
            states=(before, after),
            active=code.reaches,
            hits=hits,
            feeds=lists.note.report if lists else self.lists.report(),
            idle=lists.idle if lists else None,
            attachments=planned.forecast(),
        )
        hands_over = any(
            after.next.get(name) != before.next.get(name) for name in loaded.owned(after.interfaces)
        )
        return Draft(
            plan=plan,
            state=after,
            image=image,
            bytecode=self.programs.of(after),
            lists=lists,
            declares=before != after,
            renews=decides or (filters and now.is_read and not is_said),
            met=decides or planned.met or hands_over,
            links=planned,
            protects=protects,
            nexts=nexts,
        )

    def image(
        self, state: State, ifindexes: t.Mapping[str, int], code: bytes
    ) -> tuple[Image, Lists | None]:
        """The generation of a state, and its lists if they had to be compiled."""
        with self._loaded.generation() as current:
            areas, lists = self.lists.tables(state, current.areas(), self._loaded.active)
        policies = resolve_policies(state.policy)
        image = build(areas, policies, ifindexes, code, has_nexts=bool(state.next))
        return image, lists

    def _use(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.lists = ListCompiler(self._paths, snapshot)

    def _now(self, afresh: bool) -> Now:
        with self._loaded.generation() as current:
            digest = current.check_digest(current.areas()) if afresh else current.digest
            if not self._loaded.active or afresh:
                return Now(digest, current.header)
            areas = current.areas()
            return Now(digest, current.header, areas, self.lists.noted(current, areas))

    def _code(
        self,
        now: Now,
        before: State,
        after: State,
        filters: bool,
        *,
        afresh: bool,
        check: bool,
    ) -> NewCode:
        """The program after the change. filters: whether any interface will be filtered."""
        reaches = filters and (now.is_read or self.programs.reads_ours(after))
        # During a panic, another program may have been declared than the one that is still loaded.
        is_used = self._loaded.active and now.is_read and not afresh
        if not reaches or (is_used and after.program == before.program):
            return NewCode(now.header["bytecode"], reaches)
        if not check:
            return NewCode(self.programs.of(after)().digest, reaches)
        found = self.programs.cached(self.programs.source(after))
        return NewCode(found.digest if found else _UNKNOWN, reaches)

    def _check_lists(self, now: Now, after: State, lists: Lists, force: bool) -> Hits:
        """Refuse lists that deny a protected address, unless forced; return what they newly deny."""
        if not force:
            for_good = lists.areas
            # Imported here, like `hits` below.
            from .._active.protected import may_lose_allow

            if may_lose_allow(after, self.snapshot.protection):
                for_good = self.lists.for_good(after, lists)
            self._refuse_denied(for_good, after)
        # Imported here: a boot does not need it, and it would cost memory.
        from . import hits

        protection = self.snapshot.protection if force else None
        return hits.find(now.areas, lists.areas, protection, self._loaded.pins)

    def _refuse_denied(self, areas: Areas, state: State) -> None:
        # Imported here, like `hits` above.
        from .._active.protected import check_protected

        check_protected(areas, self.snapshot.protection, state)

    def _drifts(
        self,
        now: Now,
        code: NewCode,
        areas: Areas,
        image: Image,
        policies: t.Mapping[str, t.Any],
        met: bool,
        ifindexes: t.Mapping[str, int],
        state: State,
    ) -> bool:
        """Whether the kernel differs from a state that was not edited. Expired entries are not drift."""
        active = now.areas
        if (
            active is not None
            and self._loaded.whole
            and code.digest == now.header["bytecode"]
            and active.lists == areas.lists
        ):
            same = build(active, policies, ifindexes, code.digest, has_nexts=bool(state.next))
            return same.digest != now.digest
        return met


def count(state: State) -> dict[str, int]:
    """The number of entries that a state declares, by kind."""
    from .._declared.describe import count_lists

    return count_lists(state)
