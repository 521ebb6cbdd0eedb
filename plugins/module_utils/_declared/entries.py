# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The list-file format and the entries of the inventory.

A line of a list file has a prefix, then optionally ` expires=` and a time, then optionally a comment
from `#` on. The comment may end with the inventory variable that has the entry, such as
`(packetwatch_deny__security[3])`. Blank lines and lines with only a comment are ignored. Here every line becomes an object, to
show or change lists; bulk.py reads the same format for the compiler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .._base.address import Prefix, format_prefix, parse_prefix
from .._base.errors import InvalidInput, InvalidInputs

if TYPE_CHECKING:
    # Functions import it when they need it; a boot does not need it, and saves the memory.
    from datetime import datetime

BYTE_ORDER_MARK = "\ufeff"
"""Some editors write it before a text; it is ignored."""

_EXPIRES = "expires="
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.IGNORECASE,
)
_TIME_EXAMPLE = "2026-12-01T00:00:00Z or 2026-12-01T00:00:00+01:00"
# The end of a comment that names the inventory variable which an entry comes from.
_VARIABLE = r"packetwatch_(?:allow|deny)(?:__[a-z0-9_]{1,64})?\[[0-9]{1,9}\]"
_OPTIONS = ("address", "comment", "expires", "state")
_MAX_SHOWN = 80
_STATES = ("present", "absent")


class Entry(NamedTuple):
    """One line of a list."""

    prefix: Prefix
    comment: str = ""
    """One line of printable text."""
    expires: str | None = None
    """Canonical time (RFC 3339, UTC) at which the entry expires; None: never."""
    origin: str = ""
    """The inventory variable that has the entry, as NAME[INDEX]; empty if it is not known."""

    @property
    def text(self) -> str:
        """The prefix in canonical form, as format_prefix writes it."""
        return format_prefix(self.prefix)


def expires_at(text: str) -> float:
    """Return a time (RFC 3339 with zone) as Unix seconds; raises InvalidInput."""
    return _instant(text).timestamp()


def parse_list(text: str, name: str) -> list[Entry]:
    """Return a list file's entries in their order, with duplicates.

    name: of the file, for errors. Raises InvalidInput, which names file and line.
    """
    entries = []
    for number, line in enumerate(text.removeprefix(BYTE_ORDER_MARK).split("\n"), 1):
        try:
            entry = parse_line(line)
        except InvalidInput as error:
            raise InvalidInput(f"{name}, line {number}: {error}") from None
        if entry is not None:
            entries.append(entry)
    return entries


def parse_line(line: str) -> Entry | None:
    """Return the entry of a line; None if the line has only white space or a comment."""
    body, _hash, comment = line.partition("#")
    words = body.split()
    if not words:
        return None
    prefix, expires = parse_words(words)
    canonical_time = None if expires is None else _canonical_time(expires)
    said = _one_line(comment)
    origin = _origin_of(said) if said.endswith("])") else None
    if origin:
        return Entry(prefix, origin[1] or "", canonical_time, origin[2])
    return Entry(prefix, said, canonical_time)


def parse_words(words: list[str]) -> tuple[Prefix, str | None]:
    """Return the prefix and the expiry, as text, from the words before a line's comment."""
    if len(words) == 1:
        return parse_prefix(words[0]), None
    if len(words) == 2 and words[1].startswith(_EXPIRES):
        return parse_prefix(words[0]), words[1].removeprefix(_EXPIRES)
    raise InvalidInput(
        f"{' '.join(words[1:])!r} after {words[0]!r} is not understood: write one prefix per line, "
        f"after it at most {_EXPIRES}TIME and a comment that begins with #"
    )


def format_list(entries: Iterable[Entry]) -> str:
    """Return the text of a list file with the canonical entries; empty without entries.

    Raises InvalidInput if a prefix has different expiry times.
    """
    return format_entries(canonical(entries))


def format_entries(entries: Iterable[Entry]) -> str:
    """Return the text of a list file, a line for each entry, in the given order."""
    return "".join(f"{_format_entry(entry)}\n" for entry in entries)


def canonical(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries sorted by family, address and length, without duplicates.

    Raises InvalidInput if a prefix has different expiry times.
    """
    merged = merge_entries((entry, entry.text) for entry in entries)
    return sorted(merged, key=lambda entry: entry.prefix)


def merge_entries(named: Iterable[tuple[Entry, str]]) -> list[Entry]:
    """Return the entries without duplicates; the first comment of a prefix is kept.

    named: (entry, origin) pairs. Raises InvalidInput, which names both origins, if a prefix has different
    expiry times.
    """
    merged: dict[Prefix, tuple[Entry, str]] = {}
    for entry, origin in named:
        former, former_origin = merged.setdefault(entry.prefix, (entry, origin))
        if former.expires != entry.expires:
            raise InvalidInput(
                f"{origin}: {_describe_expiry(entry)}, but in {former_origin} "
                f"{_describe_expiry(former)}: keep one of the two"
            )
        if entry.comment and not former.comment:
            merged[entry.prefix] = (former._replace(comment=entry.comment), former_origin)
    return [entry for entry, _origin in merged.values()]


class Merged(NamedTuple):
    """Entries of several variables, without duplicates.

    repeated: how many duplicates there were. origins: the item of each prefix, as variable[index].
    """

    entries: list[Entry]
    repeated: int
    origins: dict[Prefix, str]


def merge_inputs(variables: Mapping[str, object]) -> Merged:
    """Return the merged entries of inventory variables or module options, which are given by name.

    An item is the text of a prefix, or a dictionary with address, comment, expires, state. An item with
    the state absent withdraws its prefix from all variables. Raises InvalidInputs for all wrong items,
    which it names as variable[index], or InvalidInput for two items that contradict each other.
    """
    present: list[tuple[Entry, str]] = []
    absent: set[Prefix] = set()
    problems: list[str] = []
    for variable, values in variables.items():
        if not isinstance(values, (list, tuple)):
            problems.append(
                f"{variable} is {describe_value(values)}: write a list of addresses and prefixes, or [] "
                "for none"
            )
            continue
        for index, value in enumerate(values):
            origin = f"{variable}[{index}]"
            try:
                entry, state = _entry_from_item(value)
            except InvalidInput as error:
                problems.append(f"{origin}: {error}")
                continue
            if state == "absent":
                absent.add(entry.prefix)
            else:
                present.append((_with_origin(entry, origin), origin))
    if problems:
        raise InvalidInputs(problems)
    left = [pair for pair in present if pair[0].prefix not in absent]
    entries = merge_entries(left)
    origins = {entry.prefix: origin for entry, origin in reversed(left)}
    return Merged(entries, len(left) - len(entries), origins)


def without_origins(text: str) -> str:
    """Return the text of a list file without the variables that have its entries."""
    if "(packetwatch_" not in text:
        return text
    return re.sub(rf"(?m)(?: #)? \({_VARIABLE}\)$", "", text)


def _with_origin(entry: Entry, origin: str) -> Entry:
    """Return the entry with its origin, if that is a variable whose name a list file can hold."""
    return entry._replace(origin=origin) if _origin_of(f"({origin})") else entry


def _origin_of(comment: str) -> re.Match[str] | None:
    """Return the match of a comment (group 1) that ends with a variable (group 2)."""
    # Compiled when it is used: a boot does not need it, and saves the memory.
    return re.fullmatch(rf"(?:(.*) )?\(({_VARIABLE})\)", comment)


def entries_from_input(values: object, variable: str) -> list[Entry]:
    """Return the merged entries of one variable, as `merge_inputs` does."""
    return merge_inputs({variable: values}).entries


def entry_from_item(value: object) -> Entry:
    """Return the entry of one item, as `merge_inputs` reads it; raises InvalidInput."""
    return _entry_from_item(value)[0]


def _entry_from_item(value: object) -> tuple[Entry, str]:
    """Return one item's entry and its state."""
    if isinstance(value, str):
        return Entry(parse_prefix(str(value))), "present"
    if not isinstance(value, dict):
        raise InvalidInput(_explain_item(value))
    unknown = sorted(str(key) for key in value if key not in _OPTIONS)
    for key in unknown:
        if _is_prefix(key):
            raise InvalidInput(
                f"{key}: {value[key]} is a dictionary, because of the colon: write address: {key} and, on "
                "a line below it, comment: TEXT"
            )
    if unknown:
        raise InvalidInput(f"{', '.join(unknown)}: unknown key; an entry has {', '.join(_OPTIONS)}")
    state = value.get("state") or "present"
    if state not in _STATES:
        raise InvalidInput(f"state is {state!r}: write {' or '.join(_STATES)}")
    address = value.get("address")
    if not isinstance(address, str):
        if address is None:
            raise InvalidInput("has no address: add one")
        raise InvalidInput(
            f"address is {address!r}, {describe_type(address)}: put the address in quotes"
        )
    return (
        Entry(
            parse_prefix(str(address)),
            _input_comment(value.get("comment")),
            _input_expiry(value.get("expires")),
        ),
        str(state),
    )


def _explain_item(value: object) -> str:
    """Return what is wrong with an item that is neither a text nor a dictionary, and the remedy."""
    if value is None:
        return "the entry is empty: write an address after its dash, or remove it"
    if isinstance(value, (list, tuple)):
        return (
            f"{shorten(value)} is a list inside a list: write its entries one level up, or join the lists "
            "with +"
        )
    return f"{value!r} is {describe_type(value)}, not the text of an address: put the address in quotes"


def _is_prefix(text: str) -> bool:
    try:
        return bool(parse_prefix(text))
    except InvalidInput:
        return False


def _input_comment(value: Any) -> str:
    """Return an item's comment as one line; a number or date becomes its text."""
    from datetime import date

    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, date)):
        raise InvalidInput(f"comment is {describe_type(value)}: put the comment in quotes")
    return _one_line(str(value))


def _input_expiry(value: Any) -> str | None:
    """Return an item's expiry in canonical form; None if it has none."""
    from datetime import date

    if value is None or value == "":
        return None
    if isinstance(value, date):
        raise InvalidInput(
            f"expires is {value.isoformat()}, which YAML reads as a date: write it in quotes, with time "
            f"and zone, such as {_TIME_EXAMPLE}"
        )
    if not isinstance(value, str):
        raise InvalidInput(
            f"expires is {value!r}, {describe_type(value)}: "
            f"write a time in quotes, such as {_TIME_EXAMPLE}"
        )
    return _canonical_time(str(value))


def _one_line(text: str) -> str:
    """Return a comment as one line without control characters, as list files need it."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c for c in line if c.isprintable())


def _instant(text: str) -> datetime:
    """Return the time that the text names; raises InvalidInput."""
    from datetime import datetime

    if _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper())
        except ValueError:
            pass
    raise InvalidInput(
        f"expires={text} is not a time with a zone: write it in the format of RFC 3339, "
        f"such as {_TIME_EXAMPLE}"
    )


def _canonical_time(text: str) -> str:
    """Return the same time in UTC; raises InvalidInput."""
    from datetime import UTC

    try:
        moment = _instant(text).astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"expires={text} is out of range: write a year up to 9999") from None
    return moment.replace(tzinfo=None).isoformat() + "Z"


def _format_entry(entry: Entry) -> str:
    """Return the line for a list file, without the newline."""
    expires = f" {_EXPIRES}{entry.expires}" if entry.expires else ""
    words = [entry.comment, f"({entry.origin})" if entry.origin else ""]
    comment = " ".join(word for word in words if word)
    return f"{entry.text}{expires}{f' # {comment}' if comment else ''}"


def _describe_expiry(entry: Entry) -> str:
    return f"{entry.text} expires {f'at {entry.expires}' if entry.expires else 'never'}"


def describe_value(value: object) -> str:
    """Return the value and its type in the words of YAML; only the type if it is empty."""
    kind = describe_type(value)
    return kind if value is None else f"{shorten(value)}, {kind}"


def shorten(value: object) -> str:
    """Return the value as Python writes it, of bounded length."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def describe_type(value: object) -> str:
    """Return the value's type in the words of YAML."""
    from datetime import date, datetime

    if value is None:
        return "empty"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text"}
    names |= {dict: "a dictionary", list: "a list", datetime: "a time", date: "a date"}
    for kind, name in names.items():
        if isinstance(value, kind):
            return name
    return f"a value of type {type(value).__name__}"
