# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Heartbeats: what is sent, what counts as received; nothing waits for them."""

from __future__ import annotations

import itertools
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packetwatch_agent import beat, heartbeat, settings
from packetwatch_agent.loop import IDLE, Loop
from packetwatch_agent.output import Output
from packetwatch_core._network.endpoints import Url

ROOT = Path(__file__).resolve().parents[2]


def url(text: str) -> Url:
    found = settings.read({"PW_HEARTBEAT_URL": text}).heartbeat_url
    assert found is not None
    return found


class Receiver:
    """Answers each connection with `answer`, and records what was sent."""

    def __init__(self, answer: bytes, context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection: socket.socket = self._server.accept()[0]
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    data = b""
                    while b"\r\n\r\n" not in data or not data.endswith(b"}"):
                        data += connection.recv(4096)
                    self.requests.append(data)
                    connection.sendall(self.answer)
            except OSError:
                if self._server.fileno() < 0:
                    return

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver(b"HTTP/1.1 204 No Content\r\n\r\n")
    yield made
    made.close()


class Lab:
    """A heartbeat in a loop, and what it logs."""

    def __init__(self, target: str, problems: Callable[[], list[str]]) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.loop = Loop(lambda: IDLE)
        self.heartbeat = heartbeat.Heartbeat(
            url(target), 0.1, Output(writer, "host.example"), problems
        )

    def run(self, seconds: float) -> None:
        self.heartbeat.begin(self.loop)
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()
        self.loop.close()

    def said(self) -> list[str]:
        try:
            data = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return []
        return [json.loads(line)["message"] for line in data.splitlines()]

    def value(self, name: str) -> float:
        return self.heartbeat.values()[f"packetwatch_heartbeat_{name}"][0][1]


def test_up_and_down(receiver: Receiver) -> None:
    problems: list[str] = []
    lab = Lab(
        f"http://127.0.0.1:{receiver.port}/ping/{{status}}?why={{problems}}", lambda: problems
    )
    lab.loop.after(0.25, lambda: problems.append("eth0 is not filtered"))
    lab.run(0.6)
    first, last = receiver.requests[0], receiver.requests[-1]
    assert first.startswith(b"POST /ping/up?why=none HTTP/1.1\r\n")
    assert last.startswith(b"POST /ping/down?why=eth0%20is%20not%20filtered HTTP/1.1\r\n")
    body: dict[str, Any] = json.loads(last.partition(b"\r\n\r\n")[2])
    assert body["status"] == "down"
    assert body["problems"] == ["eth0 is not filtered"]
    assert body["host"] == "host.example"
    assert f"Host: 127.0.0.1:{receiver.port}\r\n".encode() in last
    assert time.time() - lab.value("last_success_timestamp_seconds") < 5
    assert lab.value("failures_total") == 0
    assert lab.said() == []


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.0 301\r\n", b"SSH-2.0\r\n", b""]
)
def test_what_is_no_success(answer: bytes) -> None:
    receiver = Receiver(answer)
    lab = Lab(f"http://127.0.0.1:{receiver.port}/", list)
    lab.run(0.5)
    receiver.close()
    assert lab.value("failures_total") >= 3
    assert lab.value("last_success_timestamp_seconds") == 0
    assert len(lab.said()) == 1


def test_nobody_listens_and_the_loop_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        lab = Lab(f"http://127.0.0.1:{silent.getsockname()[1]}/", list)
        turns: list[float] = []

        def turn() -> float:
            turns.append(time.monotonic())
            return 0.01

        lab.loop.after(0, turn)
        lab.run(0.5)
    assert len(turns) > 20
    assert max(b - a for a, b in itertools.pairwise(turns)) < 0.2
    assert lab.said() == ["no heartbeat to 127.0.0.1: it takes longer than the interval"]


def test_https_needs_a_certificate_that_can_be_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(b"HTTP/1.1 200 OK\r\n\r\n", context)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "roles/packetwatch/files/agent"))
    target = url(f"https://127.0.0.1:{receiver.port}/")
    request = heartbeat.message(target, "host", [])
    with pytest.raises(ValueError, match="certificate"):
        beat.send_by_tls(target.host, target.port, request)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    beat.send_by_tls(target.host, target.port, request)
    assert receiver.requests == [request]
    receiver.answer = b"HTTP/1.1 503 Busy\r\n\r\n"
    with pytest.raises(ValueError, match="answered 503"):
        beat.send_by_tls(target.host, target.port, request)
    receiver.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ValueError, match="refused"):
        beat.send_by_tls("127.0.0.1", port, request)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://example.net", (False, "example.net", 80, "example.net", "/")),
        ("https://example.net/a?b=c", (True, "example.net", 443, "example.net", "/a?b=c")),
        ("https://[2001:db8::1]:8443/x", (True, "2001:db8::1", 8443, "[2001:db8::1]:8443", "/x")),
        ("http://h?x", (False, "h", 80, "h", "/?x")),
    ],
)
def test_urls(text: str, parts: tuple[Any, ...]) -> None:
    assert tuple(url(text)) == parts


@pytest.mark.parametrize(
    "text",
    [
        "example.net",
        "ftp://example.net/",
        "http://user:secret@example.net/",
        "http://example.net/a b",
        "http://example.net/\r\nX: y",
        "http://example.net:0/",
        "http://example.net:99999/",
        "http://exämple.net/",
    ],
)
def test_urls_that_are_refused(text: str) -> None:
    found = settings.read({"PW_HEARTBEAT_URL": text})
    assert "PW_HEARTBEAT_URL" in found.problems["PW_HEARTBEAT_URL"]
    assert found.heartbeat_url is None


@pytest.mark.parametrize("text", ["", "9", "86401", "1.5", "-60", "sixty"])
def test_intervals_that_are_refused(text: str) -> None:
    found = settings.read({"PW_HEARTBEAT_INTERVAL": text})
    assert "PW_HEARTBEAT_INTERVAL" in found.problems["PW_HEARTBEAT_INTERVAL"]
    assert found.heartbeat_interval == 60
