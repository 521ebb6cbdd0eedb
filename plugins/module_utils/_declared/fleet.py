# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The lists of the fleet, which become the drop-in `FLEET`.

The fleet process leaves them in a file of its own::

    {"v": 1, "lists": {"web": {"allow": [...], "deny": [{"address": "203.0.113.0/24", "comment": "noisy",
                                                          "expires": "2026-12-01T00:00:00Z"}]}}}

That process may be taken over, so whatever is at the path is read with care, as a whole or not at all.
"""

from __future__ import annotations

import os
import time
import typing as t

from .._base.address import Prefix
from .._base.errors import InvalidInput, Unreadable
from .._base.files import open_regular, parse_json
from .._base.number import is_a, is_number
from .bulk import DropIn, make_drop_in
from .drop_ins import DropIns
from .entries import Entry, entry_from_item, expires_at, shorten
from .store import FLEET, State

if t.TYPE_CHECKING:
    from .edits import Edit

VERSION = 1
MAX_BYTES, MAX_ENTRIES, MAX_LISTS, MAX_COMMENT = 1 << 22, 10_000, 64, 200
KINDS = ("allow", "deny")
# The shortest prefixes that the fleet may list, by family.
_SHORTEST = {4: 8, 6: 32}
# Until the year 9999.
_MAX_TIME = 253_402_300_799
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FleetLists(t.NamedTuple):
    """Drop-ins by kind. ignored: number of entries of kinds that this host does not take."""

    texts: t.Mapping[str, DropIn]
    ignored: int = 0


def read_file(path: str) -> bytes:
    """Return what the fleet process has written.

    It must be a regular file of the folder's owner with one name: any other could be a file of root's. Raises
    `FileNotFoundError`, and `Unreadable` with the reason.
    """
    folder, name = os.path.split(path)
    try:
        above = os.open(folder, _FOLDER)
        try:
            owner = os.fstat(above).st_uid
            descriptor = open_regular(name, os.O_NOFOLLOW, above)
        finally:
            os.close(above)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}; {_REMEDY}") from error
    if status.st_uid != owner or status.st_nlink != 1:
        raise Unreadable(
            f"{path} belongs to user {status.st_uid} and has {status.st_nlink} names, the folder belongs to "
            f"user {owner}: it is not a file of the fleet process; {_REMEDY}"
        )
    if len(data) > MAX_BYTES:
        raise Unreadable(f"{path} has more than {MAX_BYTES} bytes; {_REMEDY}")
    return data


def parse(data: bytes, kinds: t.Collection[str]) -> FleetLists:
    """Return the drop-ins that a file declares; raises InvalidInput if anything in it is wrong.

    kinds: those that this host takes. If lists name a prefix twice, it has the entry that lasts longest.
    """
    try:
        found = parse_json(data)
    except ValueError as error:
        raise InvalidInput(f"the lists of the fleet are not JSON: {str(error)[:80]}") from None
    if not isinstance(found, dict) or not is_a(found.get("v"), int) or found["v"] != VERSION:
        raise InvalidInput(f'the lists of the fleet are not of version {VERSION} ("v": {VERSION})')
    lists = found.get("lists")
    if not isinstance(lists, dict) or len(lists) > MAX_LISTS:
        raise InvalidInput(f"lists is not an object of at most {MAX_LISTS} lists")
    items = {kind: list(_items(lists, kind)) for kind in KINDS}
    total = sum(map(len, items.values()))
    if total > MAX_ENTRIES:
        raise InvalidInput(f"the lists have {total} entries; allowed: up to {MAX_ENTRIES}")
    entries = {kind: _entries(items[kind]) for kind in KINDS}
    texts = {
        kind: make_drop_in(found.values(), {})
        for kind, found in entries.items()
        if kind in kinds and found
    }
    return FleetLists(texts, sum(len(entries[kind]) for kind in KINDS if kind not in kinds))


def set_fleet(texts: t.Mapping[str, str]) -> Edit:
    """Return the edit that makes these, by kind, the lists of the fleet; other kinds are removed."""

    def edit(state: State) -> State:
        allow, deny = _with(state.allow, texts.get("allow")), _with(state.deny, texts.get("deny"))
        return state._replace(allow=allow, deny=deny)

    return edit


def limit_fleet(kinds: t.Collection[str]) -> Edit:
    """Return the edit that removes the fleet's lists of kinds that this host does not take any more."""

    def edit(state: State) -> State:
        allow = state.allow if "allow" in kinds else _with(state.allow, None)
        deny = state.deny if "deny" in kinds else _with(state.deny, None)
        return state._replace(allow=allow, deny=deny)

    return edit


def _with(lists: t.Mapping[str, str], text: str | None) -> t.Mapping[str, str]:
    """Return drop-ins with another text of the fleet; None: without one. The same ones if nothing changes."""
    found = DropIns.of(lists)
    return lists if found.get(FLEET) == text else found.replaced(FLEET, text)


_REMEDY = "the lists of the fleet stay as they were"


def _items(lists: dict[str, t.Any], kind: str) -> t.Iterator[tuple[str, t.Any]]:
    """Yield the items of a kind, each with where it is."""
    for name, found in lists.items():
        where = f"{kind} of list {shorten(name)}"
        items = found.get(kind, []) if isinstance(found, dict) else None
        if not isinstance(items, list):
            raise InvalidInput(f"{where} is not a list of entries")
        for index, item in enumerate(items):
            yield f"{where}[{index}]", item


def _entries(items: t.Iterable[tuple[str, t.Any]]) -> dict[Prefix, Entry]:
    found: dict[Prefix, Entry] = {}
    for where, item in items:
        try:
            entry = _entry(item)
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {error}") from None
        found[entry.prefix] = _longer(found.get(entry.prefix, entry), entry)
    return found


def _entry(item: t.Any) -> Entry:
    """Return an entry. Fields that this version does not know are ignored."""
    if not isinstance(item, dict):
        raise InvalidInput(f"{shorten(item)} is not an entry: an object with an address is needed")
    comment, expires = item.get("comment"), item.get("expires")
    if comment is not None and (not isinstance(comment, str) or len(comment) > MAX_COMMENT):
        raise InvalidInput(f"comment is not a text of at most {MAX_COMMENT} characters")
    if is_number(expires, _MAX_TIME):
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
    entry = entry_from_item(
        {"address": item.get("address"), "comment": comment, "expires": expires}
    )
    shortest = _SHORTEST[entry.prefix.family]
    if entry.prefix.length < shortest:
        raise InvalidInput(f"{entry.text} is too wide: the fleet may list /{shortest} and longer")
    return entry


def _longer(one: Entry, other: Entry) -> Entry:
    if one.expires is None or other.expires is None:
        return one if one.expires is None else other
    return max(one, other, key=lambda entry: expires_at(entry.expires or ""))
