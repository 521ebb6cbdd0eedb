# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's Chromium without a screen, driven over a pipe by its own protocol.

It runs in its unpacked packages and in a network namespace of the tests, so it reaches nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet import software

_START = """
mount --make-rprivate /
mkdir -p {tree}/proc {tree}/dev {tree}/tmp
mount --bind /dev {tree}/dev
mount -t proc proc {tree}/proc
mount -t tmpfs tmpfs {tree}/tmp
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 chroot {tree} {command}
"""
_COMMAND = (
    "/usr/lib/chromium/chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions "
    "--ignore-certificate-errors --hide-scrollbars --user-data-dir=/tmp/profile --remote-debugging-pipe"
)
# Of an answer. The first one comes when the browser has started, which may take a minute on a machine with other work.
_PATIENCE = 180.0
_END = b"\0"
# Of key events.
_KEYS = {"Tab": 9, "Enter": 13}


class Browser:
    """The browser's process, and the pipe to it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        script = _START.format(tree=software.chromium(), command=_COMMAND)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The protocol wants descriptors 3 and 4.
        wrapped = f"exec 3<&{theirs_in} 4>&{theirs_out}\n{script}"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc", wrapped],
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs_in, theirs_out),
                start_new_session=True,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._number = 0
        self._contexts: list[str] = []
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open_page(self) -> str:
        """Open an empty page that shares nothing with others; return its number."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        self._contexts.append(context)
        page = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        return str(page["targetId"])

    def close_pages(self) -> None:
        while self._contexts:
            self.call("Target.disposeBrowserContext", browserContextId=self._contexts.pop())

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        text = json.dumps(message | ({"sessionId": session} if session else {}))
        os.write(self._out, text.encode() + _END)
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Wait for an event since the last `forget`."""
        while not any(
            one.get("method") == method and one.get("sessionId") == session for one in self.events
        ):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while _END not in self._buffer:
            left = deadline - time.monotonic()
            ready = select.select([self._in], [], [], max(left, 0))[0]
            assert ready, f"the browser does not answer: {self._words()}"
            data = os.read(self._in, 1 << 20)
            assert data, f"the browser has ended: {self._words()}"
            self._buffer += data
        line, dummy, self._buffer = self._buffer.partition(_END)
        found: dict[str, Any] = json.loads(line)
        return found

    def _words(self) -> str:
        """The end of what it has logged."""
        return self._log.read_text(errors="replace")[-4000:]


class Tab:
    """A page that is open. width, height: of the window, in CSS pixels."""

    def __init__(
        self,
        browser: Browser,
        width: int = 1280,
        height: int = 900,
        *,
        dark: bool = False,
        javascript: bool = True,
    ) -> None:
        self._browser = browser
        browser.events.clear()
        attached = browser.call("Target.attachToTarget", targetId=browser.open_page(), flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        # As if it were in front of a person.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Page.bringToFront")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not javascript)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Go to a page; return when it is loaded."""
        self._browser.events[:] = [
            one for one in self._browser.events if one.get("method") != "Page.loadEventFired"
        ]
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self._browser.wait("Page.loadEventFired", self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, also where the page's own scripts are off."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def screenshot(self, path: Path) -> None:
        """Write the whole page, not only what the window shows."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def requests(self) -> list[str]:
        """The URLs that were asked for."""
        return [
            one["params"]["request"]["url"] for one in self._events("Network.requestWillBeSent")
        ]

    def complaints(self) -> list[Any]:
        """What the console has: errors and warnings of the browser, and of the page's scripts."""
        logged = [
            one["params"]["entry"]["text"]
            for one in self._events("Log.entryAdded")
            if one["params"]["entry"]["level"] in ("warning", "error")
        ]
        written = [one["params"] for one in self._events("Runtime.consoleAPICalled")]
        return logged + written + [one["params"] for one in self._events("Runtime.exceptionThrown")]

    def _events(self, method: str) -> list[dict[str, Any]]:
        # What has happened so far is in the pipe before the answer to this.
        self.call("Runtime.evaluate", expression="0")
        return [
            one
            for one in self._browser.events
            if one.get("method") == method and one.get("sessionId") == self._session
        ]


@contextlib.contextmanager
def browser(log: Path) -> Iterator[Browser]:
    """A browser in the present network namespace."""
    found = Browser(log)
    try:
        yield found
    finally:
        found.close()
