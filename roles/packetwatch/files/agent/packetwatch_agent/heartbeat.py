# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends the host's health to a URL at regular intervals; its receiver notices when they stop.

Imported only where a URL is set. A thread for each message waits for the network; the loop never does.
"""

from __future__ import annotations

import json
import threading
import time
import typing as t

from packetwatch_core._network.endpoints import Url

from . import __version__, beat
from .loop import Loop
from .metrics import COUNTER, GAUGE, Rows, Values
from .output import Output
from .part import Part

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


class Heartbeat(Part):
    """Sends the result of `problems` to `url`; the status is up if there are none."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_heartbeat_last_success_timestamp_seconds": (
            GAUGE,
            "When a heartbeat was last received, 0 if none was since the agent's start.",
        ),
        "packetwatch_heartbeat_failures_total": (COUNTER, "Heartbeats that could not be sent."),
    }

    def __init__(
        self, url: Url, interval: float, output: Output, problems: t.Callable[[], list[str]]
    ) -> None:
        self._url = url
        self._interval = interval
        self._output = output
        self._problems = problems
        self._thread: threading.Thread | None = None
        self._error: str | None = None
        """Error of the last message; empty: it was received, None: not known yet, or already logged."""
        self._logged = ""
        self._succeeded = 0.0
        self._failures = 0

    def begin(self, loop: Loop) -> None:
        loop.after(0, self._beat)

    def values(self) -> Values:
        """Metrics of the heartbeat."""
        return {
            "packetwatch_heartbeat_last_success_timestamp_seconds": [({}, self._succeeded)],
            "packetwatch_heartbeat_failures_total": [({}, self._failures)],
        }

    def _beat(self) -> float:
        if self._thread and self._thread.is_alive():
            self._error = "it takes longer than the interval"
        else:
            request = message(self._url, self._output.host, self._problems())
            self._thread = threading.Thread(target=self._send, args=(request,), daemon=True)
            self._thread.start()
        # The error of the message before: only the loop writes to the log, never the thread.
        error, self._error = self._error, None
        if error and error != self._logged:
            self._output.say("warn", f"no heartbeat to {self._url.host}: {error}")
        if error is not None:
            self._logged = error
        return self._interval

    def _send(self, request: bytes) -> None:
        try:
            by = beat.send_by_tls if self._url.is_secure else beat.send
            by(self._url.host, self._url.port, request)
        except (OSError, ValueError) as error:
            self._failures += 1
            self._error = str(error) or type(error).__name__
        else:
            self._error = ""
            self._succeeded = time.time()


def message(url: Url, host: str, problems: t.Sequence[str]) -> bytes:
    """The request; ``{status}`` and ``{problems}`` in the URL's path are filled in."""
    status = "down" if problems else "up"
    body = json.dumps(
        {"host": host, "status": status, "problems": list(problems), "version": __version__}
    ).encode()
    path = url.path.replace("{status}", status)
    path = path.replace("{problems}", _quoted("; ".join(problems) or "none"))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {url.authority}\r\nUser-Agent: packetwatch/{__version__}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _quoted(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())
