# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the collection's tarball, and check that it has what users need and nothing else: artifact.py FOLDER."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

FOLDERS = frozenset(
    {
        *("LICENSES", "docs", "examples", "extensions", "files", "meta", "playbooks", "plugins"),
        "roles",
    }
)
# Galaxy's importer reads the changelog and the settings of ansible-lint, and ansible-test the lowest Python of modules.
FILES = frozenset(
    {
        ".ansible-lint",
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "COPYING",
        "MAINTAINERS.md",
        "README.md",
        "REUSE.toml",
        "SECURITY.md",
        "changelogs/changelog.yaml",
        "tests/config.yml",
    }
)
MADE = frozenset({"MANIFEST.json", "FILES.json"})


def build(source: Path, folder: Path, time: int = 0) -> Path:
    """Build the tarball of the collection in a folder; return its path. time: of all files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.tar.gz"):
        old.unlink()
    subprocess.run(
        ["ansible-galaxy", "collection", "build", "--output-path", str(folder)],
        cwd=source,
        check=True,
    )
    (tarball,) = folder.glob("*.tar.gz")
    normalise(tarball, time)
    return tarball


def normalise(tarball: Path, time: int) -> None:
    """Sort the files by their names, and give them one time, so that the same files give the same tarball.

    ansible-galaxy takes them in the order of the file system, and with the time of the build.
    """
    with tarfile.open(tarball) as archive:
        members = {
            member.name: (member, file.read() if (file := content(archive, member)) else None)
            for member in archive
        }
    contents = {name: data for name, (dummy, data) in members.items() if data is not None}
    listed = json.loads(contents["FILES.json"])
    listed["files"].sort(key=lambda entry: entry["name"])
    contents["FILES.json"] = json.dumps(listed, indent=True).encode()
    manifest = json.loads(contents["MANIFEST.json"])
    digest = hashlib.sha256(contents["FILES.json"]).hexdigest()
    manifest["file_manifest_file"]["chksum_sha256"] = digest
    contents["MANIFEST.json"] = json.dumps(manifest, indent=True).encode()
    with (
        tarball.open("wb") as output,
        gzip.GzipFile("", "wb", fileobj=output, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        # ansible-galaxy reads the two files of metadata first.
        for name in sorted(members, key=lambda name: (name not in MADE, name)):
            member = members[name][0]
            data = contents.get(name)
            # In here, the headers would have the time once more, in fractions.
            member.pax_headers = {}
            member.mtime = time
            member.size = len(data or b"")
            archive.addfile(member, io.BytesIO(data) if data is not None else None)


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    """A file of an archive; None for folders and links."""
    return archive.extractfile(member) if member.isfile() else None


def wanted(source: Path) -> set[str]:
    """The files of a collection's folder that users need."""
    names = {name for name in FILES if (source / name).exists()}
    for folder in FOLDERS:
        names |= {
            path.relative_to(source).as_posix()
            for path in (source / folder).rglob("*")
            if not path.is_dir() and "__pycache__" not in path.parts
        }
    return names


def problems(source: Path, tarball: Path) -> Iterator[str]:
    """Say what is in the tarball without need, or missing."""
    with tarfile.open(tarball) as archive:
        members = {member.name: member for member in archive if not member.isdir()}
        texts = {
            name: hashlib.sha256(file.read()).digest()
            for name, member in members.items()
            if member.isfile() and (file := archive.extractfile(member))
        }
    here, there = wanted(source) | MADE, set(members)
    yield from (
        f"{name} is in the tarball: add it to build_ignore in galaxy.yml, or to FOLDERS or FILES here if users need it"
        for name in sorted(there - here)
    )
    yield from (
        f"{name} is missing in the tarball: check build_ignore in galaxy.yml"
        for name in sorted(here - there)
    )
    licences = {text: name for name, text in texts.items() if name.startswith("LICENSES/")}
    yield from (
        f"{name} is a second copy of {licences[text]}: make it a link"
        for name, text in texts.items()
        if text in licences and licences[text] != name
    )


def main() -> None:
    """Build and check the copy of the collection, in its folder."""
    source = Path.cwd()
    found = list(problems(source, build(source, Path(sys.argv[1]))))
    for line in found:
        print(line)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
