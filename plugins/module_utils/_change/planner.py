# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What a state makes of this host: tables, the image of a generation, and how it differs from what is
live. All is read here, checked and compiled; nothing is changed.
"""

from __future__ import annotations

import typing as t

from .._active import attach
from .._active.generation import build, capacity_for
from .._active.lists import Lists, check_protected, compile_lists, digest_of, is_current
from .._active.loaded import check_memory
from .._base.errors import InvalidInput
from .._declared.policy import resolve_policies
from .._feeds.spare import NOTHING, has_feeds, lasting, read_note, spared_now
from .._kernel import abi
from .._kernel.source import check_format, flatten, reads_ours
from .._network import protect
from .._network.settings import read_settings
from .results import Plan

if t.TYPE_CHECKING:
    from .._active.generation import Areas, Image
    from .._active.loaded import Loaded
    from .._declared.edits import Edit
    from .._declared.store import State, Store
    from .._feeds.spare import FeedReport, Spared
    from .._kernel.bytecode import Bytecode, Compiler
    from .._kernel.pins import Paths, Pins


class Draft(t.NamedTuple):
    """A plan with what carrying it out needs; met: packets meet something else than before."""

    plan: Plan
    state: State
    image: Image
    lists: Lists | None
    declared: bool
    apply: bool
    met: bool


_UNKNOWN = bytes(32)
"""For the digest of a program that would have to be compiled."""


class Planner:
    """Knows the host's files and pins, and the compiler."""

    def __init__(self, paths: Paths, store: Store, pins: Pins, compiler: Compiler) -> None:
        self._paths = paths
        self._store = store
        self._pins = pins
        self._compiler = compiler

    def draft(
        self,
        loaded: Loaded,
        edit: Edit | None,
        force: bool,
        *,
        afresh: bool = False,
        check: bool = False,
    ) -> Draft:
        """What an edit of confirmed state, or that state by itself, comes to; raises what forbids it.

        afresh: compile and compare all, without belief in what the kernel says of itself. check: nothing
        will be done with it. What is loaded stays as it is where neither it nor what is installed
        reads the tables of this version: those go live with the program that does.
        """
        dummy, before = self._store.read_current()
        after = edit(before) if edit else before
        policies = resolve_policies(after.policy)
        with loaded.generation() as current:
            digest_before = current.check_digest(current.areas()) if afresh else current.digest
            header = current.header
            live = current.areas() if loaded.active and not afresh else None
        code = loaded_code = header["bytecode"]
        is_read = header["format"] == abi.FORMAT
        reaches = loaded.active and (is_read or self._can_bring(after))
        if reaches and not is_read and check:
            code = _UNKNOWN
        elif reaches and (afresh or not is_read or after.program != before.program):
            code = self.bytecode_of(after)().digest
        areas, lists = self._tables(loaded, live, after)
        hits = None
        if lists and (after.allow, after.deny) != (before.allow, before.deny):
            if not force:
                for_good = areas
                if any("expires=" in text for text in after.allow.values()):
                    for_good = compile_lists(after, lists.note.spared, for_good=True).areas
                check_protected(for_good, self.protection())
            from . import hits as hits_module

            protection = self.protection() if force else None
            hits = hits_module.find(live, areas, protection, self._pins)
        image = build(areas, policies, loaded.ifindexes, code)
        if edit:
            attach.check_listeners(policies, loaded.ifindexes)
            check_memory(capacity_for(image.pages), read_settings(self._paths.settings).list_memory)
        other = image.digest != digest_before or code != loaded_code
        apply = reaches and (other or not loaded.whole)
        drifted = apply
        if loaded.whole and code == loaded_code and live is not None and live.lists == areas.lists:
            # That entries expire is no change.
            drifted = build(live, policies, loaded.ifindexes, code).digest != digest_before
        plan = Plan(
            changed=before != after or drifted,
            digest_before=digest_before,
            digest_after=image.digest,
            counts=lists.counts if lists else count(after),
            states=(before, after),
            live=reaches,
            hits=hits,
            feeds=lists.note.report if lists else self.feeds(),
        )
        # Lists whose text changed but whose tables did not still need their digest renewed.
        said = header["lists"], header["next_expiry"]
        renew = apply or (is_read and (areas.lists, areas.next_expiry) != said)
        return Draft(plan, after, image, lists, before != after, renew, apply)

    def feeds(self) -> FeedReport:
        """What was left out of feeds when the live tables were made."""
        return read_note(self._paths.spared).report

    def image(
        self, loaded: Loaded, state: State, ifindexes: t.Mapping[str, int], code: bytes
    ) -> tuple[Image, Lists | None]:
        """The image, and the lists if those had to be compiled."""
        with loaded.generation() as current:
            areas, lists = self._tables(loaded, current.areas(), state)
        return build(areas, resolve_policies(state.policy), ifindexes, code), lists

    def _tables(
        self, loaded: Loaded, live: Areas | None, state: State
    ) -> tuple[Areas, Lists | None]:
        """The live tables if they are still what the lists make, else such as are, with their lists."""
        spared = self._spared(loaded) if has_feeds(state) else {}
        if live is not None and is_current(live, state):
            note = read_note(self._paths.spared) if spared else NOTHING
            known = (
                note.lists == live.lists.hex() and lasting(spared).items() <= note.spared.items()
            )
            if known or not spared:
                return live, None
        lists = compile_lists(state, spared)
        return lists.areas, lists

    def _spared(self, loaded: Loaded) -> Spared:
        """Whom feeds must not deny. While nothing is filtered there may be no network yet, as at
        boot: then those of before count too, or it could not come up."""
        before = {} if loaded.active else lasting(read_note(self._paths.spared).spared)
        return before | self._spared_now()

    def _spared_now(self) -> Spared:
        network = protect.read_network()
        return spared_now(network, self.protection(network))

    def compile_alike(self, state: State) -> Lists:
        """Compile lists with the same exceptions for feeds as what is live, if it is of these."""
        if not has_feeds(state):
            return compile_lists(state)
        note = read_note(self._paths.spared)
        if note.lists != digest_of(state).hex():
            return compile_lists(state, self._spared_now())
        return compile_lists(state, note.spared)

    def protection(self, network: protect.Network | None = None) -> protect.Protection:
        """Who must not be banned, as things are now."""
        settings = read_settings(self._paths.settings)
        network = network or protect.read_network()
        return protect.compute(settings.protect, settings.protect_auto, network)

    def bytecode_of(self, state: State) -> t.Callable[[], Bytecode]:
        """Gets the bytecode of a state's program; compiles it if need be."""
        return lambda: self.compiled(self.source_of(state))

    def compiled(self, source: str) -> Bytecode:
        """The bytecode of a program; InvalidInput if it reads other tables than this version writes."""
        check_format(source)
        return self._compiler.get(source)

    def _can_bring(self, state: State) -> bool:
        """Whether a state's program, or the installed one, reads the tables of this version."""
        try:
            return reads_ours(self.source_of(state))
        except InvalidInput:
            return False

    def source_of(self, state: State) -> str:
        """The program of a state; at first, and while that reads other tables, the one that the role installed."""
        if state.program and reads_ours(state.program):
            return state.program
        return flatten(self._paths.source)


def count(state: State) -> dict[str, int]:
    """How many entries a state declares, by kind."""
    from .._declared.describe import count_lists

    return count_lists(state)
