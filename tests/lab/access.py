# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Access to the machines: keys, an ssh configuration, an Ansible inventory, and each machine's seed.

They work from anywhere on this machine: the ssh configuration connects from the controller's namespace
by itself, so Ansible and molecule need not run inside it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from lab import dial, guest, topology
from lab.process import run

if TYPE_CHECKING:
    from lab.network import Namespace

# The algorithms are the fastest ones on an emulated processor.
_SSH_OPTIONS = """\
    User root
    IdentitiesOnly yes
    StrictHostKeyChecking yes
    KexAlgorithms curve25519-sha256
    PreferredAuthentications publickey
    LogLevel ERROR
    ConnectTimeout 60
    ServerAliveInterval 10
    ServerAliveCountMax 6
    ControlMaster auto
    ControlPersist 60
    ProxyUseFdpass yes
"""


@dataclass(frozen=True)
class Access:
    """The files of one lab for access to its machines."""

    lab_id: str
    directory: Path
    # The path is short enough for Unix sockets.
    sockets: Path

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`."""
        return self.directory / "ssh_config"

    @property
    def inventory(self) -> Path:
        """For `ansible-playbook -i`."""
        return self.directory / "inventory.json"

    @property
    def _key(self) -> Path:
        return self.directory / "key"

    @property
    def _known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def alias(self, name: str) -> str:
        """The machine's name for ssh, which is unique among all labs; its address is not.

        Ansible names its shared connections by it, and must not mix the connections of two labs.
        """
        return f"{name}.{self.lab_id}"

    def create(self, plan: topology.Topology, controller: Namespace) -> dict[str, bytes]:
        """Make keys, ssh configuration and inventory; return the machines' seeds by name."""
        _make_key(self._key)
        # A copy, because the lab may outlive the tree from which it was started.
        dialler = shutil.copy(dial.__file__, self.directory / "dial.py")
        blocks, known, seeds = [], [], {}
        for spec in plan.machines.values():
            host_key = self.directory / f"host_key_{spec.name}"
            _make_key(host_key)
            known.append(f"{self.alias(spec.name)} {_public(host_key)}")
            call = [sys.executable, "-I", str(dialler), str(controller.path)]
            proxy = shlex.join([*call, topology.ipv4(spec.address), "22"])
            blocks.append(f"Host {spec.name} {self.alias(spec.name)}\n    ProxyCommand {proxy}\n")
            blocks.append(f"    HostKeyAlias {self.alias(spec.name)}\n")
            seeds[spec.name] = guest.seed(self._files(spec, plan, host_key))
        self._known_hosts.write_text("".join(known), encoding="utf-8")
        common = (
            f"Host *\n{_SSH_OPTIONS}"
            f'    IdentityFile "{self._key}"\n'
            f'    UserKnownHostsFile "{self._known_hosts}"\n'
            f"    ControlPath {self.sockets}/%n\n"
        )
        self.ssh_config.write_text("".join([*blocks, common]), encoding="utf-8")
        inventory = json.dumps(self._inventory(plan), indent=2)
        self.inventory.write_text(inventory + "\n", encoding="utf-8")
        return seeds

    def discard(self) -> None:
        """Delete the files that are useless, or secret, when the machines are gone."""
        for pattern in (
            "key*",
            "host_key_*",
            "known_hosts",
            "ssh_config",
            "inventory.json",
            "dial.py",
        ):
            for path in self.directory.glob(pattern):
                path.unlink()

    def variables(self, name: str) -> dict[str, object]:
        """The Ansible connection variables of a machine."""
        return {
            "ansible_host": self.alias(name),
            "ansible_user": "root",
            "ansible_ssh_common_args": f"-F {shlex.quote(str(self.ssh_config))}",
            "ansible_python_interpreter": "/usr/bin/python3",
            # Less than half the time for a run on an emulated machine.
            "ansible_pipelining": True,
        }

    def _inventory(self, plan: topology.Topology) -> dict[str, object]:
        hosts = {
            spec.name: {
                **self.variables(spec.name),
                "lab_ipv4": topology.ipv4(spec.address),
                "lab_ipv6": topology.ipv6(spec.address),
            }
            for spec in plan.machines.values()
        }
        groups = sorted({group for spec in plan.machines.values() for group in spec.groups})
        members: dict[str, dict[str, dict[str, str]]] = {
            group: {spec.name: {} for spec in plan.machines.values() if group in spec.groups}
            for group in groups
        }
        children = {group: {"hosts": hosts_in} for group, hosts_in in members.items()}
        return {"all": {"hosts": hosts, "children": children}}

    def _files(
        self, spec: topology.MachineSpec, plan: topology.Topology, host_key: Path
    ) -> dict[str, tuple[str, int]]:
        """A machine's own files, by path below its root: text and mode."""
        login = _public(self._key)
        return {
            "etc/hostname": (f"{spec.name}\n", 0o644),
            "etc/hosts": (_hosts(plan), 0o644),
            "etc/machine-id": (f"{uuid4().hex}\n", 0o444),
            "etc/systemd/network/10-lab.network": (_network(spec), 0o644),
            "etc/ssh/ssh_host_ed25519_key": (host_key.read_text(encoding="ascii"), 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": (_public(host_key), 0o644),
            "root/.ssh/authorized_keys": (login, 0o600),
            "home/ops/.ssh/authorized_keys": (login, 0o600),
        }


def _make_key(path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "packetwatch-lab", "-f", str(path)])


def _public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text(encoding="ascii")


def _hosts(plan: topology.Topology) -> str:
    rows = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    numbers = {name: spec.address for name, spec in plan.machines.items()} | plan.stations
    for name, number in numbers.items():
        rows += [f"{topology.ipv4(number)} {name}", f"{topology.ipv6(number)} {name}"]
    return "\n".join(rows) + "\n"


def _network(spec: topology.MachineSpec) -> str:
    gateway = topology.CONTROLLER_NUMBER
    return (
        f"[Match]\nMACAddress={topology.mac(spec.address)}\n\n"
        f"[Network]\n"
        f"Address={topology.ipv4(spec.address)}/24\nAddress={topology.ipv6(spec.address)}/64\n"
        f"Gateway={topology.ipv4(gateway)}\nGateway={topology.ipv6(gateway)}\n"
        f"IPv6AcceptRA=no\nLLMNR=no\nMulticastDNS=no\n"
    )
