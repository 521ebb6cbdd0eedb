# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The parts of a lab: machines and stations, each with a number on one network.

A *machine* is a Debian host: a virtual machine or a container. A *station* is a network namespace with
one interface, from which tests send and receive. Number N has the addresses 10.77.0.N and fd77::N. Number
1 is the controller: Ansible connects from it, and it is the default gateway of all, which forwards nothing.

A topology file is TOML or, by its suffix, JSON:

    [machines.debian12]
    suite = "bookworm"      # required
    address = 11            # required, 2-254
    kind = "vm"             # or "nspawn"
    groups = ["packetwatch"] # inventory groups
    memory = 640            # MiB; this and the next two only for a virtual machine
    cpus = 1
    queues = 1              # queue pairs of the network device

    [stations]
    client = 101            # its number
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

CONTROLLER = "controller"
CONTROLLER_NUMBER = 1
# VM: a machine with its own kernel. NSPAWN: a container with systemd, which shares this machine's kernel.
VM, NSPAWN = "vm", "nspawn"
# Names that the lab uses for its own interfaces and namespaces.
_RESERVED = {"br0", "lo", "switch"}
# A name becomes the name of an interface, which the kernel limits to 15 characters.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,14}")


def ipv4(number: int) -> str:
    """The IPv4 address of a number."""
    return f"10.77.0.{number}"


def ipv6(number: int) -> str:
    """The IPv6 address of a number: its decimal digits are the last group."""
    return f"fd77::{number}"


def mac(number: int) -> str:
    """The hardware address of a machine's number."""
    return f"52:54:00:77:00:{number:02x}"


@dataclass(frozen=True)
class MachineSpec:
    """A host. Only for a virtual machine: memory in MiB, cpus, queues (pairs of its network device)."""

    name: str
    suite: str
    address: int
    kind: str = VM
    groups: tuple[str, ...] = ("packetwatch",)
    memory: int = 640
    cpus: int = 1
    queues: int = 1


@dataclass(frozen=True)
class Topology:
    """machines: by name. stations: their numbers by name, with the controller's."""

    machines: dict[str, MachineSpec]
    stations: dict[str, int]

    @classmethod
    def load(cls, path: Path) -> Topology:
        """Read a topology file.

        Raises LabError if it cannot be read or is not a valid topology.
        """
        try:
            text = path.read_text(encoding="utf-8")
            data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise LabError(f"topology {path}: {error}") from error
        return cls.parse(data)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Topology:
        """Make a topology from parsed data; raises LabError if it is not valid."""
        try:
            machines = {
                name: MachineSpec(name=name, **{**spec, "groups": tuple(spec["groups"])})
                if "groups" in spec
                else MachineSpec(name=name, **spec)
                for name, spec in data.get("machines", {}).items()
            }
        except TypeError as error:
            raise LabError(f"topology: {error}") from error
        stations = {CONTROLLER: CONTROLLER_NUMBER, **data.get("stations", {})}
        _check(machines, stations)
        return cls(machines, stations)

    def dump(self) -> dict[str, Any]:
        """The data that `parse` reads."""
        machines = {name: asdict(spec) for name, spec in self.machines.items()}
        for spec in machines.values():
            del spec["name"]
        return {"machines": machines, "stations": dict(self.stations)}


def _check(machines: dict[str, MachineSpec], stations: dict[str, int]) -> None:
    if _RESERVED & set(machines) | _RESERVED & set(stations):
        raise LabError(f"topology: choose other names than {', '.join(sorted(_RESERVED))}")
    numbers = [*(spec.address for spec in machines.values()), *stations.values()]
    if not machines:
        raise LabError("topology: it has no machines; declare at least one")
    if common := sorted(set(machines) & set(stations)):
        raise LabError(f"topology: both machine and station, rename one: {', '.join(common)}")
    for name in (*machines, *stations):
        if not _NAME.fullmatch(name):
            raise LabError(
                f"topology: {name!r} is not a name (a-z, 0-9 and -, at most 15 characters)"
            )
    for number in numbers:
        if not isinstance(number, int) or not 1 <= number <= 254:
            raise LabError(f"topology: {number!r} is not a number from 1 to 254")
        if numbers.count(number) > 1:
            raise LabError(f"topology: number {number} is a duplicate")
    for spec in machines.values():
        if spec.kind not in (VM, NSPAWN):
            raise LabError(
                f"topology: {spec.name}: kind {spec.kind!r} is neither {VM} nor {NSPAWN}"
            )
        if not (128 <= spec.memory and 1 <= spec.cpus <= 8 and 1 <= spec.queues <= 8):
            raise LabError(
                f"topology: {spec.name}: memory {spec.memory}, cpus {spec.cpus}, queues {spec.queues}; "
                "allowed: memory from 128 MiB, cpus and queues from 1 to 8"
            )
