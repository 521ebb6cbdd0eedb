# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of all writers: they get it in the order in which they came, whoever dies or stops."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from packetwatch_core._base.errors import Locked
from packetwatch_core._declared import lock
from packetwatch_core._declared.store import Store

WRITERS = 4


class Writers:
    """Child processes that take the lock; each writes a letter to a common file whenever it has it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder / "packetwatch"))
        self._log = folder / "log"
        self._log.touch()
        self._children: list[int] = []

    @property
    def served(self) -> str:
        return self._log.read_text()

    def note(self, name: str) -> None:
        with open(self._log, "a", encoding="ascii") as file:
            file.write(name)

    def start(self, work: Callable[[], object]) -> int:
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                work()
            os._exit(0)
        self._children.append(child)
        return child

    def queue(self, name: str) -> int:
        """Start a writer that takes the lock once; return when it waits."""

        def once() -> None:
            with self.store.lock(20):
                self.note(name)

        child = self.start(once)
        wait(lambda: is_asleep(child))
        time.sleep(0.02)
        return child

    def without_pause(self, name: str) -> None:
        """Start a writer that takes the lock again and again."""

        def always() -> None:
            while os.getppid() != 1:
                with self.store.lock(20):
                    self.note(name)
                    time.sleep(0.002)

        self.start(always)

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self._children.remove(child)

    def join(self) -> None:
        """Wait for the end of all writers."""
        while self._children:
            os.waitpid(self._children.pop(), 0)

    def close(self) -> None:
        for child in list(self._children):
            self.kill(child)


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Writers]:
    found = Writers(tmp_path)
    with found.store.lock(0):
        pass
    yield found
    found.close()


def wait(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def is_asleep(process: int) -> bool:
    """Whether a process waits for something, or has ended."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "SZ"


def test_first_come_first_served(writers: Writers) -> None:
    with writers.store.lock(0):
        for name in "abcdef":
            writers.queue(name)
        assert writers.served == ""
    writers.join()
    assert writers.served == "abcdef"


def test_writers_that_never_pause_let_an_edit_in(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that were there before it, and the one that has the lock, come first."""
    join, before = lock._join, [0]

    def join_and_look(file: int) -> int:
        place = join(file)
        before.append(len(writers.served))
        return place

    monkeypatch.setattr(lock, "_join", join_and_look)
    for number in range(WRITERS):
        writers.without_pause(str(number))
    wait(lambda: len(set(writers.served)) == WRITERS)
    # The first one may have begun long before the last one.
    began = len(writers.served)
    for dummy in range(10):
        with writers.store.lock(20):
            assert len(writers.served) - before[-1] <= WRITERS
        time.sleep(0.01)
    # None of them goes without, either.
    shares = [writers.served.count(str(number), began) for number in range(WRITERS)]
    assert max(shares) <= 2 * min(shares) + 2


def test_dead_waiters_are_passed_over(writers: Writers) -> None:
    with writers.store.lock(0):
        children = [writers.queue(name) for name in "abcd"]
        writers.kill(children[0])
        writers.kill(children[2])
    writers.join()
    assert writers.served == "bd"


def test_a_dead_holder_hands_the_lock_on(writers: Writers) -> None:
    def hold() -> None:
        with writers.store.lock(0):
            writers.note("x")
            time.sleep(60)

    holder = writers.start(hold)
    wait(lambda: writers.served == "x")
    for name in "ab":
        writers.queue(name)
    writers.kill(holder)
    writers.join()
    assert writers.served == "xab"


def test_a_stopped_waiter_does_not_make_others_fail(writers: Writers) -> None:
    with writers.store.lock(0):
        stopped = writers.queue("a")
        os.kill(stopped, signal.SIGSTOP)
    with writers.store.lock(0.3):
        writers.note("b")
    os.kill(stopped, signal.SIGCONT)
    writers.join()
    assert writers.served == "ba"


def test_who_gave_up_holds_nothing(writers: Writers) -> None:
    """A writer that was too impatient may try again, and does not block those after it."""
    with writers.store.lock(0):
        for dummy in range(2):
            with pytest.raises(Locked, match=r"waited 0\.05 s"), writers.store.lock(0.05):
                pass
        writers.queue("a")
    writers.join()
    assert writers.served == "a"
    with writers.store.lock(5):
        pass


# Versions that only take the flock


def test_a_version_without_a_queue_is_excluded_and_excludes(writers: Writers) -> None:
    path = f"{writers.store.root}/lock"
    with open(path, "r+", encoding="ascii") as other:
        with writers.store.lock(0), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Locked), writers.store.lock(0.05):
            pass
        for name in "ab":
            writers.queue(name)
        fcntl.flock(other, fcntl.LOCK_UN)
    writers.join()
    assert writers.served == "ab"


def test_both_versions_never_hold_it_together(writers: Writers, tmp_path: Path) -> None:
    there = tmp_path / "there"

    def enter() -> None:
        there.mkdir()
        writers.note("e")
        there.rmdir()

    def formerly() -> None:
        """As a version without a queue does it, but for its pauses."""
        for dummy in range(100):
            with open(f"{writers.store.root}/lock", "r+", encoding="ascii") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                enter()

    def now() -> None:
        for dummy in range(100):
            with writers.store.lock(20):
                enter()

    for work in (formerly, now, formerly, now):
        writers.start(work)
    writers.join()
    assert writers.served == "e" * 400


# The file


def test_the_file_is_taken_from_other_users(writers: Writers) -> None:
    path = Path(writers.store.root, "lock")
    path.chmod(0o666)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    with writers.store.lock(0):
        found = path.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o600)


def test_a_program_that_locks_all_of_it_delays_nobody(writers: Writers) -> None:
    with open(f"{writers.store.root}/lock", "r+", encoding="ascii") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        child = writers.queue("a")
        os.waitpid(child, 0)
        writers._children.remove(child)
    assert writers.served == "a"
