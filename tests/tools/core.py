# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the collection with another version of ansible-core, in the collection's folder: core.py BUILD VERSION."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import artifact
import installed

TOOLS = Path(__file__).resolve().parent
CORES = {
    "2.16": ("3.12", "3.11"),
    "2.18": ("3.13", "3.12", "3.11"),
    "2.19": ("3.13", "3.12", "3.11"),
    "2.20": ("3.14", "3.13", "3.12"),
    "2.21": ("3.14", "3.13", "3.12"),
}
"""The versions for which collections are certified, each with its Pythons, from 3.11 as our modules need."""
TESTS = "tests/integration/test_lint.py"
"""Tests of plug-ins that use what differs between the versions: how templates are evaluated."""
ENDS = (next(iter(CORES)), next(reversed(CORES)))
"""With the lowest and the newest version, the collection is also used from its tarball."""


def main() -> None:
    """Make the environment; run the sanity tests and the tests of plug-ins, and use the collection's tarball."""
    build, version = Path(sys.argv[1]), sys.argv[2]
    venv = build / "cores" / version
    names = " ".join(f"python{name}" for name in CORES[version])
    requirements = venv.with_name(f"{version}.txt")
    requirements.parent.mkdir(exist_ok=True)
    requirements.write_text(f"ansible-core~={version}.0\npytest>=9.0,<10\n")
    made = subprocess.run([TOOLS / "venv", venv, requirements, names], check=False)
    if made.returncode:
        sys.exit(made.returncode)
    tools = venv / "bin"
    asked = (tools / "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    python = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    for command in (
        ("python", str(TOOLS / "pip_for_tests.py")),
        sanity(python),
        ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS),
    ):
        if subprocess.run(command, check=False).returncode:
            sys.exit(1)
    if version in ENDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tarball = artifact.build(Path.cwd(), folder / "built")
            installed.use(tarball, folder / "installed", Path.cwd())


def sanity(python: str) -> tuple[str, ...]:
    """The command of the sanity tests. They make environments in one folder of the user, so one run waits for the other."""
    folder = Path("~/.ansible/test").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    lock = ("flock", str(folder / "packetwatch.lock"))
    return (*lock, "ansible-test", "sanity", "--python", python, "--color", "no")


if __name__ == "__main__":
    main()
