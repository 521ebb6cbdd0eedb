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

_PIECE = 1 << 16
_MAX_COPIED = 1 << 30


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


def remedy_of(error: OSError) -> str:
    """What an operator can do about an error of writing, as the end of a message; "" if that is unknown."""
    remedies = {
        errno.EACCES: "this needs root",
        errno.EPERM: "this needs root",
        errno.ENOSPC: "free space on that file system",
        errno.EDQUOT: "free space on that file system",
        errno.EROFS: "mount that file system writable",
    }
    found = remedies.get(error.errno or 0)
    return f"; {found}" if found else ""


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
    try:
        yield draft
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def open_regular(path: str, flags: int = 0) -> int:
    """A descriptor for reading a regular file; raises OSError for a FIFO, which would block, and others."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    number = errno.EISDIR if is_folder else errno.EINVAL
    raise OSError(number, os.strerror(number) if is_folder else "it is not a regular file", path)


def read_json(path: str) -> t.Any:
    """The value in a JSON file; raises OSError, or ValueError if it is not JSON."""
    with open(open_regular(path), encoding="utf-8") as file:
        text = file.read()
    # Imported here: after a boot there is nothing to read, and half a megabyte is saved.
    import json

    return json.loads(text)


def replace_json(path: str, value: t.Any, mode: int = 0o600) -> None:
    """Replace a file by the JSON of a value; raises OSError."""
    import json

    replace_file(path, json.dumps(value) + "\n", mode)
