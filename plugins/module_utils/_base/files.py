# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Files that hold either their old or their new content, at whatever point the writer dies."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from .errors import Unreadable

_PIECE = 1 << 16
_MAX_COPIED = 1 << 30
_MAX_JSON = 1 << 24
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def pieces(text: str) -> t.Iterator[str]:
    """Yield a text in pieces, so that a long one is never encoded as a whole in memory."""
    for begin in range(0, len(text), _PIECE):
        yield text[begin : begin + _PIECE]


def write_file(path: str, text: str, mode: int) -> None:
    """Write a text to a file with these permissions, and flush it to the disk (fsync).

    Raises OSError, which names the file.
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.writelines(pieces(text))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # Opening names the file, writing does not.
        error.filename = error.filename or path
        raise


def copy_file(source: int, path: str, mode: int) -> None:
    """Copy an open file to a new file with these permissions in the kernel, and flush it to the disk.

    Raises OSError, which names the new file.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(file, mode)
            while os.sendfile(file, source, None, _MAX_COPIED):
                pass
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        error.filename = path
        raise


def replace_file(path: str, text: str, mode: int = 0o600) -> None:
    """Replace a file atomically: write a draft beside it, flush it to the disk, rename it."""
    with _draft_of(path) as draft:
        write_file(draft, text, mode)


def replace_parts(path: str, parts: t.Iterable[bytes | bytearray], mode: int = 0o600) -> None:
    """As `replace_file`, with bytes in parts."""
    with _draft_of(path) as draft, open(draft, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _draft_of(path: str) -> t.Iterator[str]:
    """The path of a draft, which replaces the file at the end."""
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".new-{name}")
    # What is there may be a link.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    try:
        yield draft
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def open_regular(path: str, flags: int = 0, folder: int | None = None) -> int:
    """A descriptor for reading a regular file; raises OSError for a FIFO, which would block, and others.

    folder: descriptor of the folder to which the path is relative.
    """
    flags |= os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    number = errno.EISDIR if is_folder else errno.EINVAL
    raise OSError(number, os.strerror(number) if is_folder else "it is not a regular file", path)


def create_file(path: str, mode: int = 0o600) -> int:
    """A descriptor for writing a new file, in place of any file, link or FIFO; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def open_own(path: str) -> t.BinaryIO:
    """Open a file that only this user can have written: what is compiled is believed only then.

    It must be a regular file, not a link, in a folder of this user, and nobody else may write either.
    Raises OSError, or `Unreadable` with the reason.
    """
    folder, name = os.path.split(path)
    above = os.open(folder, _FOLDER)
    try:
        _check_own(above, f"the folder {folder}")
        descriptor = open_regular(name, os.O_NOFOLLOW, above)
    finally:
        os.close(above)
    file = os.fdopen(descriptor, "rb")
    try:
        _check_own(descriptor, "the file")
    except Unreadable:
        file.close()
        raise
    return file


def make_own_folder(path: str) -> None:
    """Make a folder that only this user can write, or take it back from all others; raises OSError."""
    if os.path.islink(path):
        os.unlink(path)
    os.makedirs(path, mode=0o700, exist_ok=True)
    descriptor = os.open(path, _FOLDER & ~os.O_PATH)
    try:
        os.fchown(descriptor, os.geteuid(), -1)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _check_own(descriptor: int, what: str) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        raise Unreadable(f"another user may have written it: {what} belongs to user {found.st_uid}")
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise Unreadable(f"another user may have written it: {what} has mode {mode:04o}")


def read_json(path: str) -> t.Any:
    """The value in a JSON file; raises OSError, or ValueError if it is not JSON."""
    with open(open_regular(path), "rb") as file:
        data = file.read(_MAX_JSON + 1)
    if len(data) > _MAX_JSON:
        raise ValueError(f"it has more than {_MAX_JSON} bytes")
    return parse_json(data)


def parse_json(text: str | bytes | memoryview) -> t.Any:
    """The value of a JSON text; raises ValueError, also for one that is nested too deeply."""
    # Imported here: after a boot there is nothing to read, and half a megabyte is saved.
    import json

    try:
        return json.loads(text if isinstance(text, str) else str(text, "utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def replace_json(path: str, value: t.Any, mode: int = 0o600) -> None:
    """Replace a file by the JSON of a value; raises OSError."""
    import json

    replace_file(path, json.dumps(value) + "\n", mode)
