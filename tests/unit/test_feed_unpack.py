# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compressed feeds are recognised by their first bytes, and unpacked only up to a limit."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import resource
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._feeds.unpack import unpack

LIST = b"203.0.113.0/24\n"


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zip": lambda data: zipped(("list.txt", data)),
}


@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_list_is_unpacked(kind: str) -> None:
    packed = PACKERS[kind](LIST)
    assert packed != LIST
    assert unpack(packed, len(LIST)) == LIST
    assert unpack(PACKERS[kind](b""), 1) == b""


def test_other_files_stay() -> None:
    for data in (LIST, b"", b"PK", b"# BZh"):
        assert unpack(data, 1) == data


def test_several_members_of_gzip_are_one_file() -> None:
    assert unpack(gzip.compress(LIST) + gzip.compress(LIST), 100) == LIST + LIST


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_not_unpacked(kind: str) -> None:
    bomb = PACKERS[kind](bytes(1 << 26))
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with pytest.raises(
            InvalidInput, match=rf"packed with {kind}, and has more than 65536 bytes"
        ):
            unpack(bomb, 1 << 16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # xz reserves its dictionary of 8 MiB.
    assert peak < 1 << 24
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 15


@pytest.mark.parametrize("kind", PACKERS)
def test_a_damaged_file_is_refused(kind: str) -> None:
    packed = PACKERS[kind](b"".join(b"45.9.%d.%d\n" % (n % 251, n % 13) for n in range(4000)))
    middle = len(packed) // 2
    for damaged in (packed[:-9], packed[:middle] + b"\xff\x00\xff" + packed[middle + 3 :]):
        with pytest.raises(
            InvalidInput, match=rf"it is packed with {kind}, and cannot be unpacked"
        ):
            unpack(damaged, 1 << 20)


def test_more_after_xz_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"more follows after the content"):
        unpack(lzma.compress(LIST) + b"45.9.148.7", 100)


def test_a_dictionary_that_is_too_large_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}]
    with pytest.raises(InvalidInput, match=r"packed with xz, and cannot be unpacked .*[Mm]emory"):
        unpack(lzma.compress(LIST, filters=filters), 100)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(), "a zip file with 0 members"),
        (
            zipped(("a", LIST), ("b", LIST)),
            "a zip file with 2 members: a feed needs exactly one list",
        ),
        (zipped(("a/", b"")), "a zip file whose member is a folder"),
        (zipped(("a", LIST), method=zipfile.ZIP_LZMA), "the method 14, which is not supported"),
    ],
)
def test_a_zip_file_has_one_list(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        unpack(data, 100)
