# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Follow guides word by word on two fresh machines: `python -m lab.follow [GUIDE...] [--kind nspawn]`.

It prints how long each block takes. With virtual machines, that is what a reader sees, apart from
downloads and from emulated processors. Without names, it follows all guides, one after the other.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

from lab import guides
from lab.errors import LabError
from lab.fleet import Fleet
from lab.paths import RUNS
from lab.play import environment, play
from lab.process import require_root, say
from lab.topology import NSPAWN, VM, Topology

_TOPOLOGY = Path(__file__).with_name("topologies") / "pair.toml"
# This guide installs Packetwatch. All others begin on hosts that have it.
_FIRST = "ten-hosts"
# A host that has left a fleet has no password any more, so a rollback in a later guide could not bring it back.
_LAST = "share-bans"


def _follow(fleet: Fleet, name: str) -> None:
    folder = fleet.run_dir / "guides" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    hosts = {
        f"web{number}.example.net": fleet.access.variables(machine)
        for number, machine in enumerate(fleet.hosts, 1)
    }
    # One machine is a host in one guide, and a node in another one.
    node = fleet.host(list(fleet.hosts)[-1])
    hosts["node1.example.net"] = fleet.access.variables(node.name)
    first = fleet.host(next(iter(fleet.hosts)))

    def on_host(text: str) -> list[str]:
        command = shlex.join(["bash", "-eo", "pipefail", "-c", text])
        return ["ssh", "-F", str(fleet.access.ssh_config), first.name, command]

    own = environment()
    # Both releases of Debian have the same software, so one of them is enough for the other guides.
    size = len(fleet.hosts) if name == _FIRST else 1
    other = {
        "web[1:10]": f"web[1:{size}]",
        "web[1:600]": f"web[1:{size}]",
        "fleet_node_address: 192.0.2.11": f"fleet_node_address: {node.ipv4}",
        "~/.ansible/collections": own["ANSIBLE_COLLECTIONS_PATH"],
    }
    reader = guides.Reader(folder, hosts, own, on_host, other)
    began = time.monotonic()
    for block in guides.blocks(name):
        start = time.monotonic()
        reader.follow(block)
        say(f"{block.where}: {block.language} {block.place}, {time.monotonic() - start:.0f} s")
    say(f"{name}: done after {time.monotonic() - began:.0f} s")


def main() -> int:
    """Follow a guide on a fleet that is made for it; return the exit status."""
    parser = argparse.ArgumentParser(prog="lab.follow", description="Follow a guide.")
    parser.add_argument("guides", nargs="*", metavar="GUIDE", help=", ".join(guides.NAMES))
    parser.add_argument("--kind", default=VM, choices=(VM, NSPAWN), help="default: %(default)s")
    options = parser.parse_args()
    plan = Topology.load(_TOPOLOGY).dump()
    for machine in plan["machines"].values():
        machine["kind"] = options.kind
    names = options.guides or sorted(
        guides.NAMES, key=lambda name: (name != _FIRST, name == _LAST, name)
    )
    if unknown := set(names) - set(guides.NAMES):
        parser.error(f"no guide {', '.join(unknown)}; choose from {', '.join(guides.NAMES)}")
    try:
        require_root()
        with Fleet(Topology.parse(plan), RUNS / f"follow-{options.kind}") as fleet:
            fleet.up()
            fleet.wait_ssh()
            installed = False
            for name in names:
                if name != _FIRST and not installed:
                    play(fleet, "packetwatch.xdp.site", fleet.access.inventory)
                    installed = True
                _follow(fleet, name)
    except LabError as error:
        print(f"follow: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
