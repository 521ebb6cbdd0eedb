# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rehearse a release on a copy of the collection: rehearse.py MANIFEST, in the collection's folder.

The copy gets version 1.0.0 if it has a lower one, because certified collections must have that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import artifact
import yaml

NAME = "packetwatch.xdp"
# What the importer logs if it would accept the collection with a complaint.
COMPLAINT = re.compile(r"^(?:WARNING|ERROR).*", re.M)


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


def files(folder: Path) -> set[str]:
    """The paths of all files in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def release(copy: Path) -> str:
    """Set the version and make the changelog; return the version."""
    metadata = copy / "galaxy.yml"
    text = metadata.read_text()
    version = str(yaml.safe_load(text)["version"])
    if version.startswith("0."):
        text, version = text.replace(f"version: {version}", "version: 1.0.0"), "1.0.0"
        metadata.write_text(text)
    # The tool asks git for the files of the collection.
    run("git", "init", "--quiet", folder=copy)
    run("git", "add", "--all", folder=copy)
    before = files(copy)
    run("antsibull-changelog", "release", "--version", version, folder=copy)
    after = files(copy)
    made = {"CHANGELOG.md", "changelogs/.plugin-cache.yaml"}
    if after - before != made:
        sys.exit(f"the release made {sorted(after - before)} instead of {sorted(made)}")
    anchor = f'id="v{version.replace(".", "-")}"'
    if anchor not in (copy / "CHANGELOG.md").read_text():
        sys.exit(f"CHANGELOG.md does not name version {version}")
    run("git", "check-ignore", "changelogs/.plugin-cache.yaml", folder=copy)
    run("reuse", "lint-file", "CHANGELOG.md", "changelogs/changelog.yaml", folder=copy)
    # What git keeps is no part of the collection.
    shutil.rmtree(copy / ".git")
    return version


def install(tarball: Path, folder: Path) -> None:
    """Install the tarball into an empty folder, verify it, and list its modules."""
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
    run("ansible-doc", "-t", "role", f"{NAME}.packetwatch", folder=folder, **paths)
    run("ansible-playbook", "--syntax-check", f"{NAME}.site", folder=folder, **paths)


def import_it(tarball: Path, folder: Path) -> None:
    """Import the tarball as Galaxy and Automation Hub do."""
    config = str(Path(__file__).with_name("galaxy-importer.cfg"))
    importer = (sys.executable, "-m", "galaxy_importer.main", str(tarball))
    log = run(*importer, folder=folder, GALAXY_IMPORTER_CONFIG=config)
    if complaints := COMPLAINT.findall(log):
        sys.exit("the importer complains:\n" + "\n".join(complaints))
    print("Importer: passed")


def main() -> None:
    """Rehearse in a temporary folder."""
    source = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = folder / "ansible_collections/packetwatch/xdp"
        for path in Path(sys.argv[1]).read_text().splitlines():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, copy / path, follow_symlinks=False)
        version = release(copy)
        tarball = artifact.build(copy, folder / "built")
        if found := list(artifact.problems(copy, tarball)):
            sys.exit("\n".join(found))
        (folder / "installed").mkdir()
        install(tarball, folder / "installed")
        import_it(tarball, folder)
        print(f"Version {version} could be released")


if __name__ == "__main__":
    main()
