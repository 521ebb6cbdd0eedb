# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Feeds with an address or a range on each line → prefixes.

A reader reduces each line to its address, and keeps empty lines. Then the fast reader of drop-ins
(bulk.py) parses all lines. Only if it fails are lines parsed one by one, which finds the wrong ones.
"""

from __future__ import annotations

import csv
import re
import typing as t

from .._base.address import BITS, Prefix, netmask_length, parse_address, parse_prefix
from .._base.errors import InvalidInput
from .._base.number import read_whole
from .._declared.bulk import read_prefixes
from .._tables.ranges import Prefixes, cut

AUTO = "auto"

_MAX_LINE = 4096
_MAX_QUOTED = 60
_MAX_EXAMPLES = 5
_COMMENT = re.compile(r"[#;].*|//.*")
# More than one word on a line, or a character that begins a comment in drop-ins.
_ODD = re.compile(r"[^ \t\r\n][ \t]+[^ \t\r\n]|#")
_RANGE = re.compile(r"[\s,;-]*([^\s,;-]+)([\s,;-]*)([^\s,;-]*)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ ./-]{0,39}")
# A column of addresses is named by such a word, as in dst_ip, ipAddress, "Start" or network.
_NAMES = frozenset(
    (
        *("addr", "address", "addresses", "cidr", "ip", "ips", "ipv", "net", "netblock", "network"),
        *("prefix", "range", "source", "src", "start", "subnet"),
    )
)
_DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_RESERVED = 240  # the first number of the lowest reserved IPv4 address
_MULTICAST = 224 << 24  # the lowest IPv4 address that is not unicast


class Format(t.NamedTuple):
    """The format of a feed.

    column: number from 1, or name, for CSV; paths for JSON. delimiter: for CSV. header: whether the first
    record of CSV and ranges names the columns: "true", "false" or `AUTO`.
    """

    name: str = "plain"
    column: str = "1"
    delimiter: str = ","
    header: str = AUTO


class Wrong:
    """The wrong lines of a feed: up to `maximum` are skipped and counted, one more makes the feed invalid.

    where: the feed, for errors.
    """

    def __init__(self, where: str, maximum: int = 0) -> None:
        self.where = where
        self.total = 0
        self.examples: list[str] = []
        self._maximum = maximum

    def note(self, place: str, error: InvalidInput) -> None:
        """Count a wrong line; raises InvalidInput that names it if there are too many."""
        self.total += 1
        if self.total > self._maximum:
            many = f" ({self.total} wrong lines, and max_bad is {self._maximum})"
            raise InvalidInput(
                f"{self.where}, {place}: {error}{many if self._maximum else ''}"
            ) from None
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{place}: {error}")


def read_lines(text: str, kind: Format, wrong: Wrong) -> Prefixes:
    """Return the prefixes of a text in one of the `FORMATS`."""
    _check_lines(text, wrong.where)
    return FORMATS[kind.name](text, kind, wrong)


def read_words(words: t.Sequence[str], place: t.Callable[[int], str], wrong: Wrong) -> Prefixes:
    """Return the prefixes of texts that each hold one address or prefix, or nothing.

    place: what errors call the text with this index.
    """
    text = "\n".join(words)
    if not _ODD.search(text) and text.count("\n") == max(0, len(words) - 1):
        try:
            return read_prefixes(text, wrong.where, 0, True, "deny")
        except InvalidInput:
            # Found again below, by its place.
            pass
    right = []
    for index, word in enumerate(words):
        try:
            right.append(_check_word(word.strip()))
        except InvalidInput as error:
            wrong.note(place(index), error)
    return read_prefixes("\n".join(right), wrong.where, 0, True, "deny")


def _check_word(word: str) -> str:
    """Return a word that is empty, an address or a prefix; raises InvalidInput for any other."""
    if not word:
        return word
    shown = repr(word if len(word) <= _MAX_QUOTED else f"{word[:_MAX_QUOTED]}...")
    if len(word.split()) > 1:
        raise InvalidInput(
            f"{shown} is more than an address or a prefix: check the line; another format may fit the feed"
        )
    if len(word) > _MAX_QUOTED:
        raise InvalidInput(
            f"{shown} is not an address or a prefix: check what the feed's address returns"
        )
    parse_prefix(word)
    return word


def _check_lines(text: str, where: str) -> None:
    """Refuse a text with overlong lines: it is not a list, and no message should quote such a line."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MAX_LINE:
            raise InvalidInput(
                f"{where}, line {number} has {len(line)} characters, so this is not a list: "
                "check what the feed's address returns"
            )


def _line(index: int) -> str:
    return f"line {index + 1}"


# Readers: (text, format, wrong lines) → prefixes


def _read_plain(text: str, dummy: Format, wrong: Wrong) -> Prefixes:
    return read_words(_COMMENT.sub("", text).split("\n"), _line, wrong)


def _read_hosts(text: str, dummy: Format, wrong: Wrong) -> Prefixes:
    """Read lines as in /etc/hosts: an address, then anything."""
    lines = _COMMENT.sub("", text).split("\n")
    words = [line.split(None, 1)[0] if line.strip() else "" for line in lines]
    return read_words(words, _line, wrong)


def _read_ipset(text: str, dummy: Format, wrong: Wrong) -> Prefixes:
    """Read what ``ipset save`` writes, and plain lists, which are often published as "ipset" too."""
    words = []
    for number, line in enumerate(_COMMENT.sub("", text).split("\n"), 1):
        parts = line.split()
        if parts[:1] == ["add"] and len(parts) > 2:
            if "nomatch" in parts:
                # Never tolerated: without its exception, the list denies more than was published.
                raise InvalidInput(
                    f"{wrong.where}, line {number}: {parts[2]!r} is an exception (nomatch), which lists do "
                    "not support: allow it instead"
                )
            words.append(parts[2])
        else:
            words.append("" if parts[:1] == ["create"] else line)
    return read_words(words, _line, wrong)


def _read_csv(text: str, kind: Format, wrong: Wrong) -> Prefixes:
    """Read one column."""
    lines = text.split("\n")
    at, begin = _find_column(lines, kind, wrong.where)
    body = ["" if line.startswith("#") else line for line in lines[begin:]]
    rows = csv.reader(body, delimiter=kind.delimiter, skipinitialspace=True)
    words = [""] * begin
    is_first = begin == 0
    try:
        for row in rows:
            if not "".join(row).strip():
                continue
            was_first, is_first = is_first, False
            if was_first and _is_header(row[at] if at < len(row) else "", kind.header):
                continue
            words += [""] * (begin + rows.line_num - 1 - len(words))
            words.append(_cell(row, at, kind, begin + rows.line_num, wrong))
    except csv.Error as error:
        raise InvalidInput(f"{wrong.where}, line {begin + rows.line_num}: {error}") from None
    return read_words(words, _line, wrong)


def _cell(row: list[str], at: int, kind: Format, number: int, wrong: Wrong) -> str:
    """Return the row's address; empty if the row has no such column, which is noted."""
    if at < len(row):
        return row[at].strip()
    error = InvalidInput(
        f"it has {len(row)} columns, and column is {kind.column}: check column and delimiter"
    )
    wrong.note(f"line {number}", error)
    return ""


def _find_column(lines: list[str], kind: Format, where: str) -> tuple[int, int]:
    """Return the index of the column, and of the first line after the header.

    The header is a comment line, or the first line that is not a comment.
    """
    place = read_whole(kind.column, _MAX_LINE)
    if place is not None:
        return place - 1, 0
    for number, line in enumerate(lines, 1):
        try:
            cells = next(csv.reader([line.lstrip("# ")], delimiter=kind.delimiter), [])
        except csv.Error as error:
            raise InvalidInput(f"{where}, line {number}: {error}") from None
        names = [name.strip() for name in cells]
        if kind.column in names:
            return names.index(kind.column), number
        if line.strip() and not line.startswith("#"):
            break
    raise InvalidInput(
        f"{where} has no column {kind.column!r}: write a name from its header line, or the column's number"
    )


def _read_ranges(text: str, kind: Format, wrong: Wrong) -> Prefixes:
    """Read first and last address, separated by blanks, a comma, a semicolon or a dash, then anything.

    After a blank, a comma or a semicolon, the second word may also be a netmask.
    """
    found = Prefixes()
    is_first = True
    for number, line in enumerate(_COMMENT.sub("", text).split("\n"), 1):
        words = _RANGE.match(line)
        if not words:
            continue
        was_first, is_first = is_first, False
        if was_first and _is_header(words[1], kind.header):
            continue
        try:
            _add_range(found, *words.groups())
        except InvalidInput as error:
            wrong.note(f"line {number}", error)
    return found


def _add_range(found: Prefixes, first: str, between: str, second: str) -> None:
    start = parse_prefix(_check_word(first))
    last = start.last
    if start.is_host and second:
        masked = None if "-" in between else _apply_netmask(start, first, second)
        start, last = (masked, masked.last) if masked else (start, _end(start, first, second))
    blocks = found.v4 if start.family == 4 else found.v6
    parts = cut(start.value, last, BITS[start.family])
    blocks.add_nets((part.value, part.last) for part in (Prefix(start.family, *it) for it in parts))
    found.entries += 1


def _end(start: Prefix, first: str, second: str) -> int:
    """Return the last address of a range."""
    end = parse_address(_check_word(second))
    if end.value < start.value or end.family != start.family:
        raise InvalidInput(
            f"{second!r} does not come after {first!r}: write the first address of a range, then the last "
            "one of the same family"
        )
    return end.value


def _apply_netmask(start: Prefix, first: str, second: str) -> Prefix | None:
    """Return the prefix of an address and a netmask; None if the second word is not a netmask.

    A netmask such as 255.255.255.0 is also an address, but in reserved space: no range of public addresses
    ends there.
    """
    is_public = start.family == 4 and start.value < _MULTICAST
    if not is_public or not _DOTTED.fullmatch(second) or int(second.partition(".")[0]) < _RESERVED:
        return None
    length = netmask_length(second)
    if length is None:
        raise InvalidInput(
            f"{second!r} is neither a netmask nor an address where a public range can end: correct the line"
        )
    return parse_prefix(f"{first}/{length}")


def _is_header(cell: str, header: str) -> bool:
    """Return whether a first record names its columns. cell: its text where others have the address.

    If that must be guessed (`AUTO`), only a name that a column of addresses has is a header: a damaged
    address or an error page is a wrong line.
    """
    if header != AUTO:
        return header == "true"
    words = [word.lower() for word in _WORD.findall(cell)]
    return (
        _NAME.fullmatch(cell.strip()) is not None
        and 0 < len(words) <= 3
        and not _NAMES.isdisjoint(words)
    )


FORMATS: t.Final[dict[str, t.Callable[[str, Format, Wrong], Prefixes]]] = {
    "plain": _read_plain,
    "hosts": _read_hosts,
    "csv": _read_csv,
    "ranges": _read_ranges,
    "ipset": _read_ipset,
}
