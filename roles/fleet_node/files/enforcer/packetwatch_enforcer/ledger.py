# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An enforcer's own pages: rows go into the open page of their bucket. No input, no output, no clock."""

from __future__ import annotations

import json
import typing as t

from packetwatch_core._base.number import read_whole
from packetwatch_core._node.keys import (
    BANS,
    GRACE,
    MAX_BYTES,
    MAX_ROWS,
    OPEN_ROWS,
    bucket_of,
    page_key,
)
from packetwatch_fleet.pages import EVIDENCE, VERSION, Row

# Rows that wait to be written. Hosts take 10,000 bans.
MAX_PENDING = 20_000
_MAX_NUMBER = 10**12


class Page(t.NamedTuple):
    """A value to write. ends: the store's time at which its lease ends."""

    key: str
    value: bytes
    ends: float


class Ledger:
    """The pages of the enforcer `name`."""

    def __init__(self, name: str) -> None:
        self.folder = f"{BANS}{name}/"
        self.pending: dict[str, Row] = {}
        """Rows that no page has yet, by source."""
        self._next: dict[int, int] = {}
        """The number of the next page of each bucket."""
        self._open: dict[int, tuple[str, list[str]]] = {}
        """The last page of each bucket, with the texts of its rows."""

    def know(self, key: str, value: bytes) -> None:
        """The store has this page. It is not overwritten if it is from another run, or if somebody has changed it."""
        for bucket, (own, texts) in list(self._open.items()):
            if own == key and value != _value(texts):
                del self._open[bucket]
        words = key.removeprefix(self.folder).split("-")
        numbers = [read_whole(word, _MAX_NUMBER) for word in words]
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            return
        bucket, number = numbers[0], numbers[1]
        if self._next.get(bucket, 0) <= number:
            self._next[bucket] = number + 1
            self._open.pop(bucket, None)

    def close(self, key: str) -> None:
        """A page is gone. Its rows must not come back with the next ones."""
        self._open = {bucket: page for bucket, page in self._open.items() if page[0] != key}

    def add(self, source: str, row: Row) -> bool:
        """Take a row for the next page; return whether there is room."""
        if len(self.pending) >= MAX_PENDING and source not in self.pending:
            return False
        former = self.pending.get(source)
        if former:
            # What the fold makes of both: the later end, and the stronger evidence.
            strong = max(row, former, key=lambda one: EVIDENCE.index(one.evidence))
            # Of SYNs, a ban ends some time after it was made, so the later one counts.
            row = strong._replace(
                until=max(row.until, former.until), made=max(row.made, former.made)
            )
        self.pending[source] = row
        return True

    def commit(self, now: float, most: int) -> list[Page]:
        """Up to `most` pages with rows that wait. Rows without a page go on waiting."""
        self._next = {bucket: number for bucket, number in self._next.items() if bucket >= now}
        self._open = {bucket: page for bucket, page in self._open.items() if bucket >= now}
        groups: dict[int, list[str]] = {}
        for source, row in self.pending.items():
            groups.setdefault(bucket_of(row.until, now), []).append(source)
        pages: list[Page] = []
        for bucket, sources in groups.items():
            while sources and len(pages) < most:
                key, texts = self._page(bucket)
                size = sum(map(len, texts)) + len(texts)
                while sources and len(texts) < MAX_ROWS:
                    text = _text(sources[0], self.pending[sources[0]])
                    size += len(text) + 1
                    if size > MAX_BYTES:
                        break
                    texts.append(text)
                    del self.pending[sources.pop(0)]
                pages.append(Page(key, _value(texts), bucket + GRACE))
        return pages

    def _page(self, bucket: int) -> tuple[str, list[str]]:
        """The page that gets the next rows of a bucket."""
        found = self._open.get(bucket)
        if found is None or len(found[1]) >= OPEN_ROWS:
            number = self._next.get(bucket, 0)
            self._next[bucket] = number + 1
            found = self._open[bucket] = page_key(self.folder, bucket, number), []
        return found


def _text(source: str, row: Row) -> str:
    columns = [source, row.until, row.made, row.rule, row.evidence, row.seen]
    return json.dumps(columns, separators=(",", ":"))


def _value(texts: t.Iterable[str]) -> bytes:
    return f'{{"v":{VERSION},"bans":[{",".join(texts)}]}}'.encode()
