# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""packetwatchctl while something else than an honest agent is at the control socket.

Every command ends soon, with a status and a message; for root it works, because root has the kernel's truth.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kernel.controlling import READER, Controlled

from packetwatch_agent.control import cli
from packetwatch_agent.control.ctl.session import Places

pytest_plugins = ("kernel.agent_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
    pytest.mark.slow(0.1),
]

DONE, FAILED, INPUT, REFUSED, NO_AGENT = range(5)
SOURCE = "203.0.113.9"
VERBS = {
    "status": ("status",),
    "top": ("top", "--once"),
    "watch": ("watch", "--count", "3"),
    "bans": ("bans",),
    "protect": ("protect",),
    "why": ("why", SOURCE),
    "ban": ("ban", SOURCE, "--for", "1h"),
    "unban": ("unban", SOURCE),
    "lists": ("lists",),
}
# Seconds for a whole command.
SOON = 15.0

Lie = Callable[[socket.socket, dict[str, Any]], None]


def says(data: bytes) -> Lie:
    return lambda connection, request: connection.sendall(data)


def result(**fields: Any) -> Lie:
    return says(json.dumps({"ok": True, "result": fields}).encode() + b"\n")


def item(value: object) -> Lie:
    line = json.dumps({"item": value}).encode() + b"\n"
    return says(line * 3 + b'{"ok":true,"result":{}}\n')


HONEST: dict[str, Any] = {
    "version": "1",
    "pid": 1,
    "since": 1.0,
    "state": "following the program",
    "interfaces": {},
}
WORST: dict[str, Any] = {
    **dict.fromkeys(("version", "state", "interfaces", "source", "message", "protected"), 7),
    **dict.fromkeys(("since", "pid", "changed", "packets", "bans", "sources", "scans"), "7"),
    **{name: {"a": [None]} for name in ("ports", "drops", "notes", "unsaved", "damaged")},
}
PLAUSIBLE: dict[str, Any] = {
    **HONEST,
    **{name: [] for name in ("sources", "ports", "scans", "drops")},
    "packets": {},
    "source": SOURCE,
    "changed": True,
    "message": "done, \x1b[31mbelieve me",
}


def flood(line: bytes) -> Lie:
    def send(connection: socket.socket, request: dict[str, Any]) -> None:
        while True:
            connection.sendall(line * 1000)

    return send


def drip(line: bytes) -> Lie:
    def send(connection: socket.socket, request: dict[str, Any]) -> None:
        for byte in line:
            connection.sendall(bytes((byte,)))
            time.sleep(1)

    return send


LIES: dict[str, Lie] = {
    "brackets": says(b"[" * 100_000 + b"\n"),
    "nested result": says(b'{"ok":true,"result":' + b"[" * 900 + b"]" * 900 + b"}\n"),
    "nested field": result(**HONEST, unknown=json.loads("[" * 900 + "]" * 900)),
    "only ok": says(b'{"ok":true}\n'),
    "no field": result(),
    "wrong types": result(**WORST),
    "a list": says(b"[]\n"),
    "not JSON": says(b"\xff\xfe\x00\n"),
    "not a number": says(b'{"ok":true,"result":{"since":NaN}}\n'),
    "infinite": result(**HONEST | {"since": 1e308 * 10}),
    "in a million years": result(**HONEST | {"since": 1e18}),
    "long number": says(b'{"ok":true,"result":{"pid":' + b"9" * 100_000 + b"}}\n"),
    "odd error": says(b'{"ok":false,"error":5}\n'),
    "odd kind": says(b'{"ok":false,"error":{"kind":[],"message":{}}}\n'),
    "refusal": says(b'{"ok":false,"error":{"kind":"input","message":"no \\u001b[2J\\ud800"}}\n'),
    "items of nothing": item({}),
    "items of text": item("x"),
    "odd source": item({"source": "\x1b[2J", "prefix": [], "until": "never"}),
    "odd event": item(
        {
            "event.action": "ban",
            "packetwatch.ports": 7,
            "packetwatch.arguments": 7,
            "\ud800": "\ud800",
        }
    ),
    "nested event": item({"event.action": {"a": [[]]}}),
    "odd missed": says(b'{"item":null}\n{"missed":"\\u001b[2J"}\n'),
    "endless line": flood(b"x" * 100),
    "endless items": flood(b'{"item":{"event.action":5}}\n'),
    "endless answers": flood(b'{"ok":true}\n'),
    "plausible": result(**PLAUSIBLE),
    "nothing": lambda connection, request: None,
}


class Liar:
    """Answers each request at a socket with a lie."""

    def __init__(self, path: Path) -> None:
        self.lie: Lie = LIES["nothing"]
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                self.lie(connection, json.loads(line))
                if self.lie is LIES["nothing"]:
                    return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def host(resting: Controlled) -> Iterator[Controlled]:
    with resting.site.wire.host.entered():
        yield resting
        with resting.bans() as bans:
            for ban in bans.walk():
                bans.remove(ban)


@pytest.fixture(scope="module")
def liar(resting: Controlled) -> Iterator[Liar]:
    found = Liar(resting.control)
    yield found
    found.close()


def call(host: Controlled, words: tuple[str, ...]) -> int:
    """Run a command in this process, so that an exception of it fails the test."""
    places = Places(host.site.paths, str(host.control), str(host.edit))
    return cli.main(words, places, lambda line: None)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("lie", LIES)
def test_root_has_the_truth(
    host: Controlled, liar: Liar, lie: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    liar.lie = LIES[lie]
    if verb == "unban":
        with host.bans() as bans:
            bans.add(SOURCE, 3600)
    began = time.monotonic()
    status = call(host, VERBS[verb])
    out, err = capsys.readouterr()
    assert time.monotonic() - began < SOON
    assert "\x1b" not in out + err
    if verb == "status":
        assert "pw0: filtered" in out
        if lie not in ("plausible", "nested field"):
            assert status == FAILED
            assert "PROBLEM: the agent does not answer, but filtering goes on: " in out
    elif verb == "top":
        assert "packets since the filter was loaded" in out
        assert (status == DONE) == (lie == "plausible"), out
    elif verb == "watch":
        # A line may say anything, as long as it can be shown.
        is_shown = lie in ("odd source", "odd event", "endless items")
        assert status in ((DONE,) if is_shown else (FAILED, INPUT, NO_AGENT)), (out, err)
        assert err.startswith("packetwatchctl: ") != is_shown
    elif verb == "ban":
        assert (status, host.banned()) == (DONE, {SOURCE}), err
        assert "this was written to the kernel directly" in out
    elif verb == "unban":
        assert (status, host.banned()) == (DONE, set()), err
        assert "this was written to the kernel directly" in out
    else:
        assert status == DONE, err


@pytest.mark.parametrize("lie", ["nested field", "only ok", "odd missed"])
def test_a_lie_makes_only_the_log_of_a_drill_red(
    host: Controlled, liar: Liar, lie: str, capsys: pytest.CaptureFixture[str]
) -> None:
    liar.lie = LIES[lie]
    assert call(host, ("selftest", "--json")) == FAILED
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["name"] for stage in stages if not stage["ok"]] == ["log"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "lists"])
@pytest.mark.parametrize("lie", LIES)
def test_a_member_gets_an_error(
    host: Controlled,
    liar: Liar,
    lie: str,
    verb: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    liar.lie = LIES[lie]
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    began = time.monotonic()
    status = call(host, (*VERBS[verb], "--json"))
    out, err = capsys.readouterr()
    assert time.monotonic() - began < SOON
    assert "\x1b" not in out + err
    if status in (INPUT, NO_AGENT):
        assert err.startswith("packetwatchctl: ")
        assert json.loads(out)["ok"] is False
    elif status == DONE:
        # A lie that has the right shape. An answer without items is one, whatever its result is.
        is_empty = verb in ("bans", "protect") and json.loads(out) in (
            {"bans": [], "notes": []},
            {"protected": []},
        )
        assert is_empty or lie in (
            "plausible",
            "nested field",
            "odd source",
            "odd event",
            "endless items",
        )
    else:
        assert status == FAILED


def test_a_terminal_shows_what_it_can(
    host: Controlled, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(host.environment, "PYTHONIOENCODING", "ascii")
    liar.lie = result(**PLAUSIBLE | {"version": "\u65e5\ud800", "unsaved": "\u65e5\ud800"})
    for words in ("status", "top --once", "status --json", "top --once --json"):
        done = host.ctl(*words.split())
        assert "Traceback" not in done.err, done.err
        assert "\\u65e5" in done.out or "top" in words


def test_nobody_waits_for_long(host: Controlled, liar: Liar) -> None:
    def answer_slowly(connection: socket.socket, request: dict[str, Any]) -> None:
        if request["command"] in ("status", "bans", "ban"):
            drip(b'{"item":' + b" " * 600)(connection, request)
        time.sleep(60)

    liar.lie = answer_slowly
    with ThreadPoolExecutor(len(VERBS)) as pool:
        # A thread has a network namespace of its own.
        def run(words: tuple[str, ...], **user: Any) -> Any:
            with host.site.wire.host.entered():
                return host.ctl(*words, timeout=40, **user)

        began = time.monotonic()
        as_root = {
            verb: pool.submit(run, VERBS[verb]) for verb in ("status", "top", "ban", "watch")
        }
        as_reader = {
            verb: pool.submit(run, VERBS[verb], user=READER) for verb in ("status", "bans", "why")
        }
        found = {verb: future.result() for verb, future in as_root.items()}
        others = [future.result() for future in as_reader.values()]
    assert time.monotonic() - began < 2 * SOON
    assert all("Traceback" not in done.err for done in (*found.values(), *others))
    assert {done.status for done in others} == {NO_AGENT}
    assert "no whole answer within 10 s" in found["status"].out
    assert [found[verb].status for verb in found] == [FAILED, NO_AGENT, DONE, NO_AGENT]
    assert host.banned() == {SOURCE}


def test_a_ban_of_another_length_is_noticed(host: Controlled, liar: Liar) -> None:
    def ban_for_a_second(connection: socket.socket, request: dict[str, Any]) -> None:
        with host.bans() as bans:
            bans.add(request["address"], 1.0)
        result(**PLAUSIBLE)(connection, request)

    liar.lie = ban_for_a_second
    done = host.ctl("ban", SOURCE, "--for", "2h")
    assert done.status == DONE
    assert "the agent reports that it is done, but the kernel does not have it" in done.out
    with host.bans() as bans:
        (ban,) = bans.active()
        assert ban.expires - ban.since == 7200 * 10**9
