# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The files that the roles install, as one archive that is the same on every controller."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import pathlib
import re
import tarfile
import typing as t

# Folder in the archive, folder in the collection, patterns of names. All other files there (caches,
# copies of editors, links out of the tree) are left out.
_COMMON = (
    ("packetwatch_core", "plugins/module_utils", ("_*.py", "_*/[a-z_]*.py")),
    ("packetwatch_agent", "roles/packetwatch/files/agent/packetwatch_agent", ("**/[a-z_]*.py",)),
    ("packetwatch_fleet", "roles/packetwatch/files/fleet/packetwatch_fleet", ("**/[a-z_]*.py",)),
)
HOST = (
    *_COMMON,
    ("bpf", "roles/packetwatch/files/bpf", ("*.c", "*.h")),
    ("sysusers", "roles/packetwatch/files/sysusers", ("*.conf",)),
    ("units", "roles/packetwatch/files/units", ("*.service", "*.path", "*.timer", "*.socket")),
    ("bin", "roles/packetwatch/files/bin", ("packetwatchctl",)),
    ("completion", "roles/packetwatch/files/completion", ("*.bash",)),
    ("man", "roles/packetwatch/files/man", ("*.8",)),
)
NODE = (
    *_COMMON,
    (
        "packetwatch_enforcer",
        "roles/fleet_node/files/enforcer/packetwatch_enforcer",
        ("**/[a-z_]*.py",),
    ),
    (
        "packetwatch_api",
        "roles/fleet_node/files/api/packetwatch_api",
        (
            *("**/[a-z_]*.py", "openapi.json"),
            *(f"page/*.{kind}" for kind in ("html", "css", "js", "svg")),
        ),
    ),
    ("packetwatch_bus", "roles/fleet_node/files/bus/packetwatch_bus", ("**/[a-z_]*.py",)),
)
Sources = tuple[tuple[str, str, tuple[str, ...]], ...]
_VERSION_FILE = "packetwatch_agent/__init__.py"
_VERSION = re.compile(rb'^__version__ = "([0-9a-z.+-]+)"$', re.MULTILINE)
_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Software:
    """The files of one version, by path in the archive."""

    version: str
    files: t.Mapping[str, bytes]

    @functools.cached_property
    def manifest(self) -> dict[str, str]:
        """The SHA-256 of each file, in the order of paths."""
        return {path: hashlib.sha256(self.files[path]).hexdigest() for path in sorted(self.files)}

    @property
    def name(self) -> str:
        """The folder's name on the host, ``VERSION-DIGEST``.

        The digest covers contents, not the archive: another version of zlib packs the same files into
        other bytes.
        """
        lines = "".join(f"{digest}  {path}\n" for path, digest in self.manifest.items())
        return f"{self.version}-{hashlib.sha256(lines.encode()).hexdigest()[:_DIGITS]}"

    def pack(self) -> bytes:
        """The files as a tar archive, owned by root, with fixed modes and times."""
        packed = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for path in sorted(self.files):
                entry = tarfile.TarInfo(path)
                entry.size = len(self.files[path])
                entry.mode = 0o644
                entry.uname = entry.gname = "root"
                archive.addfile(entry, io.BytesIO(self.files[path]))
        return packed.getvalue()


def collect(collection: pathlib.Path, sources: Sources = HOST) -> Software:
    """Gather the software from a collection's folder; raise ValueError if a part of it is missing.

    sources: `HOST` or `NODE`.
    """
    files: dict[str, bytes] = {}
    for target, folder, patterns in sources:
        source = collection / folder
        found = {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}
        if not found:
            raise ValueError(f"{source} contains no {patterns[0]}")
        for path in found:
            files[f"{target}/{path.relative_to(source).as_posix()}"] = path.read_bytes()
    version = _VERSION.search(files[_VERSION_FILE])
    if version is None:
        raise ValueError(f"{_VERSION_FILE} does not contain a version")
    return Software(version[1].decode(), files)
