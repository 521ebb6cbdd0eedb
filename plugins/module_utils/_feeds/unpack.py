# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compressed feeds, recognised by their first bytes: unpacked only up to a limit of bytes.

A small file can unpack to terabytes. So every decoder is asked for at most one byte more than the limit.
"""

from __future__ import annotations

import io
import typing as t

from .._base.errors import InvalidInput

# An .xz file names the size of its dictionary, and the decoder reserves it: at most 64 MiB by `xz -9`.
_XZ_MEMORY = 1 << 27
# Methods of members of a .zip file that need little memory.
_ZIP_METHODS = {0: "stored", 8: "deflate", 12: "bzip2"}


class _Kind(t.NamedTuple):
    """A way to pack files. magic: their first bytes. read: unpacks up to so many bytes."""

    magic: bytes
    name: str
    read: t.Callable[[bytes, int], bytes]


def unpack(data: bytes, maximum: int) -> bytes:
    """Return the content of a file that gzip, xz, bzip2 or zip has packed; other files as they are.

    Raises InvalidInput if the file is damaged, or its content has more than `maximum` bytes.
    """
    kind = next((kind for kind in _KINDS if data.startswith(kind.magic)), None)
    return data if kind is None else _unpack(data, maximum, kind)


def _unpack(data: bytes, maximum: int, kind: _Kind) -> bytes:
    name = kind.name
    try:
        found = kind.read(data, maximum + 1)
    except InvalidInput:
        raise
    # The modules of the standard library have an error of their own each, and share no class.
    except Exception as error:
        raise InvalidInput(
            f"it is packed with {name}, and cannot be unpacked ({error}): check the publisher's file"
        ) from error
    if len(found) > maximum:
        raise InvalidInput(
            f"it is packed with {name}, and has more than {maximum} bytes unpacked: check it, or raise "
            "max_bytes"
        )
    return found


def _read_gzip(data: bytes, size: int) -> bytes:
    import gzip

    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return _read(file, size)


def _read_bzip2(data: bytes, size: int) -> bytes:
    import bz2

    with bz2.BZ2File(io.BytesIO(data)) as file:
        return _read(file, size)


def _read_xz(data: bytes, size: int) -> bytes:
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    pieces, left = [decoder.decompress(data, size)], size
    while pieces[-1] and not decoder.eof:
        left -= len(pieces[-1])
        if left <= 0:
            break
        pieces.append(decoder.decompress(b"", left))
    if left > 0 and not decoder.eof:
        raise EOFError("the file ends before its content does")
    if decoder.eof and decoder.unused_data.strip(b"\0"):
        raise EOFError("more follows after the content")
    return b"".join(pieces)


def _read_zip(data: bytes, size: int) -> bytes:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) != 1 or members[0].is_dir():
            what = (
                "whose member is a folder" if len(members) == 1 else f"with {len(members)} members"
            )
            raise InvalidInput(
                f"it is a zip file {what}: a feed needs exactly one list; ask the publisher, or use path"
            )
        if members[0].compress_type not in _ZIP_METHODS:
            raise InvalidInput(
                f"it is a zip file with the method {members[0].compress_type}, which is not supported: "
                f"pack it with one of {', '.join(_ZIP_METHODS.values())}"
            )
        with archive.open(members[0]) as file:
            return _read(file, size)


def _read(file: io.BufferedIOBase | t.IO[bytes], size: int) -> bytes:
    """Read up to `size` bytes. At the end of the file, its own checksum is verified."""
    pieces, left = [], size
    while left > 0 and (piece := file.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


_KINDS: t.Final = (
    _Kind(b"\x1f\x8b", "gzip", _read_gzip),
    _Kind(b"\xfd7zXZ\0", "xz", _read_xz),
    _Kind(b"BZh", "bzip2", _read_bzip2),
    _Kind(b"PK\x03\x04", "zip", _read_zip),
    # A zip file without members.
    _Kind(b"PK\x05\x06", "zip", _read_zip),
)
