# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event source, and the names that the rulebook uses. tests/fleet/test_rulebook.py runs both."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from packetwatch_agent.control import cli

ROOT = Path(__file__).resolve().parents[2]
EDA = ROOT / "extensions/eda"
# ansible-rulebook runs the file as it is, outside any package.
SPEC = importlib.util.spec_from_file_location("watch", EDA / "plugins/event_source/watch.py")
assert SPEC and SPEC.loader
watch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(watch)

BAN = {"event.action": "ban", "source.ip": "203.0.113.7", "host.name": "web9"}


def event(fields: object) -> dict[str, Any] | None:
    found: dict[str, Any] | None = watch.event_in(json.dumps(fields).encode(), "web1")
    return found


def test_names_become_objects_and_the_host_is_the_one_that_was_asked() -> None:
    assert event(BAN | {"packetwatch.ports": [21, 22]}) == {
        "event": {"action": "ban"},
        "source": {"ip": "203.0.113.7"},
        "packetwatch": {"ports": [21, 22]},
        "host": {"name": "web1"},
    }


def test_a_host_does_not_choose_where_playbooks_run() -> None:
    found = event(BAN | {"meta": {"hosts": "all"}})
    assert found and "meta" not in found


@pytest.mark.parametrize("text", ["{{ lookup('pipe', 'id') }}", "{% raw %}", "{# #}", "a {{"])
@pytest.mark.parametrize("place", ["source.ip", "name {{", "list", "inner"])
def test_templates_are_left_out(text: str, place: str, caplog: pytest.LogCaptureFixture) -> None:
    value: Any = {"list": [text], "inner": {"x": [{text: 1}]}}.get(place, text)
    assert event(BAN | {place: value}) is None
    assert "web1: an event that contains the beginning of a template is left out" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"message": "no event"}',
        b'{"event.action": "ban", "x": NaN}',
        b'{"event.action": "ban", "x": 1e999}',
        b'{"event.action": "ban", "x": "\\ud800"}',
        b'{"event.action": "ban", "x": 1' + b"0" * 5000 + b"}",
        b'{"event.action": "ban", "x": ' + b"[" * 30000 + b"]" * 30000 + b"}",
        b'{"event.action": "ban", "x": "\\u007b\\u007b"}',
        b'{"event.action": "ban", "event": "other"}',
        b'{"event": "other", "event.action": "ban"}',
        b'{"event.action": "ban", "host": {"name": "web2"}, "host.name": "web2"}',
    ],
)
def test_what_is_not_an_event_is_left_out(line: bytes) -> None:
    assert watch.event_in(line, "web1") is None


def run(args: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Run the source for a while; return its events."""

    async def follow() -> list[dict[str, Any]]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.main(queue, args), seconds)
        return [queue.get_nowait() for dummy in range(queue.qsize())]

    return asyncio.run(follow())


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ssh, which prints a file and notes its arguments."""
    tool = tmp_path / "ssh"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\ncat {tmp_path}/lines\nexit 3\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_a_connection_that_ends_is_made_again(
    ssh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "PAUSE", 0.05)
    (ssh / "lines").write_text(json.dumps(BAN) + "\n")
    found = run({"hosts": ["web1"], "actions": ["ban", "scan"]}, 1.0)
    calls = (ssh / "calls").read_text().splitlines()
    assert len(found) > 1 and len(calls) > 1
    assert {one["host"]["name"] for one in found} == {"web1"}
    assert "web1: the connection has ended with the status 3; connecting again" in caplog.text
    options, dummy, command = calls[0].partition(" -- web1 packetwatchctl ")
    assert "BatchMode=yes" in options
    asked = cli.parser().parse_args(command.split())
    assert (asked.json, asked.action) == (True, ["ban", "scan"])


def test_a_line_without_an_end_is_not_kept(
    ssh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "PAUSE", 0.05)
    (ssh / "lines").write_text("x" * 200_000)
    assert run({"hosts": ["web1"]}, 0.5) == []
    assert "web1: a line is longer than 65536 bytes" in caplog.text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "hosts is missing or empty"),
        ({"hosts": []}, "hosts is missing or empty"),
        ({"hosts": "web1"}, "hosts is 'web1': write a list"),
        ({"hosts": ["-oProxyCommand=id"]}, "hosts has '-oProxyCommand=id', which is not a name"),
        ({"hosts": ["web1"], "actions": ["ban; id"]}, "actions has 'ban; id', which is not a name"),
    ],
)
def test_wrong_options(args: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        asyncio.run(watch.main(asyncio.Queue(), args))


def test_the_rulebook_uses_what_there_is() -> None:
    (ruleset,) = yaml.safe_load((EDA / "rulebooks/fleet_ban.yml").read_text())
    (source,) = ruleset["sources"]
    assert set(source) == {"name", "packetwatch.xdp.watch"}
    (rule,) = ruleset["rules"]
    play = rule["action"]["run_playbook"]
    collection, dummy, name = play["name"].rpartition(".")
    assert collection == "packetwatch.xdp" and (ROOT / f"playbooks/{name}.yml").is_file()
    fields = set(re.findall(r"event(?:s\.\w+)?\.((?:source|packetwatch|host)\.\w+)", str(rule)))
    documented = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/events.md").read_text(), re.M))
    assert len(fields) == 5 and fields <= documented
