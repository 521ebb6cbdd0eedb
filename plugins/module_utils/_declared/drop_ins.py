# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The drop-ins of a state: texts, or files that need not be read because their digest is noted.

A state's file ``digests`` notes, for each drop-in that Packetwatch wrote, which file it is and when it was
changed. An edit by hand changes that, so the note does not count any more, and the file is read.
"""

from __future__ import annotations

import functools
import os
import typing as t

from .._base.digest import digest_text
from .._base.errors import InvalidInput, Unreadable
from .._base.files import copy_file, open_regular, read_json, write_file

DIGESTS = "digests"
"""Name of the file with the notes, in the directory of a state."""

_MODE = 0o644


class File(t.NamedTuple):
    """A drop-in's file with its noted digest; stamp: which file it is, its size, when it was changed."""

    path: str
    digest: str
    stamp: tuple[int, ...]


class DropIns(t.Mapping[str, str]):
    """The texts of drop-ins by name. A file is read when its text is asked for. Immutable."""

    def __init__(self, found: t.Mapping[str, str | File]) -> None:
        self._found = dict(found)

    @classmethod
    def of(cls, lists: t.Mapping[str, str]) -> DropIns:
        """The same drop-ins, of which none is read again."""
        return lists if isinstance(lists, DropIns) else cls(lists)

    def __getitem__(self, name: str) -> str:
        found = self._found[name]
        return _text_of(found) if isinstance(found, File) else found

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> t.Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, t.Mapping):
            return NotImplemented
        others = DropIns.of(other)
        return self.keys() == others.keys() and all(self.is_same(others, name) for name in self)

    __hash__ = None  # type: ignore[assignment]

    def is_same(self, others: DropIns, name: str) -> bool:
        """Return whether a drop-in has the same text in both, or is in neither."""
        one, other = (each._found.get(name) for each in (self, others))
        if one is other:
            return True
        if isinstance(one, File) and isinstance(other, File) and one.stamp == other.stamp:
            return True
        return self.get(name) == others.get(name)

    def replaced(self, name: str, text: str | None) -> DropIns:
        """Return the drop-ins with another text of this name; None: without that drop-in."""
        # The text may be needed for messages when the file is gone.
        self.get(name)
        others = {key: found for key, found in self._found.items() if key != name}
        return DropIns(others if text is None else {**others, name: text})

    def digest(self, name: str) -> str:
        """Return the digest of a drop-in, without the variables that have its entries, as hex.

        Their indexes move when another entry is added.
        """
        found = self._found[name]
        return found.digest if isinstance(found, File) else _digest(found)

    def faithful(self) -> list[str]:
        """Return the names of the drop-ins whose text will be read as it was written."""
        found = self._found.items()
        return [name for name, each in found if isinstance(each, File) or "\r" not in each]

    @property
    def size(self) -> int:
        """About how many characters they have."""
        return sum(map(_size_of, self._found.values()))

    def write(self, name: str, path: str) -> None:
        """Write a drop-in to a new file; an unread one is copied by the kernel. Raises OSError."""
        found = self._found[name]
        if not isinstance(found, File):
            write_file(path, found, _MODE)
            return
        source = open_regular(found.path)
        try:
            copy_file(source, path, _MODE)
            _check(found, source)
        finally:
            os.close(source)


def note_digests(folder: str, lists: t.Mapping[str, DropIns]) -> None:
    """Note which files the drop-ins of a state have, once they are written. Raises OSError.

    lists: by kind ("allow", "deny").
    """
    notes = {}
    for kind, found in lists.items():
        for name in found.faithful():
            path = file_of(kind, name)
            status = os.stat(os.path.join(folder, path))
            notes[path] = [found.digest(name), *_stamp(status)]
    # Imported here: a boot writes nothing, and it would cost memory.
    import json

    write_file(os.path.join(folder, DIGESTS), json.dumps(notes) + "\n", _MODE)


class Noted:
    """The notes of a state; none if their file is missing or damaged, or if another user can write it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._notes: dict[str, t.Any] = {}
        self._time = 0
        path = os.path.join(folder, DIGESTS)
        try:
            status = os.lstat(path)
            found = read_json(path)
        except (OSError, ValueError):
            return
        if isinstance(found, dict) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
            self._notes, self._time = found, status.st_ctime_ns

    def find(self, path: str) -> File | None:
        """Return the file of a drop-in that is as it was noted; path: below the state's directory."""
        note = self._notes.get(path)
        if not (isinstance(note, list) and note and isinstance(note[0], str)):
            return None
        whole = os.path.join(self._folder, path)
        try:
            stamp = _stamp(os.lstat(whole))
        except OSError:
            return None
        # The kernel's clock for files has steps of some milliseconds. A file that was written in the same
        # step as the note may have been changed after it.
        is_noted = list(stamp) == note[1:] and max(stamp[-2:]) < self._time
        return File(whole, note[0], stamp) if is_noted else None


def file_of(kind: str, name: str) -> str:
    """Return the path of a drop-in below the state's directory."""
    return f"{kind}.d/{name}.list"


def read_text(path: str, errors: str = "strict") -> str:
    """Return the text of a file; raises Unreadable, and InvalidInput if it is not UTF-8."""
    try:
        with open(open_regular(path), encoding="utf-8", errors=errors) as file:
            return file.read()
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is not UTF-8 text, from byte {error.start} on: save it as UTF-8"
        ) from error


# Long texts are asked for several times during one activation.
@functools.lru_cache(maxsize=64)
def _text_of(file: File) -> str:
    text = read_text(file.path)
    _check(file, file.path)
    return text


@functools.lru_cache(maxsize=64)
def _digest(text: str) -> str:
    # Imported here: a boot does not need it, and it would cost memory.
    from .entries import without_origins

    return digest_text(without_origins(text))


def _size_of(found: str | File) -> int:
    return found.stamp[2] if isinstance(found, File) else len(found)


def _check(file: File, where: str | int) -> None:
    """Raise Unreadable if a file is not as it was noted any more."""
    if _stamp(os.stat(where)) != file.stamp:
        raise Unreadable(f"{file.path} was edited while Packetwatch read it; try again")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mode,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
