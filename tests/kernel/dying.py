# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that are killed at a certain step of their work, or after a certain time.

A step is a call of libbpf or of the file system that changes something outside the process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from packetwatch_core._kernel import libbpf, programs

_NEVER = 1 << 30
_FILE_CALLS = ("rename", "unlink", "symlink", "mkdir", "rmdir", "chmod", "fsync")


class _Steps:
    """Counts the steps of this process, and kills it before a given one."""

    def __init__(self, fatal: int) -> None:
        self.count = 0
        self._fatal = fatal

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call


class _Library:
    """libbpf, in which every call is a step."""

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps
        self._library = libbpf.library()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self._steps.watched(getattr(self._library, name))


def count_steps(action: Callable[[], object]) -> int:
    """Do the work in a child process; return the number of its steps."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        steps = _arm(_NEVER)
        _finish(action, lambda: os.write(writer, str(steps.count).encode()))
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    text = os.read(reader, 64)
    os.close(reader)
    return int(text)


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Do the work in a child process that is killed before a step; False if it finished earlier."""
    child = os.fork()
    if not child:
        _arm(step)
        _finish(action)
    return _was_killed(child)


def killed_after(seconds: float, action: Callable[[], object]) -> bool:
    """Do the work in a child process that is killed after some time; False if it finished earlier."""
    child = os.fork()
    if not child:
        _finish(action)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return _was_killed(child)


def _was_killed(child: int) -> bool:
    dummy, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, "the child failed"
    return os.WIFSIGNALED(status)


def _arm(fatal: int) -> _Steps:
    steps = _Steps(fatal)
    library = _Library(steps)
    for module in (libbpf, programs):
        vars(module)["library"] = lambda: library
    for name in _FILE_CALLS:
        setattr(os, name, steps.watched(getattr(os, name)))
    return steps


def _finish(action: Callable[[], object], report: Callable[[], object] = lambda: None) -> None:
    status = 1
    try:
        action()
        report()
        status = 0
    finally:
        os._exit(status)
