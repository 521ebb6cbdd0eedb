# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes to an etcd from a loop: values that are overwritten, so only the last one of each key is sent."""

from __future__ import annotations

import math
import time
import typing as t

from .backoff import Backoff
from .cluster import Cluster
from .gateway import Session
from .interface import Denied, Unavailable
from .waits import Task, Wait, Waiting


class _Value(t.NamedTuple):
    data: bytes
    ends: float | None


class EtcdWriter:
    """Implements `interface.Writer`."""

    def __init__(self, cluster: Cluster) -> None:
        self.problem = ""
        self._cluster = cluster
        self._waiting: dict[str, _Value] = {}
        self._revision = 0
        """Up to which revision the store is to be compacted; 0: not at all."""
        self._is_idle = False
        self._backoff = Backoff()
        self._task = Task(self._run())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, key: str, value: bytes, *, ends: float | None = None) -> None:
        self._waiting[key] = _Value(value, ends)
        self._wake()

    def compact(self, revision: int) -> None:
        self._revision = revision
        self._wake()

    def _wake(self) -> None:
        if self._is_idle:
            self._task.wake()

    def fileno(self) -> int:
        return self._task.fileno()

    def deadline(self) -> float:
        return self._task.deadline()

    def step(self) -> None:
        self._task.step()

    def close(self) -> None:
        self._task.close()

    def _run(self) -> Waiting[t.NoReturn]:
        attempt = 0
        while True:
            yield from self._idle(None)
            self._backoff.begin()
            session = self._cluster.session(attempt)
            try:
                yield from session.connect()
                yield from self._serve(session)
            except (Unavailable, Denied) as error:
                self.problem = str(error)
                self._cluster.forget_token()
                self._cluster.forget_leases()
                attempt += 1
                yield Wait(None, False, time.monotonic() + self._backoff.pause())
            finally:
                session.close()

    def _serve(self, session: Session) -> Waiting[None]:
        """Write what waits, until the server ends the connection while nothing does."""
        while True:
            # A value that fails is sent again, unless a newer one has come.
            for key, value in list(self._waiting.items()):
                yield from self._cluster.put(session, key, value.data, value.ends)
                self.problem = ""
                if self._waiting.get(key) is value:
                    del self._waiting[key]
            if self._revision and not self._waiting:
                # One that fails is not repeated: the next one forgets more.
                revision, self._revision = self._revision, 0
                yield from self._cluster.compact(session, revision)
            if not self._has_work() and (yield from self._idle(session)):
                return

    def _has_work(self) -> bool:
        return bool(self._waiting or self._revision)

    def _idle(self, session: Session | None) -> Waiting[bool]:
        """Wait until something is to be written; return whether the connection has ended before."""
        while not self._has_work():
            self._is_idle = True
            if session:
                has_ended = yield from session.link.idle(math.inf)
            else:
                has_ended = yield Wait(None, False, math.inf)
            self._is_idle = False
            if has_ended:
                return True
        return False
