# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The lab's network: one bridge in a namespace of its own, without a route to other networks.

Virtual machines are connected to it by taps, and their QEMU processes run in that namespace. Each
container and each station is a further namespace, connected by a veth pair. This machine's own network is
not changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lab import topology
from lab.process import end, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RUNTIME = Path("/run/netns")
_SWITCH = "switch"
_BRIDGE = "br0"


class Namespace:
    """A named network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = _RUNTIME / name

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in this network namespace, and shares all else with this process.

        `ip netns exec` would also hide the BPF file system.
        """
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def dropped(self, device: str) -> int:
        """Packets that a device of this namespace could not send because the receiver is too slow."""
        argv = ["ip", "-n", self.name, "-stats", "-json", "link", "show", "dev", device]
        found = json.loads(run(argv).stdout)
        return int(found[0]["stats64"]["tx"]["dropped"])

    def pids(self) -> list[int]:
        """The processes in this namespace; none if it does not exist."""
        listed = run(["ip", "netns", "pids", self.name], check=False)
        return [int(word) for word in listed.stdout.split()]

    def vacate(self) -> None:
        """End the processes in this namespace at once; none of them has to clean up."""
        end(self.pids(), lambda pid: pid in self.pids(), patience=0.0)


class Network:
    """The namespaces of one lab, all named `pw-ID-…`."""

    def __init__(self, lab_id: str) -> None:
        self.lab_id = lab_id
        self._prefix = f"pw-{lab_id}-"
        self.switch = self.station(_SWITCH)

    def station(self, name: str) -> Namespace:
        """The namespace of a station or of a container."""
        return Namespace(self._prefix + name)

    def existing(self) -> list[Namespace]:
        """All namespaces of this lab that exist now."""
        return [Namespace(path.name) for path in sorted(_RUNTIME.glob(f"{self._prefix}*"))]

    def up(self, plan: topology.Topology) -> None:
        """Make the bridge, a tap for each machine and a namespace for each station.

        Raises LabError if the kernel refuses; `down` removes what was made until then.
        """
        run(["ip", "netns", "add", self.switch.name])
        _ip(self.switch, _bridge_commands())
        for spec in plan.machines.values():
            if spec.kind == topology.VM:
                _ip(self.switch, _tap_commands(spec))
            else:
                address = f"link set dev eth0 address {topology.mac(spec.address)}"
                _ip(self._cabled(spec.name), [address])
        for name, number in plan.stations.items():
            _ip(self._cabled(name), _station_commands(number))

    def _cabled(self, name: str) -> Namespace:
        """Make a namespace whose device eth0 is connected to the bridge."""
        namespace = self.station(name)
        run(["ip", "netns", "add", namespace.name])
        _ip(self.switch, _veth_commands(name, namespace))
        return namespace

    def plug(self, machine: str, plugged: bool) -> None:
        """Pull a machine's cable, or plug it in again."""
        run(["ip", "-n", self.switch.name, "link", "set", machine, "up" if plugged else "down"])

    def down(self) -> None:
        """Remove all namespaces, with bridge, taps and veth pairs; not an error if there are none."""
        for namespace in self.existing():
            run(["ip", "netns", "delete", namespace.name], check=False)


def _ip(namespace: Namespace, commands: Iterable[str]) -> None:
    run(["ip", "-n", namespace.name, "-batch", "-"], stdin="\n".join(commands) + "\n")


def _bridge_commands() -> list[str]:
    return [
        "link set dev lo up",
        # Multicast snooping without a querier loses neighbour solicitations after some minutes.
        f"link add name {_BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"link set dev {_BRIDGE} addrgenmode none up",
    ]


def _tap_commands(spec: topology.MachineSpec) -> list[str]:
    several = " multi_queue" if spec.queues > 1 else ""
    return [
        f"tuntap add dev {spec.name} mode tap vnet_hdr{several}",
        f"link set dev {spec.name} addrgenmode none master {_BRIDGE} up",
    ]


def _veth_commands(name: str, station: Namespace) -> list[str]:
    return [
        f"link add name {name} type veth peer name eth0 netns {station.name}",
        f"link set dev {name} addrgenmode none master {_BRIDGE} up",
    ]


def _station_commands(number: int) -> list[str]:
    return [
        "link set dev lo up",
        "link set dev eth0 up",
        f"address add {topology.ipv4(number)}/24 dev eth0",
        f"address add {topology.ipv6(number)}/64 dev eth0 nodad",
    ]
