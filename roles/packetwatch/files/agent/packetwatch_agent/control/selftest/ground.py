# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test ground of a drill: an interface, the program that filters it, its policy and its maps."""

from __future__ import annotations

import contextlib
import struct
import time
import typing as t

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import MAPS, Ban, Bans, Source
from packetwatch_core._change.panic import LIFT
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.first_ports import Firsts
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.programs import Program, attached

from .. import truth
from .red import Red

if t.TYPE_CHECKING:
    from packetwatch_core._host.host import Host
    from packetwatch_core._tables.tables import Tables

SECOND = 1_000_000_000
# A drill ends long before that.
_LASTING = 60 * SECOND
_MAPS = (
    *MAPS,
    "scan_ring",
    "hosts",
    "nets",
    "local",
    "open_ports",
    "shared",
    "firsts2",
    "tracks2",
    "rates",
)


class Ground:
    """Opens program and maps when it is made. stack: closes them. wanted: name of an interface, or None."""

    def __init__(self, host: Host, wanted: str | None, stack: contextlib.ExitStack) -> None:
        self._host = host
        with Loaded(host.pins) as loaded, loaded.generation() as current:
            if not loaded.active:
                panic = host.panicking()
                if panic:
                    raise Red(f"{panic.describe()}: {LIFT}")
                raise Red("no interface is filtered: systemctl start packetwatch-xdp@INTERFACE")
            number = loaded.program.info().id if loaded.program else 0
            self.interface = _choose(truth.interfaces(loaded), wanted)
            self.published: t.Sequence[int] = current.header["published"]
            self.tables: Tables = current.areas().tables()
        self.policy = self.interface.policy
        # In a dispatcher, the kernel cannot run the program alone; this one decides alike.
        self._program = stack.enter_context(Program.by_id(number))
        self.maps = {name: stack.enter_context(Map.open(host.pins.map(name))) for name in _MAPS}
        self.bans = Bans(self.maps)
        self.firsts = Firsts(self.maps["firsts2"], self.maps["shared"])
        self.packets = 0
        """Number of packets that the program was run on."""
        self._before = self._snapshot()
        self._bans_before = self._lasting_bans()

    @property
    def monitors(self) -> bool:
        """Whether the policy only monitors."""
        return self.interface.action == "monitor"

    def send(self, packet: bytes) -> int:
        """Run the program on a packet of the interface; return its verdict."""
        self.packets += 1
        return self._program.test_run(packet, self.interface.ifindex)[0]

    def find_ban(self, source: Source) -> Ban | None:
        """A ban of exactly this source."""
        # The agent writes a ban to the first map before it deletes it from another one, so a ban that
        # moves meanwhile is missed only if the first map is read first.
        found = (self.bans.find(source, table) for table in reversed(MAPS))
        return next((ban for ban in found if ban), None)

    def is_counted(self, source: Source) -> bool:
        """Whether the program has counted a port of the source."""
        return bool(self.firsts.hits(source.key)) or (
            self.maps["tracks2"].lookup(source.key) is not None
        )

    def was_open(self, port: int) -> bool:
        """Whether the program has seen the port open."""
        value = self.maps["open_ports"].lookup(struct.pack("=I", port)) or bytes(8)
        return any(value)

    def vacate_ring(self, source: Source, slots: int) -> None:
        """Free the slots with the source among the last ones of the ring of scan bans."""
        ring = self.maps["scan_ring"]
        shared = abi.SHARED.unpack(self.maps["shared"].lookup(bytes(4)) or b"")
        for turn in range(max(shared["ring_head"] - slots, 0), shared["ring_head"]):
            place = struct.pack("=I", turn % ring.info.max_entries)
            if ring.lookup(place) == source.key:
                ring.update(place, bytes(len(source.key)))

    def changes(self) -> list[str]:
        """Parts that have changed since the ground was opened, apart from counters."""
        after = self._snapshot()
        changed = [name for name in after if after[name] != self._before[name]]
        if self._bans_before - {ban.source.key for ban in self.bans.walk("bans")}:
            changed.append("bans")
        return changed

    def _snapshot(self) -> dict[str, object]:
        with Loaded(self._host.pins) as loaded:
            links = {name: (held.program_id, held.ifindex) for name, held in loaded.links.items()}
            with loaded.generation() as current:
                digest = current.digest, current.header["lists"]
        modes = {
            name: attached(ifindex).mode for name, (dummy, ifindex) in links.items() if ifindex
        }
        return {"links": links, "lists and policy": digest, "modes": modes}

    def _lasting_bans(self) -> set[bytes]:
        """The keys of bans that do not expire while the drill lasts."""
        end = time.monotonic_ns() + _LASTING
        return {ban.source.key for ban in self.bans.walk("bans") if not ban.has_expired(end)}


def _choose(found: list[truth.Interface], wanted: str | None) -> truth.Interface:
    """The wanted interface, or the first that enforces, or the first that monitors."""
    usable = [item for item in found if item.action != "off"]
    if wanted:
        usable = [item for item in usable if item.name == wanted]
    if not usable:
        names = ", ".join(f"{item.name} ({item.action})" for item in found)
        if wanted:
            raise Red(
                f"{wanted} is not filtered, or its action is off; choose with --interface one of: {names}"
            )
        raise Red(
            f"action is off on every filtered interface: {names}; set it to enforce or monitor"
        )
    return min(usable, key=lambda item: item.action != "enforce")
