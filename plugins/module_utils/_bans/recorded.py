# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Events as agents have logged them (docs/events.md), read from files of JSON lines.

The agent writes a batch of lines at a time, and its connections before all others. So lines are merged again within
a bounded window.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import gzip
import heapq
import json
import os
import sys
import typing as t
import zlib

from .._base.errors import InvalidInput, Unreadable

if t.TYPE_CHECKING:
    import io

# The agent writes batches of 1,024 events.
_WINDOW = 4096
_MAX_LINE = 65536
_GZIP = b"\x1f\x8b"
_STANDARD_INPUT = "-"
_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)
_EXPORT = "journalctl -u packetwatch -o cat > FILE"

Fields = dict[str, t.Any]


class Line(t.NamedTuple):
    """One line: its time in nanoseconds (Unix time), and its fields by their names."""

    time: int
    fields: Fields

    @property
    def host(self) -> str:
        """The host that has logged the line; empty if the line does not say it."""
        return text_of(self.fields, "host.name")

    @property
    def action(self) -> str:
        """What happened; empty for a message of the agent itself."""
        return text_of(self.fields, "event.action")


class Recording:
    """Files of one or more hosts, read as one series of lines by their times.

    paths: files, which may be compressed by gzip; ``-`` is standard input. The name of a file up to its first dot is the
    host of lines that name none. Iterating raises `Unreadable`, or
    `InvalidInput` if a file has no line of an agent.
    """

    def __init__(self, paths: t.Sequence[str]) -> None:
        self._paths = paths
        self.skipped = 0
        """Lines that no agent has written, such as those of systemd."""

    def __iter__(self) -> t.Iterator[Line]:
        with contextlib.ExitStack() as stack:
            series = [self._lines(path, stack) for path in self._paths]
            yield from heapq.merge(*series, key=_time_of)

    def _lines(self, path: str, stack: contextlib.ExitStack) -> t.Iterator[Line]:
        try:
            source = stack.enter_context(_open(path))
            yield from _sorted(self._parsed(path, source))
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise Unreadable(f"cannot read {path}: {reason}") from error

    def _parsed(self, path: str, source: t.IO[bytes]) -> t.Iterator[Line]:
        found = False
        host = "" if path == _STANDARD_INPUT else os.path.basename(path).partition(".")[0]
        while data := source.readline(_MAX_LINE):
            line = parse(data)
            if line is None:
                self.skipped += 1
            else:
                found = True
                line.fields.setdefault("host.name", host)
                yield line
        if not found:
            raise InvalidInput(
                f"{path} has no line of the agent: export its journal with {_EXPORT}"
            )


def parse(data: bytes) -> Line | None:
    """A line of an agent; None if it is something else."""
    # The agent puts a priority before an alert if the journal reads it.
    start = data.find(b"{", 0, 4)
    if start < 0:
        return None
    try:
        fields = json.loads(data[start:])
    except (ValueError, RecursionError):
        return None
    time = parse_time(fields.get("@timestamp")) if isinstance(fields, dict) else None
    return None if time is None else Line(time, fields)


def parse_time(value: t.Any) -> int | None:
    """The nanoseconds (Unix time) of a time in a line; None if it is not one."""
    try:
        # Times are UTC, and say so by a Z.
        moment = datetime.datetime.fromisoformat(value.removesuffix("Z"))
        return (moment - _EPOCH) // _MICROSECOND * 1000
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None


def text_of(fields: t.Mapping[str, t.Any], name: str) -> str:
    """The text in a field; empty if there is none."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def number_of(fields: t.Mapping[str, t.Any], name: str) -> int:
    """The whole number in a field; 0 if there is none."""
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _time_of(line: Line) -> int:
    return line.time


def _sorted(lines: t.Iterable[Line]) -> t.Iterator[Line]:
    """The connections of each batch among its other lines, by their times.

    Both kinds keep their own order, which is that of the packets. Their times are less exact: those of one batch differ
    from those of the next by some microseconds.
    """
    series: dict[tuple[str, bool], collections.deque[Line]] = {}
    # The time of the first line of each series, and its key, which decides between equal times.
    heads: list[tuple[int, tuple[str, bool]]] = []
    size = 0

    def take() -> Line:
        key = heapq.heappop(heads)[1]
        line = series[key].popleft()
        if series[key]:
            heapq.heappush(heads, (series[key][0].time, key))
        return line

    for line in lines:
        key = line.host, line.action != "connection"
        found = series.setdefault(key, collections.deque())
        found.append(line)
        if len(found) == 1:
            heapq.heappush(heads, (line.time, key))
        size += 1
        if size > _WINDOW:
            yield take()
            size -= 1
    while heads:
        yield take()


@contextlib.contextmanager
def _open(path: str) -> t.Iterator[t.IO[bytes]]:
    """The bytes of a file or of standard input, without their compression."""
    with contextlib.ExitStack() as stack:
        raw = sys.stdin.buffer if path == _STANDARD_INPUT else stack.enter_context(open(path, "rb"))
        source = t.cast("io.BufferedReader", raw)
        if source.peek(2)[:2] == _GZIP:
            yield t.cast("t.IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=source)))
        else:
            yield source
