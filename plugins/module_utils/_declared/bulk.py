# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""List files → numbers for the compiler, a million lines in a fraction of a second.

The format is described in entries.py. A text is read in pieces that fit into the processor's cache, each
by a few passes over all its lines. If that fails, the lines of the piece are read one by one: this names a
wrong line, and accepts lines that are valid but unusual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import repeat
from socket import AF_INET, AF_INET6, inet_pton
from typing import Literal, NamedTuple

from .._base.address import Prefix
from .._base.clock import Clock, counts
from .._base.errors import InvalidInput
from .._tables.ranges import Blocks, Prefixes
from .entries import BYTE_ORDER_MARK, Entry, canonical, expires_at, format_entries, parse_words

_PIECE = 1 << 18
_COMMENT = re.compile("#.*")
_BLANKS = " \t\r"
_BLANK = re.compile(f"[{_BLANKS}]")
_HOST_PARTS4 = {str(length): (1 << (32 - length)) - 1 for length in range(33)}
_HOST_PARTS6 = {str(length): (1 << (128 - length)) - 1 for length in range(129)}
_HIGHEST_MAPPED = inet_pton(AF_INET6, "::ffff:255.255.255.255")

_instant = lru_cache(maxsize=1024)(expires_at)


class Contents(NamedTuple):
    """The entries of a list file: those that never expire, and prefix and expiry (Unix time) of the others."""

    lasting: Prefixes
    expiring: list[tuple[Prefix, float]]


class DropIn(str):
    """The text of a drop-in whose entries are parsed already."""

    contents: Contents
    origins: Mapping[Prefix, str]
    """Where entries come from, for messages; empty if that is not known."""


def parse_drop_in(text: str, name: str) -> DropIn:
    """Return the drop-in of a text. name: of the file, for the InvalidInput that names file and line."""
    lasting = Prefixes()
    return _drop_in(text, Contents(lasting, _parse(text, name, lasting)), {})


def make_drop_in(entries: Iterable[Entry], origins: Mapping[Prefix, str]) -> DropIn:
    """Return the drop-in of these entries: canonical, sorted, without duplicates.

    origins: where entries come from, for messages. Raises InvalidInput if a prefix has different expiry times.
    """
    unique = canonical(entries)
    lasting = Prefixes()
    for entry in unique:
        if entry.expires is None:
            _add_prefix(entry.prefix, lasting)
            lasting.entries += 1
    expiring = [(entry.prefix, _instant(entry.expires)) for entry in unique if entry.expires]
    return _drop_in(format_entries(unique), Contents(lasting, expiring), origins)


def read_prefixes(
    text: str | bytes,
    name: str,
    now: float,
    clock_trusted: bool,
    kind: Literal["allow", "deny"],
    union: Prefixes | None = None,
) -> Prefixes:
    """Return the prefixes that are active in a list file at the Unix time now, added to a union.

    name: of the file, for errors. union: prefixes of other lists; it is changed and returned.
    now, clock_trusted: as in `Clock`. Expired entries are left out. Of entries whose expiry such a clock
    cannot decide, those of an allow list are left out, and those of a deny list are included. Raises InvalidInput, which names file and line.
    """
    found = Prefixes() if union is None else union
    clock = Clock(now, clock_trusted)
    if isinstance(text, DropIn):
        found.add(text.contents.lasting)
        expiring = text.contents.expiring
    else:
        expiring = _parse(text, name, found)
    for prefix, expiry in expiring:
        is_active = counts(kind, expiry, clock)
        if clock.is_undecided(expiry):
            found.undecided += 1
        elif is_active:
            found.note_expiry(expiry)
        if is_active:
            found.entries += 1
            _add_prefix(prefix, found)
        elif not clock.is_undecided(expiry):
            found.expired += 1
            found.last_expiry = max(found.last_expiry, expiry)
    return found


def _drop_in(text: str, contents: Contents, origins: Mapping[Prefix, str]) -> DropIn:
    made = DropIn(text)
    made.contents, made.origins = contents, origins
    return made


def _parse(text: str | bytes, name: str, lasting: Prefixes) -> list[tuple[Prefix, float]]:
    """Add a text's entries without an expiry to `lasting`; return the others with theirs."""
    if isinstance(text, bytes):
        # Comments may have any encoding. An address with a replaced character is refused below.
        text = text.decode("utf-8", "replace")
    expiring: list[tuple[Prefix, float]] = []
    for piece, first_line in _pieces(text.removeprefix(BYTE_ORDER_MARK)):
        try:
            found = _read_piece(piece)
        except (InvalidInput, OSError, ValueError, KeyError):
            found = _read_lines(piece, name, first_line)
        lasting.add(found.lasting)
        expiring += found.expiring
    return expiring


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Yield pieces of whole lines, each with the number of its first line."""
    begin = 0
    line = 1
    while begin < len(text):
        end = text.find("\n", begin + _PIECE) + 1 or len(text)
        yield text[begin:end], line
        line += text.count("\n", begin, end)
        begin = end


def _read_piece(piece: str) -> Contents:
    """Return a piece's entries by the fast way; raises an error if a line is wrong, or just unusual."""
    found, expiring = Contents(Prefixes(), [])
    if "#" in piece:
        piece = _COMMENT.sub("", piece.replace(" #", "#"))
    lines = piece.split("\n")
    if any(blank in piece for blank in _BLANKS):
        lines = [line.strip() for line in lines]
        for line in [line for line in lines if _BLANK.search(line)]:
            _read_words(line.split(), found, expiring)
        lines = [line for line in lines if not _BLANK.search(line)]
    if lines and not lines[-1]:
        del lines[-1]  # the empty text after the last newline
    if "" in lines:
        lines = [line for line in lines if line]
    found.entries += len(lines)
    if ":" in piece:
        wide = [line for line in lines if ":" in line]
        lines = [line for line in lines if ":" not in line] if len(wide) < len(lines) else []
        if "/" in piece:
            _read_nets6([line for line in wide if "/" in line], found.v6)
            wide = [line for line in wide if "/" not in line]
        _read_hosts6(wide, found.v6)
    if "/" in piece:
        _read_nets4([line for line in lines if "/" in line], found.v4)
        lines = [line for line in lines if "/" not in line]
    _read_hosts4(lines, found.v4)
    return Contents(found, expiring)


def _read_hosts4(lines: list[str], blocks: Blocks) -> None:
    blocks.hosts.extend_packed(b"".join(map(inet_pton, repeat(AF_INET), lines)))


def _read_hosts6(lines: list[str], blocks: Blocks) -> None:
    values = list(map(inet_pton, repeat(AF_INET6), lines))
    if values and min(values) <= _HIGHEST_MAPPED:
        _refuse_mapped([int.from_bytes(value, "big") for value in values], [0] * len(values))
    blocks.hosts.extend_packed(b"".join(values))


def _read_nets4(lines: list[str], blocks: Blocks) -> None:
    parts = [line.partition("/") for line in lines]
    starts = [int.from_bytes(inet_pton(AF_INET, address), "big") for address, _s, _l in parts]
    _add_nets(starts, [_HOST_PARTS4[length] for _a, _s, length in parts], blocks)


def _read_nets6(lines: list[str], blocks: Blocks) -> None:
    parts = [line.partition("/") for line in lines]
    starts = [int.from_bytes(inet_pton(AF_INET6, address), "big") for address, _s, _l in parts]
    host_parts = [_HOST_PARTS6[length] for _a, _s, length in parts]
    if starts and min(starts) <= int.from_bytes(_HIGHEST_MAPPED, "big"):
        _refuse_mapped(starts, host_parts)
    _add_nets(starts, host_parts, blocks)


def _add_nets(starts: list[int], host_parts: list[int], blocks: Blocks) -> None:
    if any(start & host for start, host in zip(starts, host_parts, strict=True)):
        raise ValueError("bits set after a prefix length")
    blocks.starts.extend(starts)
    blocks.ends.extend([start | host for start, host in zip(starts, host_parts, strict=True)])


def _refuse_mapped(starts: list[int], host_parts: list[int]) -> None:
    """Raise ValueError if one of the IPv6 prefixes lies within ::ffff:0:0/96."""
    for start, host in zip(starts, host_parts, strict=True):
        if start >> 32 == 0xFFFF and (start | host) >> 32 == 0xFFFF:
            raise ValueError("IPv4 in IPv6 notation")


def _read_words(words: list[str], lasting: Prefixes, expiring: list[tuple[Prefix, float]]) -> None:
    """Add the entry of a line to those that never expire, or to the others."""
    prefix, expires = parse_words(words)
    if expires is not None:
        expiring.append((prefix, _instant(expires)))
        return
    lasting.entries += 1
    _add_prefix(prefix, lasting)


def _add_prefix(prefix: Prefix, found: Prefixes) -> None:
    blocks = found.v4 if prefix.family == 4 else found.v6
    blocks.starts.extend((prefix.value,))
    blocks.ends.extend((prefix.last,))


def _read_lines(piece: str, name: str, first_line: int) -> Contents:
    """Return a piece's entries, read one by one; raises InvalidInput that names the wrong line."""
    found = Contents(Prefixes(), [])
    for number, line in enumerate(piece.split("\n"), first_line):
        words = line.partition("#")[0].split()
        try:
            if words:
                _read_words(words, *found)
        except InvalidInput as error:
            raise InvalidInput(f"{name}, line {number}: {error}") from None
    return found
