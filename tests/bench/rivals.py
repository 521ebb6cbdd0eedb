# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tools that a user could choose instead: each is the real tool, in a namespace of its own."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from kernel.hosting import Wire

from bench import addresses
from packetwatch_core._kernel.bytecode import PYTHON
from packetwatch_core._kernel.libbpf import Map, possible_cpus
from packetwatch_core._kernel.programs import Program, attached


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
        first = addresses.hosts4([1])[0]
        with wire.host.entered():
            command("xdp-filter", "load", "-f", "ipv4,ipv6", "pw0")
            command("xdp-filter", "ip", "-m", "src", first)
            self.ifindex = socket.if_nametoindex("pw0")
            self.program = Program.by_id(attached(self.ifindex).program_id)
        self._fill(first)

    def _fill(self, first: str) -> None:
        """Give every entry the value that the tool wrote for the first one."""
        for number in self.program.info().map_ids:
            with Map.by_id(number) as found:
                if found.info.name != "filter_ipv4":
                    continue
                value = _per_cpu_value(found, socket.inet_aton(first))
                numbers = range(1, self.ENTRIES + 1)
                keys = b"".join(addresses.address4(n).to_bytes(4, "big") for n in numbers)
                found.update_many(keys, value * self.ENTRIES)


def _per_cpu_value(found: Map, key: bytes) -> bytes:
    """Return an entry's values of all processors."""
    found.value_bytes = (found.info.value_size + 7) // 8 * 8 * possible_cpus()
    value = found.lookup(key)
    if value is None:
        raise OSError(f"xdp-filter has no entry {key.hex()}")
    return value


class Detector:
    """bench.detector on pw0, in its own process on another processor."""

    def __init__(self, wire: Wire, cpu: int) -> None:
        self.wire = wire
        script = str(Path(__file__).with_name("detector.py"))
        argv = ["taskset", "-c", str(cpu), PYTHON, script, "pw0", "3", "60"]
        with wire.host.entered():
            self._process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            if not self._process.stdout or self._process.stdout.readline() != "ready\n":
                raise OSError("bcc's detector did not start: is python3-bpfcc installed?")
            self.ifindex = socket.if_nametoindex("pw0")
            self.program = Program.by_id(attached(self.ifindex).program_id)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def ipset_text(name: str, hosts: list[str], family: str = "inet") -> str:
    """Return the input of `ipset restore`."""
    head = f"create {name} hash:ip family {family} hashsize 1024 maxelem {2 * len(hosts)}\n"
    return head + "".join(f"add {name} {host}\n" for host in hosts)


def nft_text(name: str, hosts: list[str]) -> str:
    """Return the input of `nft -f`: a set, and a rule that drops its members before other rules."""
    return f"""table netdev {name} {{
    set denied {{ type ipv4_addr; elements = {{ {", ".join(hosts)} }}; }}
    chain early {{
        type filter hook ingress device pw0 priority -500;
        ip saddr @denied drop
    }}
}}
"""


def nft_denies(wire: Wire, hosts: list[str]) -> None:
    """Drop these sources with nftables, at its earliest hook (ingress)."""
    with wire.host.entered():
        command("nft", "-f", "-", stdin=nft_text("denies", hosts))
        command(
            "ethtool", "-K", "pw0", "gro", "on"
        )  # turns on NAPI, without which no XDP frame comes in


def ipset_denies(wire: Wire, hosts: list[str]) -> None:
    """Drop these sources with ipset and iptables, in the raw table."""
    with wire.host.entered():
        command("ipset", "restore", stdin=ipset_text("denied", hosts))
        rule = "-t raw -A PREROUTING -m set --match-set denied src -j DROP"
        command("iptables", *rule.split())
        command("ethtool", "-K", "pw0", "gro", "on")


# Bans a source at its fifth new port within a minute, with that packet; a token bucket, not a window.
RECIPE = """
table inet recipe {
    set ban { type ipv4_addr; flags dynamic, timeout; timeout 10m; size 65536; }
    set seen { type ipv4_addr . inet_service; flags dynamic, timeout; timeout 1m; size 131072; }
    set rate { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 65536; }
    chain early {
        type filter hook prerouting priority raw; policy accept;
        ip saddr @ban drop
        tcp flags & (syn | ack) != syn accept
        ip saddr . tcp dport @seen accept
        add @seen { ip saddr . tcp dport }
        add @rate { ip saddr limit rate over 4/minute burst 4 packets } add @ban { ip saddr } drop
    }
}
"""


class Recipe:
    """Scan detection in nftables alone."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        with wire.host.entered():
            command("nft", "-f", "-", stdin=RECIPE)
            command("ethtool", "-K", "pw0", "gro", "on")

    def forget(self) -> None:
        """Make room, because its sets are finite."""
        with self.wire.host.entered():
            for name in ("ban", "seen", "rate"):
                command("nft", "flush", "set", "inet", "recipe", name)
