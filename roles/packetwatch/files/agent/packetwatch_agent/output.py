# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Standard output as JSON lines, a batch at a time: events, and messages of the agent itself."""

from __future__ import annotations

import json
import os
import socket
import time
import typing as t

ECS_VERSION = "8.17.0"
_SECOND = 1_000_000_000
_AT_ONCE = 1024
# In lines as `encode` writes them: quotes inside a text are escaped, so no text contains this.
_ALERT = '"event.kind":"alert"'
# LOG_WARNING, see sd-daemon(3); lines without a prefix have LOG_INFO.
_WARNING = "<4>"
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

Value = str | int | float | bool | t.Sequence[str | int] | None


class Timestamps:
    """Wall-clock nanoseconds as RFC 3339 in UTC with microseconds; remembers the last second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, wall: int) -> str:
        second, rest = divmod(wall, _SECOND)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{rest // 1000:06d}Z"


timestamp = Timestamps()


def encode(fields: t.Mapping[str, Value]) -> str:
    """One JSON object on one line, without the fields that are None."""
    present = {name: value for name, value in fields.items() if value is not None}
    return _ENCODER.encode(present)


class Output:
    """Writes whole lines to a file descriptor; blocks while the reader is too slow."""

    def __init__(self, fd: int = 1, host: str = "", logger: str = "packetwatch_agent") -> None:
        self._fd = fd
        self._logger = logger
        self._is_journal = _is_journal(fd)
        self.host = host or socket.gethostname()
        self.tap: t.Callable[[t.Sequence[str]], None] | None = None
        """Gets every line that is written."""

    def write(self, lines: t.Sequence[str]) -> None:
        """Write the lines. Raises `OSError` if the reader is gone."""
        # In pieces: all lines at once would be in memory three times.
        for at in range(0, len(lines), _AT_ONCE):
            some = lines[at : at + _AT_ONCE]
            if self._is_journal:
                # The journal limits the rate of each priority separately.
                some = [_WARNING + line if _ALERT in line else line for line in some]
            text = "\n".join(some) + "\n"
            data = memoryview(text.encode(errors="replace"))
            while data:
                data = data[os.write(self._fd, data) :]
        if self.tap and lines:
            self.tap(lines)

    def say(self, level: str, message: str, **fields: Value) -> None:
        """Write one line about the agent itself; in names of fields, ``__`` stands for a dot."""
        named = {name.replace("__", "."): value for name, value in fields.items()}
        line: dict[str, Value] = {
            "@timestamp": timestamp(time.time_ns()),
            "ecs.version": ECS_VERSION,
            "log.level": level,
            "log.logger": self._logger,
            "message": message,
            "host.name": self.host,
        }
        self.write([encode(line | named)])


def _is_journal(fd: int) -> bool:
    """Whether systemd's journal is the reader (systemd.exec(5), JOURNAL_STREAM)."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class Trouble:
    """The state of one thing, which may be in trouble: logged when it changes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._logged = ""

    def log(self, text: str) -> None:
        """Log the trouble as a warning if it is new; empty: there is none."""
        if text and text != self._logged:
            self._output.say("warn", text)
        self._logged = text


class Complaints:
    """Warnings, each logged once in the agent's life, and at most so many."""

    MAX = 100

    def __init__(self, output: Output) -> None:
        self._output = output
        self._logged: set[str] = set()

    def __call__(self, text: str) -> None:
        if text not in self._logged and len(self._logged) < self.MAX:
            self._logged.add(text)
            self._output.say("warn", text)
