# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Versions of installed files: a folder for each, and a link to the current one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import typing as t

from .._base.errors import SetupFailed
from .._base.files import replace_file
from . import places
from .commands import must

if t.TYPE_CHECKING:
    from .._base.types import Run

# Starting a process must not compile, and its unit may not write here. The files never change, so no
# start compares times either.
_COMPILE = ("/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")


class Versions:
    """The versions in a library, which is a folder of root's."""

    def __init__(self, library: str) -> None:
        self._library = library
        self._link = os.path.join(library, places.CURRENT)

    @property
    def current(self) -> str:
        """The name of the current version; empty: there is none."""
        return os.readlink(self._link) if os.path.lexists(self._link) else ""

    def folder(self, name: str) -> str:
        """The folder of a version."""
        return os.path.join(self._library, name)

    def is_damaged(self, name: str, manifest: t.Mapping[str, str]) -> bool:
        """Whether a file of a version is missing, or is not what the controller has packed."""
        folder = self.folder(name)
        return any(
            digest(os.path.join(folder, path)) != wanted for path, wanted in manifest.items()
        )

    def unpack(self, run: Run, name: str, manifest: t.Mapping[str, str], archive: str) -> None:
        """Make a version's folder; it is complete when it gets its name."""
        os.makedirs(self._library, 0o755, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=".new-", dir=self._library)
        try:
            _extract(manifest, archive, draft)
        except (KeyError, tarfile.TarError) as error:
            raise SetupFailed(
                f"the archive {archive} is damaged: {error}; run the role again"
            ) from error
        folder = self.folder(name)
        must(run, *_COMPILE, "-s", draft, "-p", folder, draft)
        for path, dummy, files in os.walk(draft):
            os.chmod(path, 0o755)
            for file in files:
                os.chmod(os.path.join(path, file), places.PLAIN)
        if os.path.exists(folder):
            damaged = tempfile.mkdtemp(prefix=".old-", dir=self._library)
            os.rename(folder, os.path.join(damaged, name))
        os.rename(draft, folder)

    def switch(self, name: str) -> None:
        """Make a version the current one."""
        draft = os.path.join(self._library, f".{places.CURRENT}")
        if os.path.lexists(draft):
            os.unlink(draft)
        os.symlink(name, draft)
        os.rename(draft, self._link)

    def prune(self, *keep: str) -> None:
        """Remove drafts, and all versions but these; none: all versions stay."""
        for entry in os.listdir(self._library):
            if entry.startswith(".") or (keep and entry not in (*keep, places.CURRENT)):
                shutil.rmtree(os.path.join(self._library, entry))


def digest(path: str) -> str | None:
    """The SHA-256 of a file, None if there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _extract(manifest: t.Mapping[str, str], archive: str, folder: str) -> None:
    """Write the files of the manifest, each if it is what the controller packed."""
    with tarfile.open(archive) as packed:
        for path, wanted in manifest.items():
            member = packed.extractfile(path)
            data = member.read() if member else b""
            if hashlib.sha256(data).hexdigest() != wanted:
                raise SetupFailed(
                    f"{path} in the archive differs from the file on the controller; run the role again"
                )
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            replace_file(target, data.decode(), places.PLAIN)
