# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Feeds in JSON → prefixes: one object on each line (NDJSON), an array, or a nested document.

Paths say where the addresses are, such as ``cidr``, ``prefixes[].ip_prefix`` or
``values[name=Front.Door].properties.addressPrefixes[]``. Several paths are separated by commas. Of all
objects, only members that paths name are kept in memory.
"""

from __future__ import annotations

import json
import re
import sys
import typing as t

from .._base.errors import InvalidInput
from .._base.number import MAX_TIME, is_number
from .lines import Wrong, read_words

if t.TYPE_CHECKING:
    from .._tables.ranges import Prefixes

# Separators, unless they are in brackets.
_COMMA = re.compile(r",\s*(?![^\[]*\])")
_DOT = re.compile(r"\.(?![^\[]*\])")
_STEP = re.compile(r"([^\[\]=]*)(?:(\[)(?:([^\[\]=]+)=([^\[\]]+))?\])?")
_EXAMPLE = "write the path of the addresses, such as cidr or prefixes[].ip_prefix"
# Stands for a line that is not JSON. It is a record nevertheless.
_BROKEN: t.Final = object()
_MAX_COLUMN = 4096
# The record that describes an NDJSON feed.
_TYPE, _METADATA, _RECORDS, _TIMESTAMP = "type", "metadata", "records", "timestamp"


class Step(t.NamedTuple):
    """One member on the way to an address.

    each: whether it is an array whose elements count. member, value: only those elements count that have
    this value in this member; every element if `member` is empty.
    """

    name: str
    each: bool = False
    member: str = ""
    value: str = ""

    def __str__(self) -> str:
        chosen = f"{self.member}={self.value}" if self.member else ""
        return f"{self.name}[{chosen}]" if self.each else self.name


class Node:
    """All paths, as a tree. A node without steps is where addresses are."""

    def __init__(self) -> None:
        self.steps: dict[Step, Node] = {}
        self.passed = 0
        """How many objects or elements were at this node."""
        self.found = 0
        """How many objects had the member that leads to this node."""


class Records(t.NamedTuple):
    """What a JSON feed holds. published: when, in Unix seconds, by its metadata record; None without one."""

    prefixes: Prefixes
    published: float | None


def parse_paths(column: str) -> Node:
    """Return the tree of the paths in the option `column`; raises InvalidInput."""
    if len(column) > _MAX_COLUMN:
        raise InvalidInput(f"column has {len(column)} characters: {_EXAMPLE}")
    root = Node()
    for path in _COMMA.split(column.strip()):
        node = root
        for text in _DOT.split(path.strip()):
            match = _STEP.fullmatch(text)
            if not match or not (match[1] or (match[2] and node is root)):
                raise InvalidInput(f"column is {column!r}: {_EXAMPLE}")
            step = Step(match[1], bool(match[2]), match[3] or "", match[4] or "")
            # Elements of an outermost array are records anyway.
            if step != Step("", True):
                node = node.steps.setdefault(step, Node())
    return root


def read_records(text: str, column: str, wrong: Wrong) -> Records:
    """Return the prefixes at the paths of `column`; raises InvalidInput."""
    root = parse_paths(column)
    reader = _Reader(root, wrong)
    count = 0
    for place, record in _records(text, _Members(root), wrong):
        if isinstance(record, dict) and record.get(_TYPE) == _METADATA:
            reader.describe(record)
            continue
        count += 1
        if record is not _BROKEN:
            reader.place = place
            reader.walk(record, root)
    _check_paths(root, wrong.where)
    reader.check_count(count)
    prefixes = read_words(reader.words, reader.places.__getitem__, wrong)
    return Records(prefixes, reader.published)


class _Members:
    """Makes an object of its members: only of those that paths name, because others cost memory."""

    def __init__(self, root: Node) -> None:
        self._names = {_TYPE, _RECORDS, _TIMESTAMP}
        nodes = [root]
        for node in nodes:
            self._names.update(*((step.name, step.member) for step in node.steps))
            nodes += node.steps.values()

    def __call__(self, pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
        found = {}
        for name, value in pairs:
            if name in self._names:
                if name in found:
                    raise InvalidInput(f"an object has two members {name!r}: it is ambiguous")
                found[name] = value
        return found


def _records(text: str, members: _Members, wrong: Wrong) -> t.Iterator[tuple[str, t.Any]]:
    """Yield all records with their places: lines, elements of the outermost array, or the document."""
    decode = json.JSONDecoder(object_pairs_hook=members).decode
    text = text.strip()
    if not text:
        return
    first, dummy, rest = text.partition("\n")
    if rest and _is_json(first, decode):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield f"line {number}", _decode(line, decode)
                except InvalidInput as error:
                    wrong.note(f"line {number}", error)
                    yield "", _BROKEN
        return
    try:
        document = _decode(text, decode)
    except InvalidInput as error:
        raise InvalidInput(f"{wrong.where}: {error}") from None
    if isinstance(document, list):
        yield from ((f"element {number}", item) for number, item in enumerate(document, 1))
    else:
        yield "", document


def _is_json(text: str, decode: t.Callable[[str], t.Any]) -> bool:
    try:
        decode(text)
    except (InvalidInput, RecursionError, ValueError):
        return False
    return True


def _decode(text: str, decode: t.Callable[[str], t.Any]) -> t.Any:
    try:
        return decode(text)
    except RecursionError:
        raise InvalidInput(
            "it is nested too deeply: check what the feed's address returns"
        ) from None
    except ValueError as error:
        raise InvalidInput(
            f"it is not JSON ({error}): check what the feed's address returns"
        ) from None


class _Reader:
    """Collects the addresses of records, and what the metadata record says about them."""

    def __init__(self, root: Node, wrong: Wrong) -> None:
        self.words: list[str] = []
        self.places: list[str] = []
        self.place = ""
        self.published: float | None = None
        self._root = root
        self._wrong = wrong
        self._records: int | None = None

    def walk(self, value: t.Any, node: Node, path: str = "") -> None:
        """Collect the addresses below a value at a node."""
        node.passed += 1
        if not node.steps:
            if isinstance(value, str):
                self.words.append(value)
                # The same text for many addresses takes memory only once.
                self.places.append(sys.intern(self._name(path)))
            else:
                self._note(path, f"{_kind(value)} is not the text of an address: {_EXAMPLE}")
            return
        if not isinstance(value, dict):
            self._note(path, f"{_kind(value)} is not an object: {_EXAMPLE}")
            return
        names = [step for step in node.steps if step.name in value]
        if not names:
            lacks = " or ".join(sorted({repr(step.name) for step in node.steps}))
            self._note(path, f"the object has no {lacks}: check column and the publisher's format")
        for step in names:
            node.steps[step].found += 1
            self._follow(value[step.name], step, node.steps[step], f"{path}.{step}".lstrip("."))

    def describe(self, record: dict[str, t.Any]) -> None:
        """Read the metadata record: the number of records, and when they were published."""
        records, timestamp = record.get(_RECORDS), record.get(_TIMESTAMP)
        for name, value in ((_RECORDS, records), (_TIMESTAMP, timestamp)):
            if value is not None and not is_number(value, MAX_TIME):
                raise InvalidInput(
                    f"{self._wrong.where}: {name} of its metadata record is {_kind(value)}, not a number from 0 "
                    f"to {MAX_TIME:.0f}: check the publisher's format"
                )
        if self._records is not None and records is not None:
            raise InvalidInput(
                f"{self._wrong.where} has two metadata records: check what the feed's address returns"
            )
        self._records = records if records is not None else self._records
        self.published = timestamp if timestamp is not None else self.published

    def check_count(self, count: int) -> None:
        """Refuse a feed that has not the number of records that its metadata record counts."""
        # Publishers may count a record that is listed twice once.
        if self._records not in (None, count, len(set(self.words))):
            raise InvalidInput(
                f"{self._wrong.where} has {count} records, but its metadata record counts {self._records}: it is "
                "incomplete, so fetch it again"
            )

    def _follow(self, value: t.Any, step: Step, node: Node, path: str) -> None:
        if not step.each:
            self.walk(value, node, path)
        elif not isinstance(value, list):
            self._note(path, f"{_kind(value)} is not an array: {_EXAMPLE}")
        else:
            for item in value:
                if not step.member or (
                    isinstance(item, dict) and item.get(step.member) == step.value
                ):
                    self.walk(item, node, path)

    def _note(self, path: str, text: str) -> None:
        self._wrong.note(self._name(path), InvalidInput(text))

    def _name(self, path: str) -> str:
        return ", ".join(filter(None, (self.place, path))) or "the document"


def _check_paths(node: Node, where: str, path: str = "") -> None:
    """Refuse a feed in which a path leads nowhere, because half of the feed would be left out.

    An empty array is not a path that leads nowhere.
    """
    for step, below in node.steps.items():
        here = f"{path}.{step}".lstrip(".")
        if node.passed and not below.found:
            raise InvalidInput(
                f"{where} has no {here}: check the publisher's format, or remove this path from column"
            )
        if step.member and below.found and not below.passed:
            raise InvalidInput(
                f"{where}: no element is {here}: check the publisher's format, or correct column"
            )
        _check_paths(below, where, here)


def _kind(value: t.Any) -> str:
    """Return the kind of a JSON value in words."""
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")
