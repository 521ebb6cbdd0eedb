# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Bans and lifts in the store of a fleet, as plays and the API make them.

Decisions are rows of pages: bans below ``bans/ENFORCER/``, lifts below ``lifts/``. Plays and the API write as the
enforcer `OWN`. A source is banned until the latest end of the rows that were made after its last lift. A page's name has the
end of its bucket, and its lease ends ten minutes later, so that etcd removes whole pages. Times are Unix seconds of
the node on which this runs.
"""

from __future__ import annotations

import base64
import json
import math
import time
import typing as t

from .._base.address import Prefix, format_prefix, parse_prefix
from .._base.errors import InvalidInput, PacketwatchError
from .._base.number import MAX_TIME, is_a, is_number
from .gateway import below, encoded
from .keys import (
    BANS,
    GRACE,
    HOSTS,
    LIFTS,
    LISTS,
    MAX_BYTES,
    MAX_ROWS,
    OPEN_ROWS,
    bucket_of,
    page_key,
)

if t.TYPE_CHECKING:
    from .gateway import Gateway, Json
    from .never import Never

OWN, RULE, EVIDENCE = "api", "play", "manual"
MAX_DURATION, MAX_REASON = 366 * 86400.0, 200

# etcd takes 128 operations and 1.5 MB in a transaction. A list, which has up to 1 MB, may be in it too.
_MAX_OPERATIONS, _MAX_TRANSACTION = 100, 1_200_000
ATTEMPTS = 10
"""How often a change is planned anew because another writer was first."""
_OWN_PAGES = f"{BANS}{OWN}/"
_COLUMNS = {BANS: 6, LIFTS: 3}


class Ban(t.NamedTuple):
    """A decision in force: the row that lasts longest, of the enforcer that has written it."""

    source: str
    until: float
    made: float
    enforcer: str
    rule: str
    evidence: str
    hosts: int
    reason: str

    def lasts(self, seconds: float) -> bool:
        """Whether it was made for so long."""
        return abs(self.until - self.made - seconds) < 1


class Changed(t.NamedTuple):
    """Texts for a diff: a line for each source."""

    sources: list[str]
    before: str
    after: str

    @property
    def is_change(self) -> bool:
        return self.before != self.after


class _Page(t.NamedTuple):
    """A value of the store. revision 0: there is none yet."""

    key: str
    revision: int
    lease: str
    rows: tuple[tuple[t.Any, ...], ...]


class Snapshot:
    """All decisions at one revision."""

    def __init__(self, gateway: Gateway) -> None:
        self.revision = 0
        """The newest revision of a decision."""
        self.now = time.time()
        self.pages = {BANS: self._read(gateway, BANS), LIFTS: self._read(gateway, LIFTS)}
        self._lifted: dict[str, float] = {}
        for page in self.pages[LIFTS]:
            for source, before, *dummy in page.rows:
                self._lifted[source] = max(self._lifted.get(source, -1.0), before)
        self._newest: dict[str, float] = {}
        for page in self.pages[BANS]:
            for source, dummy2, made, *dummy3 in page.rows:
                self._newest[source] = max(self._newest.get(source, -1.0), made)

    def _read(self, gateway: Gateway, prefix: str) -> list[_Page]:
        found = []
        for key, value, item in items(gateway, prefix):
            self.revision = max(self.revision, int(item.get("mod_revision", 0)))
            rows = tuple(_rows(value, prefix))
            lease = str(item.get("lease", "0"))
            found.append(_Page(key, int(item.get("mod_revision", 0)), lease, rows))
        return found

    def bans(self) -> dict[str, Ban]:
        """All bans in force, by source."""
        found: dict[str, Ban] = {}
        for page in self.pages[BANS]:
            enforcer = page.key.removeprefix(BANS).partition("/")[0]
            for row in page.rows:
                ban = _ban(row, enforcer)
                if ban.until <= self.now or ban.made <= self._lifted.get(ban.source, -1.0):
                    continue
                former = found.get(ban.source)
                if former is None or former.until < ban.until:
                    found[ban.source] = ban
        return found

    def lifted(self, source: str) -> float:
        """What was made until then does not count for a source; -1 if nothing was lifted."""
        return self._lifted.get(source, -1.0)

    def newest(self, source: str) -> float:
        """When the newest row of a source was made, -1 without one."""
        return self._newest.get(source, -1.0)

    def changed(self, source: str) -> int:
        """The revision of the last change of a page that has the source, 0 without one."""
        pages = (page for pages in self.pages.values() for page in pages)
        return max(
            (page.revision for page in pages if any(row[0] == source for row in page.rows)),
            default=0,
        )


class Draft:
    """Changes of pages, which the store makes all at once, or not at all if it has changed meanwhile.

    A draft that `is_full` must be committed, and the rest planned anew.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._now = snapshot.now
        self._pages = {page.key: page for pages in snapshot.pages.values() for page in pages}
        self._rows = {key: list(page.rows) for key, page in self._pages.items()}
        self._changed: dict[str, None] = {}
        """Keys of pages with other rows, in the order of the changes."""
        self._own: dict[str, set[str]] = {}
        """The pages that have rows of plays and the API for a source."""
        self._at: dict[str, int] = {}
        """The number of the page that got the last row of a bucket: those before it are full."""
        self._ends: dict[str, int] = {}
        self._values: dict[str, tuple[int, str | None]] = {}
        for key, rows in self._rows.items():
            if key.startswith(_OWN_PAGES):
                for row in rows:
                    self._own.setdefault(row[0], set()).add(key)

    @property
    def is_full(self) -> bool:
        """Whether a transaction has no room for another source."""
        count = len(self._changed) + len(self._values)
        size = sum(len(text or "") for dummy, text in self._values.values())
        return count >= _MAX_OPERATIONS or (
            size + MAX_BYTES * len(self._changed) >= _MAX_TRANSACTION
        )

    def ban(self, source: str, seconds: float, rule: str, reason: str) -> Ban:
        """Ban a source in place of what plays and the API have decided on it."""
        # It must be later than the last lift, which may be of a node whose clock is ahead.
        moment = round(max(self._now, self._snapshot.lifted(source) + 0.2), 1)
        until = round(moment + seconds, 1)
        row = (source, until, moment, rule, EVIDENCE, 0, reason[:MAX_REASON])
        self.withdraw(source)
        self.add(_OWN_PAGES, row, until)
        return _ban(row, OWN)

    def lift(self, source: str, hold: float, until: float = 0.0) -> None:
        """Lift all bans of a source. until: the end of the last one, because the lift must outlast it."""
        # Not rounded: it must not be earlier than any row that it lifts.
        moment = max(round(self._now, 1), self._snapshot.newest(source))
        held = round(self._now + hold, 1)
        self.withdraw(source)
        self.add(LIFTS, (source, moment, held), max(held, until))

    def put(self, key: str, revision: int, value: str | None) -> None:
        """Write another value too, or delete it, if it still has its revision; 0: it must not exist."""
        self._values[key] = revision, value

    def add(self, folder: str, row: tuple[t.Any, ...], end: float) -> None:
        """Add a row to an open page below a folder. end: until when it counts."""
        bucket = bucket_of(end, self._now)
        first = page_key(folder, bucket, 0)
        for number in range(self._at.get(first, 0), 1000):
            key = page_key(folder, bucket, number)
            page = self._pages.get(key)
            if page and len(page.rows) >= OPEN_ROWS:
                continue
            rows = [*self._rows.get(key, ()), row]
            if len(rows) <= MAX_ROWS and len(_text(folder, rows)) < MAX_BYTES:
                self._rows[key] = rows
                self._ends[key] = bucket
                self._at[first] = number
                self._changed[key] = None
                if folder == _OWN_PAGES:
                    self._own.setdefault(row[0], set()).add(key)
                return
        raise PacketwatchError(
            f"the pages of {folder}{bucket} are full: lift bans, or use longer ones"
        )

    def withdraw(self, source: str) -> None:
        """Remove the rows that plays have made for a source."""
        for key in self._own.pop(source, ()):
            self._rows[key] = [row for row in self._rows[key] if row[0] != source]
            self._changed[key] = None

    def commit(self, gateway: Gateway) -> int | None:
        """Write what has changed; return its revision, 0 if nothing has, None if another writer was first."""
        compare: list[Json] = []
        success: list[Json] = []
        for key in self._changed:
            rows = self._rows[key]
            page = self._pages.get(key) or _Page(key, 0, "0", ())
            if tuple(rows) == page.rows:
                continue
            compare.append(_unchanged(key, page.revision))
            if rows:
                lease = page.lease if page.lease != "0" else self._lease(gateway, key)
                success.append(_put(key, _text(key, rows)) | {"lease": lease})
            else:
                success.append({"key": encoded(key)})
        for key, (revision, value) in self._values.items():
            compare.append(_unchanged(key, revision))
            success.append({"key": encoded(key)} if value is None else _put(key, value))
        if not success:
            return 0
        requests = [
            {"request_put" if "value" in one else "request_delete_range": one} for one in success
        ]
        answer = gateway.call("/v3/kv/txn", {"compare": compare, "success": requests})
        return int(answer["header"]["revision"]) if answer.get("succeeded") else None

    def _lease(self, gateway: Gateway, key: str) -> str:
        """A lease that ends some time after the page's bucket."""
        seconds = math.ceil(self._ends[key] - self._now) + GRACE
        return str(gateway.call("/v3/lease/grant", {"TTL": str(seconds), "ID": "0"})["ID"])


def ban(
    gateway: Gateway,
    addresses: t.Sequence[str],
    seconds: float,
    reason: str,
    check: bool,
    never: Never,
) -> Changed:
    """Ban sources on all hosts of the fleet; raises `InvalidInput` if one must not be banned.

    never: what nobody bans whatever the store has. A ban by a play that is in force and has the same length stays as it
    is, so that a play is idempotent.
    """
    sources = [source_of(address) for address in addresses]

    def draft(snapshot: Snapshot) -> tuple[Draft, Changed]:
        made = Draft(snapshot)
        bans = snapshot.bans()
        before = after = ""
        for source in dict.fromkeys(sources):
            present = bans.get(source)
            line = _line(present)
            before += line
            if present and present.enforcer == OWN and present.lasts(seconds):
                after += line
                continue
            after += f"{source} banned for {seconds:.0f} s ({OWN}/{RULE})\n"
            if not made.is_full:
                made.ban(source, seconds, RULE, reason)
        return made, Changed(sources, before, after)

    _check_allowed(gateway, sources, never)
    return _carry_out(gateway, draft, check)


def lift(gateway: Gateway, addresses: t.Sequence[str], hold: float, check: bool) -> Changed:
    """Lift the bans of all enforcers on sources. hold: for so long, enforcers do not ban them again."""
    sources = [source_of(address) for address in addresses]

    def draft(snapshot: Snapshot) -> tuple[Draft, Changed]:
        made = Draft(snapshot)
        bans = snapshot.bans()
        before = ""
        for source in dict.fromkeys(sources):
            present = bans.get(source)
            if present is None:
                continue
            before += _line(present)
            if not made.is_full:
                made.lift(source, hold, present.until)
        return made, Changed(sources, before, "")

    return _carry_out(gateway, draft, check)


def source_of(address: str) -> str:
    """The source of an address: an IPv4 address, an IPv6 /64, or with /128 a single IPv6 address."""
    prefix = parse_prefix(address)
    if prefix.family == 6 and prefix.is_host and "/" not in address:
        prefix = Prefix(6, prefix.value >> 64 << 64, 64)
    if not (prefix.is_host or (prefix.family == 6 and prefix.length == 64)):
        raise InvalidInput(
            f"{address} is a network: ban one address or one IPv6 /64; deny networks by list"
        )
    return format_prefix(prefix)


def items(gateway: Gateway, prefix: str) -> t.Iterator[tuple[str, t.Any, Json]]:
    """Key, value and metadata of each key below a prefix; a value that is not an object is left out."""
    key, end = below(prefix)
    for item in gateway.call("/v3/kv/range", {"key": key, "range_end": end}).get("kvs", ()):
        try:
            name = base64.b64decode(item["key"]).decode()
            value = json.loads(base64.b64decode(item.get("value", "")))
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
        if isinstance(value, dict) and is_a(value.get("v"), int) and value["v"] == 1:
            yield name, value, item


def _carry_out(
    gateway: Gateway, draft: t.Callable[[Snapshot], tuple[Draft, Changed]], check: bool
) -> Changed:
    """Write what is drafted, many sources in several transactions; return what the first draft says of all of them."""
    planned: Changed | None = None
    failed = 0
    while failed < ATTEMPTS:
        made, changed = draft(Snapshot(gateway))
        planned = planned or changed
        if check or not changed.is_change:
            return planned
        if made.commit(gateway) is None:
            failed += 1
        elif not made.is_full:
            return planned
    raise PacketwatchError(
        f"the store has changed {ATTEMPTS} times meanwhile, and nothing was written: try again"
    )


def _check_allowed(gateway: Gateway, sources: t.Iterable[str], never: Never) -> None:
    """Raise `InvalidInput` for a source that nobody bans."""
    for prefix in (HOSTS, LISTS):
        for key, dummy, item in items(gateway, prefix):
            never.put(key, base64.b64decode(item["value"]))
    for source in sources:
        if why := never.refused(source):
            raise InvalidInput(f"{source} is never banned: {why}")


def _text(key: str, rows: t.Sequence[t.Any]) -> str:
    """The value of a page. Only ASCII, so its length is that of its bytes."""
    word = "lifts" if key.startswith(LIFTS) else "bans"
    return json.dumps({"v": 1, word: rows}, separators=(",", ":"))


def _rows(value: t.Any, prefix: str) -> t.Iterator[tuple[t.Any, ...]]:
    """The rows of a page that can be understood; columns of a later version stay."""
    rows = value.get("bans" if prefix == BANS else "lifts")
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, list) or len(row) < _COLUMNS[prefix]:
            continue
        if isinstance(row[0], str) and all(is_number(moment, MAX_TIME) for moment in row[1:3]):
            yield tuple(row)


def _ban(row: tuple[t.Any, ...], enforcer: str) -> Ban:
    source, until, made, rule, evidence, hosts = row[:6]
    reason = row[6] if len(row) > 6 and isinstance(row[6], str) else ""
    count = hosts if is_a(hosts, int) else 0
    return Ban(source, float(until), float(made), enforcer, str(rule), str(evidence), count, reason)


def _line(found: Ban | None) -> str:
    if found is None:
        return ""
    seconds = f"{found.until - found.made:.0f}"
    return f"{found.source} banned for {seconds} s ({found.enforcer}/{found.rule})\n"


def _unchanged(key: str, revision: int) -> Json:
    """The condition that a key still has a revision; 0: that it does not exist."""
    same = {"target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
    return {"key": encoded(key), **same}


def _put(key: str, value: str) -> Json:
    return {"key": encoded(key), "value": encoded(value)}
