# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that are killed at a certain step of their work, or after a certain time, or in which a step fails.

A step is a call of libbpf or of the file system that changes something outside the process, or a process that
the library starts (`as_step`). So a new step of a change is walked by itself.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import libbpf, programs

_NEVER = 1 << 30
_FILE_CALLS = ("rename", "unlink", "symlink", "mkdir", "rmdir", "chmod", "fchmod", "chown", "fsync")
# What a full disk refuses.
_GROWING = ("symlink", "mkdir", "fsync", "open")
_BPFFS = "/sys/fs/bpf"
_RUN = "run"
# Functions of libbpf that change nothing. Any other one is a step.
_READS = ("_get_", "_lookup_", "_test_run", "_num_possible", "bpf_obj_get")


class Fault(NamedTuple):
    """What happens at a step.

    error: with which the call fails; 0: the process is killed before it. after: the call fails although it
    has done its work, as a disk may report. lasts: all calls of the disk fail from then on that would with
    this error.
    """

    error: int = 0
    after: bool = False
    lasts: bool = False

    def can_hit(self, name: str, is_on_disk: bool) -> bool:
        """Whether this step is one for the fault. At any other one it would be the same as at the next."""
        if self.lasts:
            return is_on_disk and (name in _GROWING or self.error == errno.EROFS)
        return not self.after or is_on_disk or name == _RUN


FAULTS = {
    "killed": Fault(),
    "EIO": Fault(errno.EIO),
    "EIO afterwards": Fault(errno.EIO, after=True),
    "ENOSPC": Fault(errno.ENOSPC, lasts=True),
    "EROFS": Fault(errno.EROFS, lasts=True),
}


class _Steps:
    """Counts the steps of this process, and does something at a given one."""

    def __init__(self, fatal: int, fault: Fault = FAULTS["killed"]) -> None:
        self.count = 0
        self._fatal = fatal
        self._fault = fault
        self._is_paused = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The calls of a process of its own are no steps of this one."""
        self._is_paused = True
        yield
        self._is_paused = False

    def failing(self, name: str, is_on_disk: bool) -> int:
        """Count a step that the fault can hit; return the error with which it is to fail, or 0."""
        if self._is_paused or not self._fault.can_hit(name, is_on_disk):
            return 0
        self.count += 1
        if self.count < self._fatal or (self.count > self._fatal and not self._fault.lasts):
            return 0
        if not self._fault.error:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._fault.error

    def of_library(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of libbpf, which returns its error. The kernel does what it reports."""

        def call(*arguments: Any) -> Any:
            error = self.failing(name, False)
            return -error if error else function(*arguments)

        return function if any(part in name for part in _READS) else call

    def of_files(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            is_on_disk = not str(path).startswith(_BPFFS)
            error = self.failing(name, is_on_disk)
            if error and not (self._fault.after and is_on_disk):
                raise OSError(error, os.strerror(error), str(path))
            done = function(path, *arguments, **options)
            if error:
                raise OSError(error, os.strerror(error), str(path))
            return done

        return call

    def opener(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`open`, which is a step if the file is written."""
        writing = self.of_files("open", function)

        def call(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            is_step = isinstance(path, str) and mode[0] in "wax"
            return (writing if is_step else function)(path, mode, *arguments, **options)

        return call


_armed: list[_Steps] = []


def as_step(run: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Replace a function that starts processes: each is a step, and fails with a status and a text."""

    def call(argv: Any, stdin: str | None) -> tuple[int, str, str]:
        steps = _armed[-1] if _armed else _Steps(_NEVER)
        error = steps.failing(_RUN, False)
        done = (0, "", "")
        if not error or steps._fault.after:
            with steps.paused():
                done = run(argv, stdin)
        return (1, "", os.strerror(error)) if error else done

    return call


class _Library:
    """libbpf, in which every call that changes something is a step."""

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps
        self._library = libbpf.library()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self._steps.of_library(name, getattr(self._library, name))


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


def outcome_of(step: int, fault: Fault, action: Callable[[], object]) -> str:
    """Do the work in a child process with a fault at a step; return how it ended.

    "killed", "failed" (with an error of the library), "done", or "unharmed" if it has fewer steps.
    """
    child = os.fork()
    if not child:
        status = 1
        try:
            steps = _arm(step, fault)
            try:
                action()
                status = _DONE if steps.count >= step else _UNHARMED
            except (PacketwatchError, OSError):
                status = _FAILED
        finally:
            os._exit(status)
    dummy, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return _OUTCOMES[os.WEXITSTATUS(status)]


_DONE, _FAILED, _UNHARMED = 0, 2, 3
_OUTCOMES = {_DONE: "done", _FAILED: "failed", _UNHARMED: "unharmed"}


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


def _arm(fatal: int, fault: Fault = FAULTS["killed"]) -> _Steps:
    steps = _Steps(fatal, fault)
    _armed.append(steps)
    library = _Library(steps)
    for module in (libbpf, programs):
        vars(module)["library"] = lambda: library
    for name in _FILE_CALLS:
        setattr(os, name, steps.of_files(name, getattr(os, name)))
    builtins.open = steps.opener(open)
    return steps


def _finish(action: Callable[[], object], report: Callable[[], object] = lambda: None) -> None:
    status = 1
    try:
        action()
        report()
        status = 0
    finally:
        os._exit(status)
