# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Do with a tarball of the collection what users do, with the ansible-core that PATH names first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

NAME = "packetwatch.xdp"
TEST = "tests/integration/test_installed.py"


def run(*command: str, folder: Path, **environment: str) -> str:
    """Run a command, and return its output with its errors; end with them if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def use(tarball: Path, folder: Path, tests: Path) -> None:
    """Install the tarball into an empty folder; read its documentation, and run its playbooks on a host in namespaces.

    tests: a copy of the collection that has its tests.
    """
    folder.mkdir()
    install(tarball, folder)
    paths = {"PYTHONPATH": str(tests / "tests"), "PACKETWATCH_COLLECTIONS": str(folder)}
    output = run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", TEST, folder=tests, **paths
    )
    if not re.search(r"^1 passed", output, re.M):
        sys.exit(f"the playbooks did not run:\n{output}")
    version = run("ansible", "--version", folder=folder).splitlines()[0]
    print(f"Set up, reported and removed from the tarball by {version}")


def install(tarball: Path, folder: Path) -> None:
    """Install the tarball, verify it, list its modules, and let Ansible find all that its playbooks name."""
    paths = {"ANSIBLE_COLLECTIONS_PATH": str(folder)}
    galaxy = ("ansible-galaxy", "collection")
    run(*galaxy, "install", str(tarball), "-p", str(folder), folder=folder, **paths)
    run(*galaxy, "verify", "--offline", NAME, folder=folder, **paths)
    listed = run("ansible-doc", "-l", NAME, folder=folder, **paths)
    modules = folder / "ansible_collections/packetwatch/xdp/plugins/modules"
    public = {f"{NAME}.{path.stem}" for path in modules.glob("*.py")}
    if {line.split()[0] for line in listed.splitlines()} != public:
        sys.exit(f"ansible-doc lists other modules than {sorted(public)}:\n{listed}")
    run("ansible-doc", *sorted(public), folder=folder, **paths)
    roles = [f"{NAME}.{path.name}" for path in (modules.parents[1] / "roles").iterdir()]
    run("ansible-doc", "-t", "role", *sorted(roles), folder=folder, **paths)
    playbooks = (modules.parents[1] / "playbooks").glob("[!_]*.yml")
    names = sorted(f"{NAME}.{path.stem}" for path in playbooks)
    run("ansible-playbook", "--syntax-check", *names, folder=folder, **paths)
