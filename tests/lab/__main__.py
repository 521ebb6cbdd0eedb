# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The lab from a shell: `PYTHONPATH=tests python3 -m lab --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab import image, state
from lab.errors import LabError
from lab.fleet import Fleet, collect, take_down_below
from lab.paths import IMAGES, RUNS
from lab.process import require_root
from lab.topology import CONTROLLER, Topology

_PAIR = Path(__file__).with_name("topologies") / "pair.toml"


def main() -> int:
    """Run one subcommand; return the process's exit status."""
    arguments = _parser().parse_args()
    try:
        require_root()
        status: int = arguments.run(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Machines for tests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="build images, start machines, wait for ssh; they stay up")
    up.add_argument(
        "--topology", type=Path, default=_PAIR, help="TOML or JSON (default: %(default)s)"
    )
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="take a lab down, also one of another process")
    down.add_argument("--below", type=Path, help="all labs with a run directory in this folder")
    down.set_defaults(run=_down)

    inventory = commands.add_parser("inventory", help="print the path of its Ansible inventory")
    inventory.set_defaults(run=_inventory)

    shell = commands.add_parser("shell", help="a shell in a machine or station")
    shell.add_argument("name", nargs="?", default=CONTROLLER)
    shell.add_argument("command", nargs=argparse.REMAINDER, help="instead of a shell")
    shell.set_defaults(run=_shell)

    for command in (up, down, inventory, shell):
        command.add_argument(
            "--dir",
            type=Path,
            default=RUNS / "default",
            help="run directory (default: %(default)s)",
        )

    commands.add_parser("list", help="list the labs of this machine").set_defaults(run=_list)
    gc = commands.add_parser("gc", help="take down labs whose owner was killed")
    gc.set_defaults(run=_gc)
    images = commands.add_parser("images", help="build the guest images that are missing")
    images.set_defaults(run=_images)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    plan = Topology.load(arguments.topology)
    with Fleet(plan, arguments.dir) as fleet:
        fleet.up()
        fleet.wait_ssh()
        fleet.keep()
        print(fleet.access.inventory)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    if arguments.below:
        take_down_below(arguments.below)
        return 0
    if (arguments.dir / "lab.json").exists():
        Fleet.open(arguments.dir).down()
    return 0


def _inventory(arguments: argparse.Namespace) -> int:
    print(Fleet.open(arguments.dir).access.inventory)
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    fleet = Fleet.open(arguments.dir)
    if arguments.name in fleet.hosts:
        argv = ["ssh", "-F", str(fleet.access.ssh_config), arguments.name, *arguments.command]
    else:
        command = arguments.command or [os.environ.get("SHELL", "/bin/sh")]
        argv = fleet.station(arguments.name).inside(command)
    os.execvp(argv[0], argv)


def _list(arguments: argparse.Namespace) -> int:
    for lab_id, run_dir in state.labs():
        if run_dir is None:
            print(f"{lab_id}  run directory gone")
            continue
        facts = state.State.read(run_dir)
        status = "abandoned" if facts.abandoned() else "in use" if facts.owner else "kept"
        print(f"{lab_id}  {status:9}  {run_dir}  {' '.join(facts.topology.machines)}")
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    collect()
    return 0


def _images(arguments: argparse.Namespace) -> int:
    for built in image.ensure(image.SUITES, IMAGES).values():
        print(built.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
