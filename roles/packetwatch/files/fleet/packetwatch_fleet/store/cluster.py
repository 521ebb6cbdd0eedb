# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An etcd cluster: its endpoints, the token, and the operations that all of its users share, as work in steps."""

from __future__ import annotations

import math
import time
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import Endpoint

from .backoff import chance
from .dates import Clock
from .gateway import (
    PIECE,
    Account,
    BadToken,
    Busy,
    Session,
    code,
    decode,
    fields,
    number,
    objects,
    range_of,
    revision_of,
    text_of,
)
from .interface import Snapshot, Unavailable
from .waits import Wait, Waiting

if t.TYPE_CHECKING:
    import ssl

# Bytes of all values: 40,000 rows of bans and 16 lists. A store that was taken over must not take all memory.
MAX_LISTING = 24 << 20
# For a request that a gate puts off.
_ATTEMPTS, _PAUSE = 10, 0.5


class Cluster:
    """endpoints: each serves alone. account: of whoever uses the store."""

    def __init__(
        self,
        endpoints: t.Sequence[Endpoint],
        tls: ssl.SSLContext | None = None,
        account: Account | None = None,
    ) -> None:
        if not endpoints:
            raise InvalidInput("the store etcd has no endpoints: name at least one")
        self.endpoints = endpoints
        self.clock = Clock()
        self._tls = tls
        self._account = account or Account()
        self._token = ""
        self._leases: dict[float, int] = {}
        # Hosts begin at different nodes.
        self._first = round(chance() * 1000) % len(endpoints)

    def session(self, attempt: int) -> Session:
        """A session on one of the endpoints: each attempt has the next one."""
        endpoint = self.endpoints[(self._first + attempt) % len(self.endpoints)]
        return Session(endpoint, self._tls, self.clock)

    def now(self) -> float:
        """The store's time; the own one as long as it is not known."""
        offset = self.clock.offset()
        return time.time() if offset is None else time.monotonic() + offset

    def token(self, session: Session, bad: str = "") -> Waiting[str]:
        """The token of all sessions. bad: one that the store has refused."""
        if self._account.user and (not self._token or self._token == bad):
            self._token = yield from session.log_in(self._account)
        return self._token

    def forget_token(self) -> None:
        """Log in anew after a failure: etcd lets a request wait whose token is from a later state than its own."""
        self._token = ""

    def call(self, session: Session, path: str, body: object) -> Waiting[dict[str, t.Any]]:
        """One answer; logs in before, and again if the token is not known any more."""
        token = yield from self.token(session)
        try:
            return (yield from session.call(path, body, token))
        except BadToken:
            token = yield from self.token(session, token)
            return (yield from session.call(path, body, token))

    def _patiently(self, session: Session, path: str, body: object) -> Waiting[dict[str, t.Any]]:
        """As `call`. A long listing may have more pieces than a gate takes at once."""
        for dummy in range(_ATTEMPTS):
            try:
                return (yield from self.call(session, path, body))
            except Busy:
                yield Wait(None, False, time.monotonic() + _PAUSE)
        return (yield from self.call(session, path, body))

    def put(
        self, session: Session, key: str, value: bytes, ends: float | None = None
    ) -> Waiting[int]:
        """Write a value; return its revision. ends: the store's time after which the key is gone."""
        body = yield from self.put_request(session, key, value, ends)
        return revision_of((yield from self.call(session, "/v3/kv/put", body)))

    def put_request(
        self, session: Session, key: str, value: bytes, ends: float | None
    ) -> Waiting[dict[str, str]]:
        """The request to write a value, with a lease if the value ends."""
        body = {"key": code(key), "value": code(value)}
        if ends is not None:
            lease = yield from self._lease(session, ends)
            body["lease"] = str(lease)
        return body

    def compact(self, session: Session, revision: int) -> Waiting[None]:
        """Let the store forget what was overwritten before this revision."""
        try:
            yield from self.call(session, "/v3/kv/compaction", {"revision": str(revision)})
        except Unavailable as error:
            # Another enforcer was first.
            if "compacted" not in str(error):
                raise

    def forget_leases(self) -> None:
        """Make new leases after a failure: a store that was wiped does not have the former ones."""
        self._leases.clear()

    def _lease(self, session: Session, ends: float) -> Waiting[int]:
        """A lease that ends then. It serves all keys of that time, because etcd ends few leases at once."""
        now = self.now()
        self._leases = {end: lease for end, lease in self._leases.items() if end > now}
        if ends not in self._leases:
            body = {"TTL": max(1, math.ceil(ends - now))}
            answer = yield from self.call(session, "/v3/lease/grant", body)
            self._leases[ends] = number(answer.get("ID"))
        return self._leases[ends]

    def snapshot(self, session: Session, prefixes: t.Sequence[str]) -> Waiting[Snapshot]:
        """Everything below the prefixes, in pieces at one revision."""
        revision, cluster, size = 0, "", 0
        items: dict[str, tuple[int, bytes]] = {}
        for prefix in prefixes:
            body = range_of(prefix) | {"limit": PIECE}
            while True:
                if revision:
                    body["revision"] = str(revision)
                answer = yield from self._patiently(session, "/v3/kv/range", body)
                if not revision:
                    revision = revision_of(answer)
                    cluster = str(number(fields(answer, "header").get("cluster_id")))
                pairs = objects(answer, "kvs")
                for pair in pairs:
                    value = number(pair.get("mod_revision")), decode(pair.get("value"))
                    items[text_of(pair.get("key"))] = value
                    size += len(value[1])
                if size > MAX_LISTING:
                    raise Unavailable(f"a listing has more than {MAX_LISTING} bytes")
                if not answer.get("more"):
                    break
                if not pairs:
                    raise Unavailable(f"{session.endpoint}: a piece of a long answer is empty")
                body["key"] = code(decode(pairs[-1].get("key")) + b"\0")
        return Snapshot(cluster, revision, self.now(), items)
