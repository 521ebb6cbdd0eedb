# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Standard output as JSON lines: events and the agent's own diagnostics, a batch at a time."""

from __future__ import annotations

import json
import os
import socket
import time
import typing as t

ECS_VERSION = "8.17.0"
_SECOND = 1_000_000_000
_AT_ONCE = 1024
# Of lines as `encode` writes them: no text in one can look like it.
_ALERT = '"event.kind":"alert"'
# LOG_WARNING, as sd-daemon(3) has it; without, a line has LOG_INFO.
_WARNING = "<4>"
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

Value = str | int | float | bool | t.Sequence[str | int] | None


class Timestamps:
    """Wall-clock nanoseconds → RFC 3339 in UTC with microseconds; remembers the last second."""

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
    """One JSON object on one line, without those fields that are None."""
    present = {name: value for name, value in fields.items() if value is not None}
    return _ENCODER.encode(present)


class Output:
    """Writes whole lines to a file descriptor; blocks while the reader does not keep up."""

    def __init__(self, fd: int = 1, host: str = "") -> None:
        self._fd = fd
        self._is_journal = _is_journal(fd)
        self.host = host or socket.gethostname()
        self.tap: t.Callable[[t.Sequence[str]], None] | None = None
        """Sees every line that is written."""

    def write(self, lines: t.Sequence[str]) -> None:
        """Write the lines. Raises `OSError` if nobody reads any more."""
        # In pieces: thousands of lines at once would be in memory three times.
        for at in range(0, len(lines), _AT_ONCE):
            some = lines[at : at + _AT_ONCE]
            if self._is_journal:
                # The journal limits the rate of each priority by itself.
                some = [_WARNING + line if _ALERT in line else line for line in some]
            text = "\n".join(some) + "\n"
            data = memoryview(text.encode(errors="replace"))
            while data:
                data = data[os.write(self._fd, data) :]
        if self.tap and lines:
            self.tap(lines)

    def say(self, level: str, message: str, **fields: Value) -> None:
        """One line about the agent itself; fields by name with ``__`` for a dot."""
        named = {name.replace("__", "."): value for name, value in fields.items()}
        line: dict[str, Value] = {
            "@timestamp": timestamp(time.time_ns()),
            "ecs.version": ECS_VERSION,
            "log.level": level,
            "log.logger": "packetwatch_agent",
            "message": message,
            "host.name": self.host,
        }
        self.write([encode(line | named)])


def _is_journal(fd: int) -> bool:
    """Whether systemd's journal reads what is written (systemd.exec(5), JOURNAL_STREAM)."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class Trouble:
    """What is wrong with one thing: told once, until something else is wrong, or nothing was."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told = ""

    def tell(self, text: str) -> None:
        """Tell it as a warning; empty: nothing is wrong any more."""
        if text and text != self._told:
            self._output.say("warn", text)
        self._told = text
