# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Mirrors of ``abi.h``: constants and layouts that user space shares with the XDP program.

Layouts have no hidden padding; ``tests/kernel/test_abi.py`` compares each with the program's BTF.
All numbers are in the host's byte order; addresses are 16 bytes in network byte order.
"""

from __future__ import annotations

import struct
import typing as t

ABI = 1
FORMAT = 12
"""Version of generations (docs/tables.md), `PAGE` included, and of the names of pinned maps. A library loads
only programs of its own format."""
MAGIC = 0x50573031
PAGE = 73728
POLICY_OFFSET = 32768
POLICY_SLOTS = 1024
POLICY_PROBES = 4
TRACK_SLOTS = 64
PROBE_HIDDEN = 1 << 31
TIME_SHIFT = 22
FIRST_SETS = 16384
FIRST_WAYS = 4
NEXT_SLOTS = 4096

F_LISTS4 = 1 << 0
F_LISTS6 = 1 << 1
F_SCOPE_ALL = 1 << 2
F_ENFORCED = 1 << 3
F_ACK = 1 << 4
F_PROTOCOLS = 1 << 5
F_NEXT = 1 << 6

ACTIONS = ("enforce", "monitor", "off")
COUNTS = ("closed", "any")
SCOPES = ("connections", "all")
LOGS = ("all", "sampled", "none")
LINK_CONTROLS = ("pass", "lists")
CLOSED_PORTS = ("reset", "drop")

ORIGIN_SCAN = 1
ORIGIN_MANUAL = 2
ORIGIN_FLEET = 3
ORIGINS = {ORIGIN_SCAN: "scan", ORIGIN_MANUAL: "manual", ORIGIN_FLEET: "fleet"}

# Of probes; the flags of bans and events have the index.
KINDS = ("syn", "stealth", "ack", "udp", "sctp", "proto", "slow")
KIND_SHIFT = 4
_KIND_BITS = 7

# In pw_header, each of them has 1024 words of published ports, in this order.
PORT_PROTOCOLS = ("tcp", "udp", "sctp")

BAN_OVERFLOW = 1 << 0
BAN_CONNECTIONS = 1 << 1
BAN_ANSWER = 1 << 2

NET_PROTECTED = 1 << 0
NET_SINGLE = 1 << 1
NET_SHARED = 1 << 2
NET_LOCAL = 1 << 3

EVENT_CONNECTION = 1
EVENT_BAN = 2
EVENT_WOULD_DROP = 3
EVENT_PROBE = 4

EVENT_MONITOR = 1 << 0
EVENT_PROTECTED = 1 << 1
EVENT_IN_OVERFLOW = 1 << 2
EVENT_OPAQUE = 1 << 3
EVENT_ANSWER = 1 << 7

# (verdict, reason); the index is that of enum pw_reason.
REASONS = (
    ("pass", "unlisted"),
    ("pass", "allow"),
    ("pass", "not_ip"),
    ("pass", "malformed"),
    ("pass", "opaque"),
    ("pass", "monitor_deny"),
    ("pass", "monitor_ban"),
    ("pass", "monitor_scan"),
    ("pass", "protected"),
    ("pass", "off"),
    ("pass", "no_tables"),
    ("pass", "link_control"),
    ("drop", "deny"),
    ("drop", "ban"),
    ("drop", "scan"),
    ("drop", "vlan"),
    ("drop", "bogus"),
    ("drop", "closed"),
)
# The field `count` of an EVENT_WOULD_DROP is the index of its reason: one of these, otherwise a ban.
WOULD_DENY = REASONS.index(("pass", "monitor_deny"))
WOULD_VLAN = REASONS.index(("drop", "vlan"))
WOULD_BOGUS = REASONS.index(("drop", "bogus"))
WOULD_CLOSED = REASONS.index(("drop", "closed"))
FAMILIES = ("other", "ipv4", "ipv6")


def kind_flags(kind: str) -> int:
    """Return the flags of a ban or an event that stand for the kind of its probes."""
    return KINDS.index(kind) << KIND_SHIFT


def kind_of(flags: int) -> str:
    """Return the kind of probes in the flags of a ban or an event; for a newer version's, its number."""
    number = flags >> KIND_SHIFT & _KIND_BITS
    return KINDS[number] if number < len(KINDS) else str(number)


class Layout:
    """A C struct: its name in C, and each field with its name and ``struct`` format."""

    def __init__(self, name: str, *fields: tuple[str, str]) -> None:
        self.name = name
        self.fields = fields
        self.struct = struct.Struct("=" + "".join(code for dummy, code in fields))
        self.size = self.struct.size

    def pack(self, **values: t.Any) -> bytes:
        """Return the struct's bytes. Missing fields are zero; arrays are sequences or bytes."""
        flat: list[t.Any] = []
        for name, code in self.fields:
            value = values.pop(name, None)
            count = _count(code)
            if count is None:
                flat.append(0 if value is None else value)
            elif code.endswith("s"):
                flat.append(value or b"")
            else:
                numbers = list(value or ())
                flat.extend(numbers + [0] * (count - len(numbers)))
        if values:
            raise TypeError(f"struct {self.name} has no field {sorted(values)[0]}")
        return self.struct.pack(*flat)

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> dict[str, t.Any]:
        """Return the fields by name; arrays of numbers are tuples."""
        flat = self.struct.unpack_from(data, offset)
        result: dict[str, t.Any] = {}
        at = 0
        for name, code in self.fields:
            count = _count(code)
            if count is None or code.endswith("s"):
                result[name] = flat[at]
                at += 1
            else:
                result[name] = flat[at : at + count]
                at += count
        return result

    def offset(self, name: str) -> int:
        """How many bytes of the struct come before a field."""
        before = [field for field, dummy in self.fields].index(name)
        return struct.calcsize("=" + "".join(code for dummy, code in self.fields[:before]))

    def part(self, name: str) -> slice:
        """Where the bytes of a field are in the bytes of the struct."""
        begin = self.offset(name)
        return slice(begin, begin + struct.calcsize("=" + dict(self.fields)[name]))

    def reader(
        self, *wanted: str | tuple[str, str], before: int = 0, size: int | None = None
    ) -> struct.Struct:
        """A reader of a few fields, named in the order of the struct; it skips the others.

        wanted: a name, or a name and the format in which to read the bytes that begin at this
        field. before: bytes ahead of the struct. size: of all that the reader takes, padding
        included; by default it ends after the last field.
        """
        found = "="
        for field in wanted:
            name, code = (field, dict(self.fields)[field]) if isinstance(field, str) else field
            found += f"{before + self.offset(name) - struct.calcsize(found)}x{code}"
        if size is not None:
            found += f"{size - struct.calcsize(found)}x"
        return struct.Struct(found)


def _count(code: str) -> int | None:
    return int(code[:-1]) if len(code) > 1 else None


HEADER = Layout(
    "pw_header",
    ("magic", "I"),
    ("abi", "I"),
    ("pages", "I"),
    ("features", "I"),
    ("v4_shift", "I"),
    ("v4_page", "I"),
    ("v6_page", "I"),
    ("v6_buckets", "I"),
    ("v6_hosts", "I"),
    ("format", "I"),
    ("ban_interval_ns", "Q"),
    ("ban_burst_ns", "Q"),
    ("ring_capacity", "Q"),
    ("event_interval_ns", "Q"),
    ("event_burst_ns", "Q"),
    ("source_interval_ns", "Q"),
    ("source_burst_ns", "Q"),
    ("digest", "32s"),
    ("lists", "32s"),
    ("bytecode", "32s"),
    ("next_expiry", "Q"),
    ("published", f"{1024 * len(PORT_PROTOCOLS)}Q"),
    ("valid_from", "Q"),
)
POLICY = Layout(
    "pw_policy",
    ("ifindex", "I"),
    ("action", "B"),
    ("counts", "B"),
    ("scope", "B"),
    ("log", "B"),
    ("scan_ports", "I"),
    ("link_control", "B"),
    ("kinds", "B"),
    ("closed", "B"),
    ("reserved", "B"),
    ("window_ns", "Q"),
    ("grace_ns", "Q"),
    ("ban_ns", "Q"),
)
ADDR = Layout("pw_addr", ("word", "16s"))
SOURCE = Layout("pw_source", ("plen", "I"), ("addr", "16s"))
NET = Layout("pw_net", ("plen", "I"), ("addr", "16s"))
BAN = Layout(
    "pw_ban",
    ("since", "Q"),
    ("expires", "Q"),
    ("dropped", "Q"),
    ("slot", "Q"),
    ("ifindex", "I"),
    ("ports", "H"),
    ("origin", "B"),
    ("flags", "B"),
)
HOST = Layout("pw_host", ("expires", "Q"), ("origin", "I"), ("reserved", "I"))
TRACK = Layout("pw_track", ("slot", "64Q"), ("claimed", "Q"))
FIRST = Layout("pw_first", ("key", "Q"), ("stamp", "Q"))
FIRSTS = Layout("pw_firsts", ("way", "8Q"))
SHARED = Layout(
    "pw_shared",
    ("has_bans", "Q"),
    ("has_scan_bans", "Q"),
    ("seed", "Q"),
    ("listeners_read", "Q"),
    ("has_local_nets", "Q"),
    ("stack", "Q"),
    ("padding", "Q"),
    ("probe_tat", "Q"),
    ("ring_head", "Q"),
    ("ban_tat", "Q"),
    ("event_tat", "Q"),
    ("sequence", "Q"),
)
# Words of pw_shared that user space writes.
HAS_BANS, LISTENERS_READ, HAS_LOCAL_NETS, STACK = 0, 3, 4, 5
# Of the word stack: its lower half is a port.
STACK_SCTP = 1 << 32
STACK_PROTOCOLS = 1 << 33
UNUSED_PROTOCOLS = (
    0x413305FDFFFDFDA8,
    0xEFB0EF71BCFFFFEF,
    0xFFFFFFFFFFFC000F,
    0x1FFFFFFFFFFFFFFF,
)
"""A bit for each IP protocol that counts if it comes."""
EVENT = Layout(
    "pw_event",
    ("time", "Q"),
    ("sequence", "Q"),
    ("expires", "Q"),
    ("ifindex", "I"),
    ("type", "B"),
    ("family", "B"),
    ("flags", "B"),
    ("plen", "B"),
    ("saddr", "16s"),
    ("daddr", "16s"),
    ("sport", "H"),
    ("dport", "H"),
    ("count", "H"),
    ("listed", "H"),
    ("ports", "64H"),
)
EVENT_SHORT = EVENT.offset("ports")
COUNTERS = Layout(
    "pw_counters",
    ("packets", f"{len(REASONS) * len(FAMILIES)}Q"),
    ("connections", "3Q"),
    ("scans", f"{KINDS.index('slow')}Q"),
    ("bans", "Q"),
    ("bans_overflow", "Q"),
    ("bans_failed", "Q"),
    ("firsts_evicted", "Q"),
    ("tracks_inserted", "Q"),
    ("tracks_failed", "Q"),
    ("events", "Q"),
    ("events_suppressed", "Q"),
    ("events_lost", "Q"),
    ("probes", "Q"),
    ("probes_lost", "Q"),
)
# Only the program reads struct pw_scratch; user space just makes the map for it.
SCRATCH_SIZE = 17904
LAYOUTS = (
    HEADER,
    POLICY,
    ADDR,
    SOURCE,
    NET,
    BAN,
    HOST,
    TRACK,
    FIRST,
    FIRSTS,
    SHARED,
    EVENT,
    COUNTERS,
)
