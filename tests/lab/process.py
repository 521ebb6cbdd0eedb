# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Start commands, print progress, and end processes by identity instead of by number."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_BEGAN = time.monotonic()
# Silence for longer looks like a standstill.
_SILENCE = 10.0


def say(text: str) -> None:
    """Print one progress line to stderr, with the seconds since this process began."""
    print(f"[{time.monotonic() - _BEGAN:6.1f} s] {text}", file=sys.stderr, flush=True)


class Progress:
    """Steps of something that takes long: each is printed, and again every ten seconds until it ends.

    Use it as a context manager. what: printed before each step.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._step = ""
        self._began = 0.0
        self._event = threading.Event()
        self._ended = False
        self._clock = threading.Thread(target=self._repeat, daemon=True)

    def step(self, text: str) -> None:
        """Begin a step, which ends the one before it."""
        self._step, self._began = text, time.monotonic()
        self._event.set()
        say(f"{self._what}{text}")

    def _repeat(self) -> None:
        while not self._ended:
            if self._event.wait(_SILENCE):
                self._event.clear()
            elif self._step:
                say(f"{self._what}still {self._step} ({time.monotonic() - self._began:.0f} s)")

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended = True
        self._event.set()
        self._clock.join()


def require_root() -> None:
    """Raise LabError unless this process is root's."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces and disk images: run it as root")


def require(tools: Mapping[str, str]) -> None:
    """Check that each command exists. tools: commands with the Debian packages that contain them.

    Raises LabError, which names all missing packages.
    """
    missing = sorted({package for tool, package in tools.items() if not shutil.which(tool)})
    if missing:
        raise LabError(f"commands are missing; install them: apt-get install {' '.join(missing)}")


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 60.0,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output.

    timeout: seconds. env: in place of this process's environment. Raises LabError after that time, if the
    command does not exist, and, with `check`, if its exit status is not 0.
    """
    try:
        result = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            # A command without input must not read the caller's.
            input=stdin or "",
            env=env,
        )
    except FileNotFoundError as error:
        raise LabError(f"no such command: {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:g} s: {' '.join(argv)}") from error
    if check and result.returncode != 0:
        tail = (result.stderr or result.stdout).strip()[-2000:]
        raise LabError(f"status {result.returncode}: {' '.join(argv)}\n{tail}")
    return result


def follow(argv: Sequence[str], heed: Callable[[str], None], *, timeout: float) -> None:
    """Run a command to its end, and give each line of its output to `heed` at once.

    timeout: seconds. Raises LabError, with the end of the output, after that time or if its exit status
    is not 0.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    clock = threading.Timer(timeout, process.kill)
    clock.start()
    lines: list[str] = []
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            heed(lines[-1])
        status = process.wait()
    finally:
        clock.cancel()
        process.kill()
        process.wait()
    if status:
        why = f"status {status}" if status > 0 else f"no end after {timeout:g} s"
        raise LabError("\n".join([f"{why}: {' '.join(argv)}", *lines[-30:]]))


def end(pids: Iterable[int], ours: Callable[[int], bool], *, patience: float = 3.0) -> None:
    """End the processes for which `ours` returns True: SIGTERM, then after `patience` seconds SIGKILL.

    A pidfd is opened before `ours` checks the process, so a reused number is never signalled.
    """
    handles = []
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if pid != os.getpid() and ours(pid):
            handles.append(handle)
        else:
            os.close(handle)
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        handles = _still_running(handles, number, wait)
    for handle in handles:
        os.close(handle)


def _still_running(handles: list[int], number: signal.Signals, wait: float) -> list[int]:
    """Send a signal to all; return the handles of those that have not ended within `wait` seconds."""
    for handle in handles:
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + wait
    while handles and (left := deadline - time.monotonic()) > 0:
        # A pidfd becomes readable when its process has ended.
        gone, _writable, _broken = select.select(handles, [], [], left)
        for handle in gone:
            os.close(handle)
        handles = [handle for handle in handles if handle not in gone]
    return handles


def start_time(pid: int) -> int:
    """Start time of a process, in clock ticks since boot; 0 if it does not exist.

    Number and start time together identify a process until this machine reboots.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # The command's name is in parentheses and may contain spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
