# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fire drill: a scan that never was goes through detection, ban, log and lift on the live host.

It runs the very program that the interface has, on its real maps, by BPF_PROG_TEST_RUN. Nothing is
loaded. What it leaves are counters, the position in the ring of scan bans, the flag that there may
be scan bans, and lines in the log.
"""

from __future__ import annotations

import contextlib
import secrets
import struct
import time
import typing as t

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import MAPS, Ban, Bans, Source
from packetwatch_core._base.address import format_prefix, from_mapped, mapped, parse_prefix
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.first_ports import Firsts
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.programs import Program, attached

from . import probe, truth, why, wire
from .client import Connection

if t.TYPE_CHECKING:
    from packetwatch_core._host.host import Host

STAGES = ("prepare", "detect", "ban", "enforce", "log", "lift", "restore")
_PASS, _DROP = 2, 1
# RFC 5737; of IPv6 it is 2001:db8::/32 (RFC 3849).
_DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
_ATTEMPTS = 256
_SECOND = 1_000_000_000
# Seconds to wait for the agent's line.
_LOG = 10.0
_MAPS = (
    *MAPS,
    "scan_ring",
    "hosts",
    "nets",
    "local",
    "open_ports",
    "shared",
    "firsts",
    "tracks",
    "rates",
)
_VERDICTS = {_PASS: "passed", _DROP: "dropped"}


class Stage(t.NamedTuple):
    """One step of the drill."""

    name: str
    ok: bool
    text: str


class Red(Exception):
    """A stage has failed; later ones that build on it are not run."""


class Drill:
    """One run. `agent` opens a connection to the agent's socket, or raises `ControlError`."""

    def __init__(
        self,
        host: Host,
        agent: t.Callable[[], Connection],
        interface: str | None = None,
        family: int = 4,
        clock: t.Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._host = host
        self._agent = agent
        self._wanted = interface
        self._family = family
        self._now = clock
        self._stack = contextlib.ExitStack()
        self.stages: list[Stage] = []
        self.source = ""
        self.interface = ""
        self._runs = 0

    @property
    def passed(self) -> bool:
        return bool(self.stages) and all(stage.ok for stage in self.stages)

    def run(self) -> wire.Result:
        """All stages as far as they can be run; what was made is taken away whatever happens."""
        with self._stack:
            self._take("prepare", self._prepare)
            try:
                if self.passed:
                    self._scan()
            finally:
                if self.source:
                    self._take("restore", self._restore)
        return {
            "passed": self.passed,
            "interface": self.interface,
            "source": self.source,
            "packets": self._runs,
            "stages": [stage._asdict() for stage in self.stages],
        }

    def _scan(self) -> None:
        """The stages between preparing and restoring, as far as each builds on the one before."""
        watch = self._watch()
        if self._take("detect", self._detect) and self._take("ban", self._ban):
            self._take("enforce", self._enforce)
            self._take("log", lambda: self._log(watch))
            self._take("lift", self._lift)

    def _take(self, name: str, stage: t.Callable[[], str]) -> bool:
        try:
            self.stages.append(Stage(name, True, stage()))
            return True
        except (Red, PacketwatchError, OSError) as error:
            self.stages.append(Stage(name, False, str(error)))
            return False

    # Prepare

    def _prepare(self) -> str:
        """Choose interface, source, target and ports."""
        with Loaded(self._host.pins) as loaded, loaded.generation() as current:
            if not loaded.active:
                raise Red("no interface is filtered: systemctl start packetwatch-xdp@INTERFACE")
            self._choose_interface(truth.interfaces(loaded))
            self._published = current.header["published"]
            self._tables = current.areas().tables()
        self._program = self._stack.enter_context(
            Program.by_id(attached(self._on.ifindex).program_id)
        )
        self._maps = {
            name: self._stack.enter_context(Map.open(self._host.pins.map(name))) for name in _MAPS
        }
        self._bans = Bans(self._maps)
        self._firsts = Firsts(self._maps["firsts"], self._maps["shared"])
        self._before = self._snapshot()
        self._bans_before = self._lasting()
        self._check_grace()
        self._target = self._choose_target()
        self._ports = self._choose_ports()
        self._key = self._choose_source()
        monitor = ", which only watches" if self._on.action == "monitor" else ""
        return (
            f"{self.source} will try {len(self._ports)} closed ports on {self.interface}{monitor}"
            if self._on.counts == "closed"
            else f"{self.source} will try {len(self._ports)} ports on {self.interface}{monitor}"
        )

    def _choose_interface(self, found: list[truth.Interface]) -> None:
        usable = [item for item in found if item.action != "off"]
        if self._wanted:
            usable = [item for item in usable if item.name == self._wanted]
        if not usable:
            names = ", ".join(f"{item.name} ({item.action})" for item in found)
            wanted = f"{self._wanted} is not filtered, or its" if self._wanted else "every"
            raise Red(f"{wanted} policy is off; filtered: {names}: name another by --interface")
        self._on = min(usable, key=lambda item: item.action != "enforce")
        self._policy = self._on.policy
        self.interface = self._on.name

    def _check_grace(self) -> None:
        left = self._policy["grace_ns"] - self._now()
        if self._on.counts == "closed" and left > 0:
            raise Red(
                f"the host has just booted: nothing counts for the first "
                f"{self._policy['grace_ns'] / _SECOND:g} s (scan_grace): "
                f"try again in {left // _SECOND + 1} s"
            )

    def _choose_target(self) -> bytes:
        """An address of this host, since only SYNs to one count."""
        own = sorted(
            key
            for key, dummy in self._maps["local"].items()
            if from_mapped(key, 128).family == self._family and not self._is_loopback(key)
        )
        if own:
            return own[0]
        if self._on.counts == "any":
            return mapped(parse_prefix("192.0.2.1" if self._family == 4 else "2001:db8::1"))
        raise Red(
            f"this host has no IPv{self._family} address that the program knows of: with "
            "scan_counts: closed only packets to one count (try the other family, -4 or -6)"
        )

    @staticmethod
    def _is_loopback(key: bytes) -> bool:
        text = format_prefix(from_mapped(key, 128))
        return text.startswith("127.") or text == "::1"

    def _choose_ports(self) -> list[int]:
        count = self._policy["scan_ports"]
        if self._on.counts == "any":
            return list(range(65535, 65535 - count, -1))
        found = probe.closed_ports(count, self._published, self._was_open)
        if len(found) < count:
            raise Red(f"only {len(found)} ports are closed here, a scan needs {count}")
        return found

    def _was_open(self, port: int) -> bool:
        value = self._maps["open_ports"].lookup(struct.pack("=I", port)) or bytes(8)
        return any(value)

    def _choose_source(self) -> Source:
        """A documentation address that nothing is known of."""
        for dummy in range(_ATTEMPTS):
            if self._family == 4:
                text = f"{secrets.choice(_DOCUMENTATION)}.{1 + secrets.randbelow(254)}"
            else:
                text = f"2001:db8:{secrets.randbelow(65535) + 1:x}:{secrets.randbelow(65535):x}::7"
            source = self._bans.source_of(text)
            if self._is_unknown(text, source):
                self.source = text
                return source
        raise Red(
            "no documentation address is free: lists, bans or protected addresses cover all of "
            + (
                ", ".join(f"{net}.0/24" for net in _DOCUMENTATION)
                if self._family == 4
                else "2001:db8::/32"
            )
            + "; try the other family (-4, -6)"
        )

    def _is_unknown(self, text: str, source: Source) -> bool:
        prefix = parse_prefix(text)
        found = self._bans.why(text)
        return (
            why.live(self._tables, prefix) == "none"
            and not found.protected
            and not found.bans
            and not any(self._bans.find(source, table) for table in MAPS)
            and not self._is_counted(source)
        )

    def _is_counted(self, source: Source) -> bool:
        """Whether there is a port that the source has hit."""
        return bool(self._firsts.hits(source.key)) or (
            self._maps["tracks"].lookup(source.key) is not None
        )

    # The scan

    def _send(self, port: int, flags: int = probe.SYN) -> int:
        source, target = (self._packed(key) for key in (self._address, self._target))
        packet = probe.frame(source, target, port, flags)
        self._runs += 1
        return self._program.test_run(packet, self._on.ifindex)[0]

    @property
    def _address(self) -> bytes:
        return mapped(parse_prefix(self.source))

    def _packed(self, key: bytes) -> bytes:
        return key[12:] if self._family == 4 else key

    def _detect(self) -> str:
        """All ports but one pass; the one that crosses the threshold does not."""
        for number, port in enumerate(self._ports[:-1], 1):
            if self._send(port) != _PASS:
                raise Red(f"packet {number} of the scan was dropped before the threshold")
        last = self._send(self._ports[-1])
        if self._on.action == "monitor":
            if last != _PASS:
                raise Red("a packet was dropped although the policy is monitor")
            if self._maps["tracks"].lookup(self._key.key) is not None:
                raise Red(f"{len(self._ports)} ports were not taken for a scan")
            return f"port {len(self._ports)} was taken for a scan, and passed: monitor"
        if last != _DROP:
            raise Red(f"{len(self._ports)} ports were tried and none was dropped: no scan seen")
        return f"the packet to port {len(self._ports)} was dropped"

    def _find(self) -> Ban | None:
        found = [self._bans.find(self._key, table) for table in MAPS]
        return next((ban for ban in found if ban), None)

    def _ban(self) -> str:
        ban = self._find()
        if self._on.action == "monitor":
            if ban:
                raise Red("there is a ban although the policy is monitor")
            return f"would be banned for {self._policy['ban_ns'] / _SECOND:g} s: monitor"
        if not ban:
            raise Red("there is no ban in the maps")
        length = (ban.expires - ban.since) / _SECOND
        short = ", short: above the rate of bans" if ban.flags & abi.BAN_OVERFLOW else ""
        return f"{ban.source.text} is banned for {length:g} s{short}, {ban.ports} ports counted"

    def _enforce(self) -> str:
        syn = self._send(self._ports[0])
        if self._on.action == "monitor":
            if syn != _PASS:
                raise Red("a packet was dropped although the policy is monitor")
            return "another connection passes: monitor"
        if syn != _DROP:
            raise Red("another connection of the banned source passes")
        other = self._send(self._ports[0], probe.ACK)
        wanted = _DROP if self._on.scope == "all" else _PASS
        if other != wanted:
            raise Red(
                f"a packet that begins no connection {_VERDICTS.get(other, other)}, with "
                f"ban_scope: {self._on.scope} it is to be {_VERDICTS[wanted]}"
            )
        return f"its next connection is dropped, what begins none is {_VERDICTS[wanted]}"

    # The log

    def _watch(self) -> Connection | wire.ControlError:
        """Follow the agent's lines about the source, from now on."""
        try:
            connection = self._stack.enter_context(self._agent())
            connection.wait(_LOG)
            connection.send("watch", actions=["ban", "scan"], sources=[self.source])
            answer = connection.receive()
        except TimeoutError:
            return wire.ControlError("the agent does not answer")
        except wire.ControlError as error:
            return error
        return connection if "item" in answer else wire.error_of(answer)

    def _log(self, watch: Connection | wire.ControlError) -> str:
        if isinstance(watch, wire.ControlError):
            raise Red(f"the agent does not log: {watch}")
        deadline = time.monotonic() + _LOG
        while (left := deadline - time.monotonic()) > 0:
            watch.wait(left)
            try:
                line = watch.receive().get("item")
            except TimeoutError:
                break
            if isinstance(line, dict) and line.get("source.ip") == self.source:
                return f"the agent has logged it: event.action {line.get('event.action')}"
        raise Red(
            f"the agent has logged nothing of it within {_LOG:g} s: it is behind, or a rate limit "
            "has held it back (packetwatch_events_suppressed_total)"
        )

    # Back again

    def _lift(self) -> str:
        lifted = self._bans.lift(self.source)
        if self._on.action == "monitor":
            return "nothing to lift: monitor"
        if not lifted:
            raise Red("the ban was gone before it was lifted")
        if len(self._ports) == 1:
            return "the ban is lifted; with scan_ports: 1 the next connection is a scan again"
        if self._send(self._ports[0]) != _PASS:
            raise Red("a connection is dropped although the ban is lifted")
        return "the ban is lifted, and its connections pass again"

    def _restore(self) -> str:
        """Take away what the drill has made, and compare the rest with what was."""
        self._bans.lift(self.source)
        self._maps["tracks"].delete(self._key.key)
        self._firsts.forget(self._key.key)
        self._maps["rates"].delete(_rate_key(self._address, self._family))
        self._vacate_ring()
        left = [table for table in MAPS if self._bans.find(self._key, table)]
        if left or self._is_counted(self._key):
            raise Red(f"what was made could not be taken away: {', '.join(left) or 'tracks'}")
        after = self._snapshot()
        changed = [name for name in after if after[name] != self._before[name]]
        if self._bans_before - {ban.source.key for ban in self._bans.walk("bans")}:
            changed.append("bans")
        if changed:
            raise Red(f"changed meanwhile: {', '.join(changed)}: by somebody else?")
        return "program, lists, links and bans are as before; counters have moved on"

    def _vacate_ring(self) -> None:
        """Free the entries of the ring of scan bans that hold the source."""
        ring = self._maps["scan_ring"]
        shared = abi.SHARED.unpack(self._maps["shared"].lookup(bytes(4)) or b"")
        # It is one of the last: bans come slower than the drill ends.
        for turn in range(max(shared["ring_head"] - _ATTEMPTS, 0), shared["ring_head"]):
            place = struct.pack("=I", turn % ring.info.max_entries)
            if ring.lookup(place) == self._key.key:
                ring.update(place, bytes(len(self._key.key)))

    def _snapshot(self) -> dict[str, object]:
        """What must be the same afterwards."""
        with Loaded(self._host.pins) as loaded:
            links = {name: (held.program_id, held.ifindex) for name, held in loaded.links.items()}
            with loaded.generation() as current:
                digest = current.digest, current.header["lists"]
        modes = {
            name: attached(ifindex).mode for name, (dummy, ifindex) in links.items() if ifindex
        }
        return {"links": links, "lists and policy": digest, "modes": modes}

    def _lasting(self) -> set[bytes]:
        """Bans that do not end while the drill lasts."""
        end = time.monotonic_ns() + 60 * _SECOND
        return {ban.source.key for ban in self._bans.walk("bans") if not ban.has_expired(end)}


def _rate_key(address: bytes, family: int) -> bytes:
    """As the program counts a source's events: IPv6 by /64."""
    return address if family == 4 else address[:8] + bytes(8)
