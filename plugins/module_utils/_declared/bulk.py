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
from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from socket import AF_INET, AF_INET6, inet_pton
from typing import Literal, NamedTuple

from .._base.address import Prefix
from .._base.clock import counts
from .._base.errors import InvalidInput
from .._tables.ranges import Blocks, Prefixes
from .entries import BYTE_ORDER_MARK, expires_at, parse_words

_PIECE = 1 << 18
_COMMENT = re.compile("#.*")
_BLANKS = " \t\r"
_BLANK = re.compile(f"[{_BLANKS}]")
_HOST_PARTS4 = {str(length): (1 << (32 - length)) - 1 for length in range(33)}
_HOST_PARTS6 = {str(length): (1 << (128 - length)) - 1 for length in range(129)}
_HIGHEST_MAPPED = inet_pton(AF_INET6, "::ffff:255.255.255.255")

_instant = lru_cache(maxsize=1024)(expires_at)


class _Clock(NamedTuple):
    """What decides whether an entry with an expiry is active: Unix time, and the kind of its list."""

    now: float
    synchronised: bool
    kind: Literal["allow", "deny"]


def read_prefixes(
    text: str | bytes,
    name: str,
    now: float,
    clock_synchronised: bool,
    kind: Literal["allow", "deny"],
    union: Prefixes | None = None,
) -> Prefixes:
    """Return the prefixes that are active in a list file at the Unix time now, added to a union.

    name: of the file, for errors. union: prefixes of other lists; it is changed and returned.
    Expired entries are left out. While the clock is not synchronised, an allow entry with an expiry is left
    out, and a deny entry with an expiry is included. Raises InvalidInput, which names file and line.
    """
    if isinstance(text, bytes):
        # Comments may have any encoding. An address with a replaced character is refused below.
        text = text.decode("utf-8", "replace")
    clock = _Clock(now, clock_synchronised, kind)
    found = Prefixes() if union is None else union
    for piece, first_line in _pieces(text.removeprefix(BYTE_ORDER_MARK)):
        try:
            found.add(_read_piece(piece, clock))
        except (InvalidInput, OSError, ValueError, KeyError):
            found.add(_read_lines(piece, clock, name, first_line))
    return found


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Yield pieces of whole lines, each with the number of its first line."""
    begin = 0
    line = 1
    while begin < len(text):
        end = text.find("\n", begin + _PIECE) + 1 or len(text)
        yield text[begin:end], line
        line += text.count("\n", begin, end)
        begin = end


def _read_piece(piece: str, clock: _Clock) -> Prefixes:
    """Return a piece's entries by the fast way; raises an error if a line is wrong, or just unusual."""
    found = Prefixes()
    if "#" in piece:
        piece = _COMMENT.sub("", piece.replace(" #", "#"))
    lines = piece.split("\n")
    if any(blank in piece for blank in _BLANKS):
        lines = [line.strip() for line in lines]
        for line in [line for line in lines if _BLANK.search(line)]:
            _read_words(line.split(), found, clock)
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
    return found


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


def _read_words(words: list[str], found: Prefixes, clock: _Clock) -> None:
    """Add the entry of a line, given as its words, if the entry is active."""
    prefix, expires = parse_words(words)
    if expires is not None and not _is_active(_instant(expires), found, clock):
        found.expired += 1
        return
    found.entries += 1
    _add_prefix(prefix, found)


def _is_active(expiry: float, found: Prefixes, clock: _Clock) -> bool:
    """Return whether an entry with this expiry (Unix seconds) is active; count it."""
    is_active = counts(clock.kind, expiry, clock.now, clock.synchronised)
    if not clock.synchronised:
        found.undecided += 1
    elif is_active:
        found.note_expiry(expiry)
    return is_active


def _add_prefix(prefix: Prefix, found: Prefixes) -> None:
    blocks = found.v4 if prefix.family == 4 else found.v6
    blocks.starts.extend((prefix.value,))
    blocks.ends.extend((prefix.last,))


def _read_lines(piece: str, clock: _Clock, name: str, first_line: int) -> Prefixes:
    """Return a piece's entries, read one by one; raises InvalidInput, which names file and line."""
    found = Prefixes()
    for number, line in enumerate(piece.split("\n"), first_line):
        words = line.partition("#")[0].split()
        try:
            if words:
                _read_words(words, found, clock)
        except InvalidInput as error:
            raise InvalidInput(f"{name}, line {number}: {error}") from None
    return found
