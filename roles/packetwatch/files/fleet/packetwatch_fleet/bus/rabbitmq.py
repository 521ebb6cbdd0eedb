# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RabbitMQ: a queue in memory, and a connection that is made again whenever it is lost."""

from __future__ import annotations

import binascii
import collections
import json
import os
import socket
import time
import typing as t

from packetwatch_core._network.endpoints import Endpoint

from ..store.backoff import Backoff
from ..store.interface import Unavailable
from ..store.link import Link
from ..store.waits import Task, Wait, Waiting
from .interface import MAX_BYTES, MAX_EVENTS, Command, Counts
from .session import Account, Session

if t.TYPE_CHECKING:
    import ssl

    import amqp

__all__ = ("Account", "RabbitMQ")

# Seconds for a connection until it is of use, and the longest pause before the next attempt: less than ten together.
_CONNECT, _LONGEST_PAUSE = 3.0, 5.0
_BEAT = 1.0
# Messages that the server has not confirmed yet.
_MAX_FLIGHT = 100
_MAX_OUT = 1 << 18
# Answers go only to who asks. Any other queue would get them in the name of this account.
_REPLY = "amq.rabbitmq.reply-to."


class _Message(t.NamedTuple):
    name: str
    topic: str
    body: bytes
    events: int


class _Handle(t.NamedTuple):
    """What an answer needs."""

    session: Session
    tag: int
    reply: str
    correlation: str | None


class RabbitMQ:
    """queue: what to take commands from; empty: nothing, this one publishes."""

    def __init__(
        self,
        endpoints: t.Sequence[Endpoint],
        tls: ssl.SSLContext | None,
        account: Account,
        queue: str = "",
    ) -> None:
        self.problem = ""
        self.connects = 0
        self.is_connected = False
        self._endpoints = collections.deque(endpoints)
        self._tls = tls
        self._account = account
        self._source = queue
        self._backoff = Backoff(_LONGEST_PAUSE)
        self._session: Session | None = None
        self._queue: collections.deque[_Message] = collections.deque()
        self._flight: dict[int, _Message] = {}
        """What was sent and is not confirmed, by its number in the session, in order."""
        self._arrived: collections.deque[Command] = collections.deque()
        self._waiting = self._bytes = self._confirmed = self._dropped = self._made = 0
        # Who gets a message twice, because a confirmation was lost, knows it by its id.
        self._prefix = binascii.hexlify(os.urandom(6)).decode()
        self._task = Task(self._run())

    def fileno(self) -> int:
        return self._task.fileno()

    def deadline(self) -> float:
        return self._task.deadline()

    def step(self) -> None:
        self._task.step()

    def close(self) -> None:
        self._task.close()

    def counts(self) -> Counts:
        return Counts(self._confirmed, self._dropped, self._waiting)

    def publish(self, topic: str, body: bytes, events: int) -> bool:
        if self._waiting + events > MAX_EVENTS or self._bytes + len(body) > MAX_BYTES:
            self._dropped += events
            return False
        self._made += 1
        self._queue.append(_Message(f"{self._prefix}-{self._made}", topic, body, events))
        self._waiting += events
        self._bytes += len(body)
        if self.is_connected:
            # Else it would cut the pause short before the next attempt.
            self._task.wake()
        return True

    def commands(self) -> t.Iterator[Command]:
        while self._arrived:
            yield self._arrived.popleft()

    def answer(self, command: Command, result: t.Mapping[str, t.Any]) -> bool:
        handle: _Handle = command.handle
        if handle.session is not self._session:
            # The server delivers it again on the new connection.
            return False
        is_answerable = handle.reply.startswith(_REPLY)
        if is_answerable:
            body = json.dumps(result).encode()
            handle.session.reply(handle.reply, body, handle.correlation)
        handle.session.done(handle.tag)
        self._task.wake()
        return is_answerable

    # The connection

    def _run(self) -> Waiting[t.NoReturn]:
        while True:
            self._backoff.begin()
            endpoint = self._endpoints[0]
            try:
                yield from self._serve(endpoint)
            except Unavailable as error:
                text = str(error)
                self.problem = text if str(endpoint) in text else f"{endpoint}: {text}"
            self._forget()
            self._endpoints.rotate(-1)
            yield Wait(None, False, time.monotonic() + self._backoff.pause())

    def _forget(self) -> None:
        """Send again what was not confirmed, before everything else."""
        self._session = None
        self.is_connected = False
        self._queue.extendleft(reversed(self._flight.values()))
        self._flight.clear()
        self._arrived.clear()

    def _serve(self, endpoint: Endpoint) -> Waiting[None]:
        """Return never, but raise."""
        begun = time.monotonic()
        link = Link(endpoint, self._tls)
        try:
            yield from link.connect(begun + _CONNECT)
            session = Session(
                self._account, socket.gethostname(), self._settle, self._source, self._deliver
            )
            self._session = session
            beat = begun + _BEAT
            while True:
                now = time.monotonic()
                if now >= beat:
                    beat = now + _BEAT
                    self._check(session, now - begun)
                self._fill(session)
                out = session.wire.out
                sent = link.give(out) if out else 0
                del out[:sent]
                data = link.take()
                session.take(data)
                self._note(session)
                if data or sent:
                    # There may be more; the loop has its turn between.
                    yield Wait(None, False, 0.0)
                else:
                    yield link.change(bool(out), beat)
        finally:
            link.close()

    def _check(self, session: Session, seconds: float) -> None:
        if session.is_open:
            session.beat()
        elif seconds > _CONNECT:
            raise Unavailable("no greeting in time")

    def _note(self, session: Session) -> None:
        if session.is_open and not self.is_connected:
            self.is_connected = True
            self.connects += 1
        if session.is_open:
            self.problem = "the server takes nothing: it lacks memory or disk" * session.is_blocked

    def _fill(self, session: Session) -> None:
        """Hand over as much as the session should have at a time."""
        if not session.is_open or session.is_blocked:
            return
        while self._queue and len(self._flight) < _MAX_FLIGHT and len(session.wire.out) < _MAX_OUT:
            message = self._queue.popleft()
            number = session.publish(message.topic, message.body, message.name)
            self._flight[number] = message

    def _settle(self, number: int, multiple: bool, has_them: bool) -> None:
        """The server confirms messages, or refuses them."""
        numbers = [one for one in self._flight if one <= number] if multiple else [number]
        for one in numbers:
            message = self._flight.pop(one, None)
            if message is None:
                continue
            self._waiting -= message.events
            self._bytes -= len(message.body)
            if has_them:
                self._confirmed += message.events
            else:
                self._dropped += message.events

    def _deliver(self, message: amqp.Message) -> None:
        found = message.properties
        if self._session is None:
            return
        reply = str(found.get("reply_to", ""))
        correlation = found.get("correlation_id")
        handle = _Handle(self._session, message.delivery_tag, reply, correlation)
        verb = str(message.delivery_info["routing_key"])
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        is_again = bool(message.delivery_info["redelivered"])
        self._arrived.append(Command(str(found.get("user_id", "")), verb, body, is_again, handle))
