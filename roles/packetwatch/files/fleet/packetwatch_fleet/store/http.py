# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP/1.1 on one connection, as far as etcd's gateway and a proxy before it need it; all that is read is bounded."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.number import read_whole

from .interface import Unavailable
from .link import Link
from .waits import Waiting

MAX_BODY = 8 << 20
_MAX_LINE, _MAX_HEADERS = 8192, 64
_MAX_LENGTH = 1 << 31
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Head(t.NamedTuple):
    """The status and the headers that matter. date: Unix seconds, None: missing. sent, received: monotonic."""

    status: int
    length: int | None
    """Bytes of the body; None: it comes in chunks."""
    date: int | None
    sent: float
    received: float


class Http:
    """Requests on a link, one after the other."""

    def __init__(self, link: Link, authority: str) -> None:
        self._link = link
        self._authority = authority
        self._data = bytearray()

    def post(
        self, path: str, body: bytes, headers: t.Mapping[str, str], until: float
    ) -> Waiting[Head]:
        """Send a request; return the head of the answer. The body must be read next."""
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self._authority}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        sent = time.monotonic()
        yield from self._link.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body, until)
        line = yield from self._line(until)
        words = line.split(b" ", 2)
        status = read_whole(words[1].decode("ascii", "replace"), 999) if len(words) > 1 else None
        if not line.startswith(b"HTTP/1.") or status is None:
            raise Unavailable(f"the answer is not HTTP: {line[:40]!r}")
        found = yield from self._headers(until)
        length = (
            None
            if "transfer-encoding" in found
            else read_whole(found.get("content-length", "0"), _MAX_LENGTH)
        )
        return Head(status, length, parse_date(found.get("date", "")), sent, time.monotonic())

    def body(self, head: Head, until: float) -> Waiting[bytes]:
        """The whole body."""
        if head.length is not None:
            if head.length > MAX_BODY:
                raise Unavailable(f"an answer has {head.length} bytes, more than {MAX_BODY}")
            return (yield from self._take(head.length, until))
        found = bytearray()
        while piece := (yield from self.chunk(until)):
            found += piece
            if len(found) > MAX_BODY:
                raise Unavailable(f"an answer has more than {MAX_BODY} bytes")
        return bytes(found)

    def chunk(self, until: float) -> Waiting[bytes]:
        """The next chunk of a body in chunks; empty at its end."""
        line = yield from self._line(until)
        try:
            size = int(line.partition(b";")[0][:16], 16)
        except ValueError:
            size = -1
        if not 0 <= size <= MAX_BODY:
            raise Unavailable(f"a chunk of the answer has the size {line[:40]!r}")
        if not size:
            yield from self._headers(until)
            return b""
        data = yield from self._take(size + 2, until)
        return data[:-2]

    def _headers(self, until: float) -> Waiting[dict[str, str]]:
        found: dict[str, str] = {}
        for dummy in range(_MAX_HEADERS):
            line = yield from self._line(until)
            if not line:
                return found
            name, dummy_colon, value = line.decode("latin-1").partition(":")
            found[name.strip().lower()] = value.strip()
        raise Unavailable(f"an answer has more than {_MAX_HEADERS} headers")

    def _line(self, until: float) -> Waiting[bytes]:
        while (end := self._data.find(b"\r\n")) < 0:
            if len(self._data) > _MAX_LINE:
                raise Unavailable(f"a line of an answer is longer than {_MAX_LINE} bytes")
            self._data += yield from self._link.receive(until)
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line

    def _take(self, size: int, until: float) -> Waiting[bytes]:
        while len(self._data) < size:
            self._data += yield from self._link.receive(until)
        data = bytes(self._data[:size])
        del self._data[:size]
        return data


def parse_date(text: str) -> int | None:
    """Unix seconds of a date in HTTP's form; None if it is not one. The module datetime costs two megabytes."""
    words = text.replace(":", " ").split()
    if len(words) != 8 or words[2] not in _MONTHS or words[7] != "GMT":
        return None
    numbers = [read_whole(words[at], 9999) for at in (1, 3, 4, 5, 6)]
    if None in numbers:
        return None
    day, year, hour, minute, second = t.cast("list[int]", numbers)
    if not (1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60):
        return None
    days = _days(year, _MONTHS.index(words[2]) + 1, day)
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date; the year begins in March, so that a leap day is its last."""
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    leap_days = year // 4 - year // 100 + year // 400
    return 365 * year + leap_days + (153 * month + 2) // 5 + day - 719469
