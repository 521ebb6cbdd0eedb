# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""etcd through its JSON gateway, with the standard library alone."""

from __future__ import annotations

import typing as t

from .cluster import Cluster
from .follower import EtcdFollower
from .gateway import Session, code, revision_of
from .interface import Conflict, Snapshot, Unavailable
from .waits import Waiting, finish
from .writer import EtcdWriter

_T = t.TypeVar("_T")


class Etcd:
    """The store on a cluster. Hosts use `follow` and `writer` alone: their gate lets nothing else through."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._attempt = 0

    def follow(self, *prefixes: str) -> EtcdFollower:
        return EtcdFollower(self._cluster, prefixes)

    def writer(self) -> EtcdWriter:
        return EtcdWriter(self._cluster)

    def offset(self) -> float | None:
        return self._cluster.clock.offset()

    def read(self, *prefixes: str) -> Snapshot:
        return self._anywhere(lambda session: self._cluster.snapshot(session, prefixes))

    def write(
        self, key: str, value: bytes, *, ends: float | None = None, expect: int | None = None
    ) -> int:
        return self._anywhere(lambda session: self._write(session, key, value, ends, expect))

    def delete(self, key: str, *, expect: int | None = None) -> None:
        self._anywhere(lambda session: self._delete(session, key, expect))

    def _anywhere(self, operation: t.Callable[[Session], Waiting[_T]]) -> _T:
        """Run an operation on the first endpoint that can."""
        problem = Unavailable("no endpoint")
        for dummy in self._cluster.endpoints:
            session = self._cluster.session(self._attempt)
            try:
                finish(session.connect())
                return finish(operation(session))
            except Unavailable as error:
                problem = error
                self._attempt += 1
                self._cluster.forget_token()
                self._cluster.forget_leases()
            finally:
                session.close()
        raise problem

    def _write(
        self, session: Session, key: str, value: bytes, ends: float | None, expect: int | None
    ) -> Waiting[int]:
        if expect is None:
            return (yield from self._cluster.put(session, key, value, ends))
        put = yield from self._cluster.put_request(session, key, value, ends)
        return (yield from self._if(session, key, expect, {"request_put": put}))

    def _delete(self, session: Session, key: str, expect: int | None) -> Waiting[None]:
        body = {"key": code(key)}
        if expect is None:
            yield from self._cluster.call(session, "/v3/kv/deleterange", body)
        else:
            yield from self._if(session, key, expect, {"request_delete_range": body})

    def _if(self, session: Session, key: str, expect: int, request: object) -> Waiting[int]:
        same = {"key": code(key), "target": "MOD", "mod_revision": str(expect)}
        body = {"compare": [same], "success": [request]}
        answer = yield from self._cluster.call(session, "/v3/kv/txn", body)
        if not answer.get("succeeded"):
            raise Conflict(f"{key} does not have revision {expect} any more: read it again")
        return revision_of(answer)
