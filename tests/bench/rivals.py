# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user would pick instead: each is the real tool, at work in a namespace of its own."""

from __future__ import annotations

import socket
import struct
import subprocess

from bench import addresses
from kernel.hosting import Wire

from packetwatch_core._libbpf import Map
from packetwatch_core._prog import Program, attached


def command(*argv: str, stdin: str | None = None) -> str:
    """Run a tool that must succeed."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class XdpFilter:
    """xdp-filter with the features ipv4 and ipv6, and as many denied sources as it takes."""

    ENTRIES = 10_000

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        first = addresses.hosts4(range(1))[0]
        with wire.host.entered():
            command("xdp-filter", "load", "-f", "ipv4,ipv6", "pw0")
            command("xdp-filter", "ip", "-m", "src", first)
            self.ifindex = socket.if_nametoindex("pw0")
            self.program = Program.by_id(attached(self.ifindex).program_id)
        self._fill(first)

    def _fill(self, first: str) -> None:
        """Give every entry the value that the tool wrote for the first."""
        for number in self.program.info().map_ids:
            with Map.by_id(number) as found:
                if found.info.name != "filter_ipv4":
                    continue
                value = _per_cpu_value(found, socket.inet_aton(first))
                numbers = range(self.ENTRIES)
                keys = b"".join(addresses.address4(n).to_bytes(4, "big") for n in numbers)
                found.update_many(keys, value * self.ENTRIES, self.ENTRIES)


def _per_cpu_value(found: Map, key: bytes) -> bytes:
    """An entry's values of all processors."""
    from packetwatch_core._libbpf import possible_cpus

    found.value_bytes = (found.info.value_size + 7) // 8 * 8 * possible_cpus()
    value = found.lookup(key)
    if value is None:
        raise OSError(f"xdp-filter has no entry {key.hex()}")
    return value


def hash_of(found: Map, keys: bytes, size: int) -> None:
    """Fill a hash with keys of that size."""
    count = len(keys) // size
    found.update_many(keys, struct.pack("=I", 1) * count, count)
