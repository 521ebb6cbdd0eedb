# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One AMQP connection without sockets: python3-amqp writes and reads the frames, and `rabbitmq` moves the bytes.

So nothing in it waits, which the library by itself would do for each answer of the server.
"""

from __future__ import annotations

import contextlib
import struct
import typing as t

import amqp
from amqp import spec

from ..store.interface import Unavailable
from .wire import Wire

# Seconds between two signs of life. A server that gives none for twice as long is lost.
HEARTBEAT = 4
EVENTS, COMMANDS = "packetwatch.events", "packetwatch.commands"
_MAX_TEXT = 300


class Account(t.NamedTuple):
    """What a server is shown."""

    user: str
    password: str
    vhost: str


class Session:
    """From the greeting on. name: how the server's operator sees the connection.

    settle: gets the number of a message, whether all before it are meant too, and whether the server has them.
    deliver: gets each message of `queue`; empty: there is none.
    """

    def __init__(
        self,
        account: Account,
        name: str,
        settle: t.Callable[[int, bool, bool], None],
        queue: str,
        deliver: t.Callable[[amqp.Message], None],
    ) -> None:
        self.wire = Wire()
        self.is_open = False
        self.is_blocked = False
        self._settle = settle
        self._queue = queue
        self._deliver = deliver
        self._number = 0
        self._channel: t.Any = None
        connection = amqp.Connection(
            "",
            userid=account.user,
            password=account.password,
            login_method="PLAIN",
            virtual_host=account.vhost,
            heartbeat=HEARTBEAT,
            client_properties={"connection_name": name},
            on_open=self._open,
            on_blocked=lambda dummy: self._block(True),
            on_unblocked=lambda: self._block(False),
        )
        connection.transport = self.wire
        connection.on_inbound_frame = connection.frame_handler_cls(
            connection, connection.on_inbound_method
        )
        connection.frame_writer = connection.frame_writer_cls(connection, self.wire)
        self._connection = connection

    def take(self, data: bytes) -> None:
        """Read what the server has sent. Raises `Unavailable` if it is nonsense, or ends the session."""
        self.wire.feed(data)
        with _translated(), contextlib.suppress(TimeoutError):
            while True:
                self._connection.drain_events(timeout=0)

    def beat(self) -> None:
        """Call this once a second. Raises `Unavailable` if the server is silent."""
        with _translated():
            self._connection.heartbeat_tick()

    def publish(self, topic: str, body: bytes, name: str) -> int:
        """Send to the exchange of events, and return the message's number. name: its id."""
        message = amqp.Message(
            body,
            content_type="application/x-ndjson",
            content_encoding="utf-8",
            message_id=name,
            delivery_mode=1,
        )
        self._send(message, EVENTS, topic)
        self._number += 1
        return self._number

    def reply(self, to: str, body: bytes, correlation: str | None) -> None:
        fields = {"correlation_id": correlation} if correlation else {}
        # Without the encoding, libraries hand bytes to their users.
        message = amqp.Message(
            body, content_type="application/json", content_encoding="utf-8", **fields
        )
        self._send(message, "", to)

    def done(self, tag: int) -> None:
        """A message of the queue needs no further attention."""
        with _translated():
            self._channel.basic_ack(tag)

    def _send(self, message: amqp.Message, exchange: str, key: str) -> None:
        with _translated():
            self._channel.send_method(
                spec.Basic.Publish, "Bssbb", (0, exchange, key, False, False), message
            )

    def _block(self, is_blocked: bool) -> None:
        self.is_blocked = is_blocked

    def _open(self, connection: amqp.Connection) -> None:
        self._channel = amqp.Channel(connection, 1, auto_decode=False, on_open=self._begin)
        self._channel.send_method(spec.Channel.Open, "s", ("",))

    def _begin(self, channel: amqp.Channel) -> None:
        if self._queue:
            channel.send_method(spec.Basic.Qos, "lBb", (0, 10, False))
            channel.basic_consume(
                self._queue, consumer_tag="packetwatch", nowait=True, callback=self._deliver
            )
        else:
            settle = self._settle
            channel.events["basic_ack"].add(lambda tag, multiple: settle(tag, multiple, True))
            channel.events["basic_nack"].add(lambda tag, multiple: settle(tag, multiple, False))
            channel.confirm_select(nowait=True)
        self.is_open = True


@contextlib.contextmanager
def _translated() -> t.Iterator[None]:
    """Raise what the library raises as ours. For nonsense, that is any of many."""
    try:
        yield
    except (TimeoutError, Unavailable):
        raise
    except (
        amqp.AMQPError,
        OSError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise Unavailable(text[:_MAX_TEXT]) from None
