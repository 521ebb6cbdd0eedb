# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Published feeds, in any of several formats → the text of a drop-in.

A reader reduces each line to its address, and keeps empty lines. Then the fast reader of drop-ins
(bulk.py) parses all lines, and its errors name the right line number. One wrong line makes the whole feed
invalid: no part of an error page may become a list.
"""

from __future__ import annotations

import csv
import re
import typing as t

from .._base.address import BITS, Prefix, format_prefix, parse_address, parse_prefix
from .._base.digest import digest_text
from .._base.errors import InvalidInput
from .._declared.bulk import read_prefixes
from .._tables.ranges import Blocks, Prefixes, cut, nets_of, split_off
from .spare import KEEP_BOGONS, LeftOut, name_blocks
from .special import special_spans

_MAX_LINE = 4096
_COMMENT = re.compile(r"[#;].*|//.*")
_MORE = re.compile(r"^.*[^ \t\r\n][ \t]+[^ \t\r\n].*$", re.MULTILINE)
_BETWEEN = re.compile(r"[\s,;-]+")


class Format(t.NamedTuple):
    """The format of a feed; column (number from 1, or name) and delimiter are used for CSV only."""

    name: str = "plain"
    column: str = "1"
    delimiter: str = ","


class Copy(t.NamedTuple):
    """A copy of a feed, as it is sent to hosts."""

    text: str
    """The drop-in: canonical, sorted, without duplicates."""
    digest: str
    """SHA-256 of the text."""
    entries: int
    left_out: LeftOut


def read_feed(data: bytes, kind: Format, name: str, bogons: bool = False) -> Copy:
    """Return the copy of a published feed; raises InvalidInput, which names the feed and the line.

    data: the published file. bogons: whether to keep entries in special-purpose address space.
    """
    text = data.decode("utf-8-sig", "replace")
    where = f"feed {name}"
    _check_lines(text, where)
    found = _READERS[kind.name](text, kind, where)
    left_out = LeftOut(0, []) if bogons else _leave_out_special(found)
    lines = [*_lines(found.v4, 4, 32), *_lines(found.v6, 6, 128)]
    if not lines:
        special = ", all of them in special-purpose address space" if left_out.total else ""
        raise InvalidInput(
            f"{where} has {left_out.total} entries{special}: check its address and format, or remove the "
            "feed"
        )
    drop_in = "".join([KEEP_BOGONS if bogons else "", "\n".join(lines), "\n"])
    return Copy(drop_in, digest_text(drop_in), len(lines), left_out)


def _leave_out_special(found: Prefixes) -> LeftOut:
    found.v4, out4 = split_off(found.v4, special_spans(4))
    found.v6, out6 = split_off(found.v6, special_spans(6))
    return name_blocks(out4, out6)


def _lines(blocks: Blocks, family: int, bits: int) -> list[str]:
    """Return all prefixes of a family as text, sorted, without duplicates."""
    numbers = {host << 8 | bits for host in blocks.hosts}
    for start, end in nets_of(blocks):
        numbers.add(start << 8 | (bits - (end - start).bit_length()))
    return [format_prefix(Prefix(family, number >> 8, number & 0xFF)) for number in sorted(numbers)]


def _check_lines(text: str, where: str) -> None:
    """Refuse a text with overlong lines, so that no message ever quotes such a line."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MAX_LINE:
            raise InvalidInput(
                f"{where}, line {number} has {len(line)} characters, so this is not a list: "
                "check what the feed's address returns"
            )


# Readers: (text, format, name of the feed for messages) → prefixes


def _read_plain(text: str, dummy: Format, where: str) -> Prefixes:
    return _read_words(_COMMENT.sub("", text).split("\n"), where)


def _read_hosts(text: str, dummy: Format, where: str) -> Prefixes:
    """Read lines as in /etc/hosts: an address, then anything."""
    lines = _COMMENT.sub("", text).split("\n")
    return _read_words([line.split(None, 1)[0] if line.strip() else "" for line in lines], where)


def _read_ipset(text: str, dummy: Format, where: str) -> Prefixes:
    """Read what ``ipset save`` writes, and plain lists, which are often published as "ipset" too."""
    words = []
    for number, line in enumerate(_COMMENT.sub("", text).split("\n"), 1):
        parts = line.split()
        if parts[:1] == ["add"] and len(parts) > 2:
            if "nomatch" in parts:
                raise InvalidInput(
                    f"{where}, line {number}: {parts[2]!r} is an exception (nomatch), which lists do not "
                    "support: allow it instead"
                )
            words.append(parts[2])
        else:
            words.append("" if parts[:1] == ["create"] else line)
    return _read_words(words, where)


def _read_csv(text: str, kind: Format, where: str) -> Prefixes:
    """Read one column. If it is given by number, a first line without an address in it is the header."""
    lines = text.split("\n")
    at, begin = _find_column(lines, kind, where)
    body = ["" if line.startswith("#") else line for line in lines[begin:]]
    rows = csv.reader(body, delimiter=kind.delimiter, skipinitialspace=True)
    words = [""] * begin
    header = begin > 0
    try:
        for row in rows:
            if not "".join(row).strip():
                continue
            if at >= len(row):
                raise InvalidInput(
                    f"{where}, line {begin + rows.line_num} has {len(row)} columns, and column is "
                    f"{kind.column}: check column and delimiter"
                )
            if not header and not _is_address(row[at].strip()):
                header = True
                continue
            header = True
            words += [""] * (begin + rows.line_num - 1 - len(words))
            words.append(row[at].strip())
    except csv.Error as error:
        raise InvalidInput(f"{where}, line {begin + rows.line_num}: {error}") from None
    return _read_words(words, where)


def _find_column(lines: list[str], kind: Format, where: str) -> tuple[int, int]:
    """Return the index of the column, and of the first line after the header.

    The header may be a comment line.
    """
    if kind.column.isdigit():
        return int(kind.column) - 1, 0
    for number, line in enumerate(lines, 1):
        names = next(csv.reader([line.lstrip("# ")], delimiter=kind.delimiter), [])
        if kind.column in [name.strip() for name in names]:
            return [name.strip() for name in names].index(kind.column), number
    raise InvalidInput(f"{where} has no column {kind.column!r}: write a name from its header line")


def _read_ranges(text: str, dummy: Format, where: str) -> Prefixes:
    """Read first and last address, separated by blanks, a comma, a semicolon or a dash, then anything."""
    found = Prefixes()
    header = False
    for number, line in enumerate(_COMMENT.sub("", text).split("\n"), 1):
        words = [word for word in _BETWEEN.split(line) if word]
        if not words:
            continue
        if not (found.entries or header or _is_address(words[0])):
            header = True
            continue
        try:
            _add_range(found, words)
        except InvalidInput as error:
            raise InvalidInput(f"{where}, line {number}: {error}") from None
    return found


def _add_range(found: Prefixes, words: list[str]) -> None:
    first = parse_prefix(words[0])
    last = first
    if first.is_host and len(words) > 1:
        last = parse_address(words[1])
        if (last.family, last.value) < (first.family, first.value) or last.family != first.family:
            raise InvalidInput(
                f"{words[1]!r} does not come after {words[0]!r}: write the first address of a range, then "
                "the last one of the same family"
            )
    blocks = found.v4 if first.family == 4 else found.v6
    bits = BITS[first.family]
    parts = (Prefix(first.family, *part) for part in cut(first.value, last.last, bits))
    blocks.add_nets((part.value, part.last) for part in parts)
    found.entries += 1


def _read_words(words: list[str], where: str) -> Prefixes:
    """Read one address or prefix from each line."""
    text = "\n".join(words)
    more = _MORE.search(text)
    if more:
        line = text.count("\n", 0, more.start()) + 1
        raise InvalidInput(
            f"{where}, line {line}: {more[0].strip()!r} is more than an address or a prefix: check the "
            "line; another format may fit the feed"
        )
    return read_prefixes(text, where, 0, True, "deny")


def _is_address(word: str) -> bool:
    try:
        parse_prefix(word)
    except InvalidInput:
        return False
    return True


_READERS: t.Final[dict[str, t.Callable[[str, Format, str], Prefixes]]] = {
    "plain": _read_plain,
    "hosts": _read_hosts,
    "csv": _read_csv,
    "ranges": _read_ranges,
    "ipset": _read_ipset,
}
FORMATS = tuple(_READERS)
