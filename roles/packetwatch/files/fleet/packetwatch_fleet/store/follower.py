# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follows an etcd: lists, watches from there on, and lists again after anything odd."""

from __future__ import annotations

import collections
import time
import typing as t

from .backoff import Backoff
from .cluster import Cluster
from .gateway import BadToken, Frames, Session, change_of, fields, number, objects, watch_request
from .interface import Change, Denied, Lost, Relisted, Unavailable
from .waits import Task, Wait, Waiting

# A stream that is silent for so long is broken: nodes report their progress every two seconds. So is one that does not
# have all of its watches then.
SILENCE = 6.0


class EtcdFollower:
    """Implements `interface.Follower`."""

    def __init__(self, cluster: Cluster, prefixes: t.Sequence[str]) -> None:
        self.endpoint = ""
        self.heard = 0.0
        self.revision = 0
        self._cluster = cluster
        self._prefixes = prefixes
        self._changes: collections.deque[Change] = collections.deque()
        self._backoff = Backoff()
        self._watches = 0
        """Those that the store has begun."""
        self._task = Task(self._run())

    def fileno(self) -> int:
        return self._task.fileno()

    def deadline(self) -> float:
        return self._task.deadline()

    def step(self) -> list[Change]:
        self._task.step()
        found = list(self._changes)
        self._changes.clear()
        return found

    def close(self) -> None:
        self._task.close()

    def _run(self) -> Waiting[t.NoReturn]:
        attempt = 0
        while True:
            self._backoff.begin()
            session = self._cluster.session(attempt)
            try:
                yield from self._follow(session)
            except (Unavailable, Denied) as error:
                self._changes.append(Lost(str(error)))
                self._cluster.forget_token()
            finally:
                session.close()
                self.endpoint = ""
            attempt += 1
            yield Wait(None, False, time.monotonic() + self._backoff.pause())

    def _follow(self, session: Session) -> Waiting[None]:
        """Return never, but raise."""
        yield from session.connect()
        snapshot = yield from self._cluster.snapshot(session, self._prefixes)
        self.heard = time.monotonic()
        self.endpoint = str(session.endpoint)
        self.revision = snapshot.revision
        self._changes.append(Relisted(snapshot))
        yield from self._open(session, snapshot.revision + 1)
        self.heard = time.monotonic()
        frames = Frames()
        self._watches, complete = 0, time.monotonic() + SILENCE
        while True:
            data = yield from session.piece(self.heard + SILENCE)
            self.heard = time.monotonic()
            for frame in frames.feed(data):
                self._take(session.frame(frame))
            if self._watches < len(self._prefixes) and self.heard > complete:
                raise Unavailable(
                    f"the store has begun {self._watches} of {len(self._prefixes)} watches"
                )

    def _open(self, session: Session, revision: int) -> Waiting[None]:
        body = watch_request(self._prefixes, revision)
        token = yield from self._cluster.token(session)
        try:
            yield from session.open("/v3/watch", body, token)
        except BadToken:
            token = yield from self._cluster.token(session, token)
            yield from session.open("/v3/watch", body, token)

    def _take(self, result: dict[str, t.Any]) -> None:
        compacted = number(result.get("compact_revision"))
        if compacted:
            raise Unavailable(f"the store has forgotten changes before revision {compacted}")
        if result.get("canceled"):
            reason = str(result.get("cancel_reason", "no reason"))[:200]
            kind = Denied if "permission denied" in reason else Unavailable
            raise kind(f"the store has ended the watch: {reason}")
        self._watches += bool(result.get("created"))
        self.revision = max(self.revision, number(fields(result, "header").get("revision")))
        self._changes.extend(change_of(event) for event in objects(result, "events"))
