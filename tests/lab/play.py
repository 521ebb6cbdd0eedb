# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Running the collection's playbooks against a lab, as a user does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.process import Progress, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.fleet import Fleet
    from lab.machine import Machine

EXAMPLE = Path(__file__).with_name("inventory")
_FLEET_PAGE = Path(__file__).resolve().parents[2] / "docs/fleet-nodes.md"
_FLEET_VARIABLES = re.compile(r"```yaml\n( *fleet_node_secrets:.*?) *```", re.DOTALL)
_TAIL = 60
# A play of a slow machine takes long, but a task of it has a result from time to time.
_SILENCE = 900.0
_TASK = re.compile(r"(?:TASK|PLAY|RUNNING HANDLER) \[(.+?)\] \*")


def environment() -> dict[str, str]:
    """The environment in which Ansible finds this collection and waits long enough for emulated hosts.

    Raises LabError if this file is not in a copy that Ansible can find by the collection's name.
    """
    here = Path(__file__).resolve()
    for parent in here.parents:
        if parent.name == "ansible_collections":
            collections = str(parent.parent)
            break
    else:
        raise LabError(f"{here} is not below a folder ansible_collections; use make demo")
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": collections,
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_TIMEOUT": "60",
        "ANSIBLE_FORCE_COLOR": "false",
        "ANSIBLE_NOCOLOR": "true",
        "PYTHONUNBUFFERED": "1",
    }


def tool(name: str) -> str:
    """The path of one of Ansible's commands; that of the lab's own environment is preferred."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise LabError(f"the command {name} is missing; use make demo, or install ansible-core")
    return found


def inventory(fleet: Fleet, example: Path = EXAMPLE) -> Path:
    """Copy an inventory into the run directory, and add the machines' connection variables."""
    target = fleet.run_dir / "inventory"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(example, target)
    shutil.copyfile(fleet.access.inventory, target / "lab.json")
    return target


def fleet_variables() -> str:
    """The variables that let hosts into a fleet, as YAML, from the page that users copy them from."""
    found = _FLEET_VARIABLES.search(_FLEET_PAGE.read_text(encoding="utf-8"))
    if not found:
        raise LabError(f"{_FLEET_PAGE} does not show the variables that let hosts into a fleet")
    return textwrap.dedent(found[1])


def module(
    inventory_dir: Path,
    machine: Machine,
    name: str,
    options: Mapping[str, object],
    *,
    timeout: float,
) -> None:
    """Run a module of this collection on a machine. timeout: seconds. Raises LabError if it fails."""
    command = [tool("ansible"), "-i", str(inventory_dir), machine.name]
    command += ["-m", f"packetwatch.xdp.{name}", "-a", json.dumps(options)]
    run(command, timeout=timeout, env=environment())


def play(fleet: Fleet, name: str, inventory_dir: Path) -> list[str]:
    """Run a playbook of this collection; print its tasks as progress, and write all output to a log.

    Returns the rows of the recap. Raises LabError, with the end of the log, if it fails or hangs.
    """
    log = fleet.run_dir / f"{name.rpartition('.')[2]}.log"
    # All hosts in one batch: batches would take too long where each emulated host is slow.
    at_once = json.dumps({"packetwatch_batches": ["100%"]})
    command = [tool("ansible-playbook"), "-i", str(inventory_dir), name, "-e", at_once]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        rows = _follow(process, log)
    finally:
        process.kill()
        status = process.wait()
    if status != 0:
        why = f"status {status}" if status > 0 else f"no result for {_SILENCE:g} s"
        raise LabError(f"{name}: {why}, see {log}\n" + "\n".join(rows[-_TAIL:]))
    start = next((at for at, row in enumerate(rows) if row.startswith("PLAY RECAP")), len(rows))
    return [row for row in rows[start + 1 :] if row.strip()]


def _follow(process: subprocess.Popen[str], log: Path) -> list[str]:
    """Read a play's output to its end."""
    rows: list[str] = []
    alarm = _alarm(process)
    try:
        with log.open("w", encoding="utf-8") as copy, Progress("    ") as progress:
            for line in process.stdout or ():
                alarm.cancel()
                alarm = _alarm(process)
                copy.write(line)
                copy.flush()
                rows.append(line.rstrip())
                if found := _TASK.match(line):
                    progress.step(found[1])
    finally:
        alarm.cancel()
    # The output may end before the process; only after that does it have a status.
    process.wait()
    return rows


def _alarm(process: subprocess.Popen[str]) -> threading.Timer:
    """End a play that has no result for too long, unless this is cancelled before."""
    alarm = threading.Timer(_SILENCE, process.kill)
    alarm.daemon = True
    alarm.start()
    return alarm
