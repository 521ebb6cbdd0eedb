# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""packetwatchctl for users with each kind of right, on a filtered host with a real agent and sockets."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.controlling import (
    ADMIN,
    AGENT,
    OUTSIDER,
    PROTECTED,
    READER,
    ROOT_USER,
    Controlled,
    User,
    exchange,
    rights_of,
)
from kernel.feeder import Feeder, connection
from kernel.hosting import DENIED, OWN, XDP_DROP, XDP_PASS, Wire, ip
from kernel.packets import syn4

from packetwatch_core._kernel.libbpf import Map

pytest_plugins = ("kernel.agent_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")

LIMIT_KIB = 25 * 1024
DONE, FAILED, INPUT, REFUSED, NO_AGENT = range(5)
NAMES = {ROOT_USER: "root", ADMIN: "admin", READER: "reader", OUTSIDER: "outsider", AGENT: "agent"}
READS = ("status", "lists", "bans", "protect", "top", "why 203.0.113.9")
CHANGES = ("ban 203.0.113.9", "unban 203.0.113.9")
EDITS = (
    *("allow 203.0.113.9", "deny 203.0.113.9", "remove 203.0.113.9", "apply"),
    *("confirm", "rollback"),
)


@pytest.fixture
def host(shared: Controlled) -> Iterator[Controlled]:
    """That host with `DENIED` denied and no bans; the test runs in its namespace."""
    with shared.site.wire.host.entered():
        shared.site.lists(deny=f"{DENIED} # scrapers\n")
        shared.site.lists(name="local")
        if shared.process is None:
            shared.start()
        for path in (shared.audit, shared.edit_log):
            path.unlink(missing_ok=True)
        yield shared
        with shared.bans() as bans:
            for ban in bans.walk():
                bans.remove(ban)


# Rights


@pytest.mark.slow
@pytest.mark.parametrize("user", [ROOT_USER, ADMIN, READER, OUTSIDER], ids=NAMES.get)
@pytest.mark.parametrize("command", READS)
def test_who_may_look(host: Controlled, command: str, user: User) -> None:
    done = host.ctl(*command.split(), "--json", user=user)
    if user == OUTSIDER and command != "lists":
        assert done.status == REFUSED
        assert "not permitted: be root or a member" in done.err
    else:
        assert done.status == DONE, done.err
        assert isinstance(done.json, dict)


@pytest.mark.parametrize("user", [ROOT_USER, ADMIN, READER, OUTSIDER, AGENT], ids=NAMES.get)
@pytest.mark.parametrize("command", CHANGES)
def test_who_may_ban(host: Controlled, command: str, user: User) -> None:
    before = len(host.audits())
    done = host.ctl(*command.split(), "--json", user=user)
    may = user in (ROOT_USER, ADMIN)
    assert done.status == (DONE if may else REFUSED), done
    assert host.banned() == ({"203.0.113.9"} if may and command.startswith("ban") else set())
    (line,) = host.audits()[before:]
    assert line["user.id"] == str(user.uid)
    assert line["event.outcome"] == ("success" if may else "failure")


@pytest.mark.slow
@pytest.mark.parametrize("user", [ROOT_USER, ADMIN, READER, OUTSIDER, AGENT], ids=NAMES.get)
@pytest.mark.parametrize("command", EDITS)
def test_who_may_edit(host: Controlled, command: str, user: User) -> None:
    host.site.lists(deny="203.0.113.9\n", name="local")
    before = host.site.snapshot()
    done = host.ctl(*command.split(), "--json", user=user)
    if user in (ROOT_USER, ADMIN):
        # No change waits to be confirmed.
        assert done.status == (FAILED if command == "confirm" else DONE), done.err
        (line,) = host.audits(host.audit if user == ROOT_USER else host.edit_log)
        assert line["user.id"] == str(user.uid)
        assert line["packetwatch.command"] == command.split()[0]
    else:
        assert done.status == REFUSED, done
        assert "packetwatch-admin" in done.err
        assert host.site.snapshot() == before


def test_the_agent_may_not_edit_through_its_own_socket(host: Controlled) -> None:
    with host.connect() as connection:
        answers = exchange(
            connection,
            *(
                b'{"command":"%s","addresses":["203.0.113.9"]}\n' % c.split()[0].encode()
                for c in EDITS
            ),
        )
    assert {answer["error"]["kind"] for answer in answers} == {"input"}
    assert "is not a command" in answers[0]["error"]["message"]


@pytest.mark.parametrize("user", [AGENT, ADMIN, READER, OUTSIDER], ids=NAMES.get)
def test_pins_are_for_root_and_those_of_the_bans_for_the_agent(
    host: Controlled, user: User
) -> None:
    """Lists and policies, the program and the links are root's; and nobody else removes a pin."""
    pins = [str(path) for path in Path(host.pins.root).rglob("*")]
    code = (
        "import os, sys\n"
        "from packetwatch_core._kernel.libbpf import KernelError, Map\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        Map.open(path).close()\n"
        "        print(path)\n"
        "    except KernelError as error:\n"
        "        assert 'Permission denied' in str(error), error\n"
        "    for act in (os.unlink, os.rmdir, lambda path: os.rename(path, path + '2')):\n"
        "        try:\n"
        "            act(path)\n"
        "            print(act, path)\n"
        "        except PermissionError:\n"
        "            pass\n"
    )
    done = host.python(code, *pins, user=user)
    assert done.status == 0, done.err
    maps = {host.pins.map(name) for name in os.listdir(host.pins.run)}
    assert set(done.out.split()) == (maps if user is AGENT else set())
    assert len(pins) > len(maps) + 3


# Lists


@pytest.mark.slow
def test_allow_deny_and_remove_are_activated(host: Controlled) -> None:
    assert host.ctl("deny", "203.0.113.0/24", "--comment", "ticket 7", user=ADMIN).status == DONE
    assert host.site.verdict("203.0.113.9") == XDP_DROP
    assert host.ctl("allow", "203.0.113.9").status == DONE
    assert host.site.verdict("203.0.113.9") == XDP_PASS
    entries = host.ctl("lists", "local", "--entries", "--json", user=READER).json["entries"]
    assert [(item["kind"], item["prefix"], item["comment"]) for item in entries] == [
        ("allow", "203.0.113.9", ""),
        ("deny", "203.0.113.0/24", "ticket 7"),
    ]
    assert host.ctl("remove", "203.0.113.9", "203.0.113.0/24", user=ADMIN).status == DONE
    assert host.site.verdict("203.0.113.9") == XDP_PASS
    assert host.site.verdict(DENIED) == XDP_DROP


def test_a_check_changes_nothing(host: Controlled) -> None:
    before = host.site.snapshot()
    done = host.ctl("deny", "203.0.113.0/24", "--check", user=ADMIN)
    assert "+ deny local: 203.0.113.0/24" in done.out
    assert host.site.snapshot() == before
    assert host.audits(host.edit_log) == []


def test_hand_edits_are_applied(host: Controlled) -> None:
    path = host.site.state / "current/deny.d/local.list"
    path.write_text("# by hand\n203.0.113.9\n")
    assert "packetwatchctl apply" in host.ctl("status").out
    assert host.ctl("apply").status == DONE
    assert host.site.verdict("203.0.113.9") == XDP_DROP
    assert host.ctl("deny", "203.0.113.10").status == DONE
    assert path.read_text() == "# by hand\n203.0.113.9\n203.0.113.10\n"


@pytest.mark.slow
def test_hand_edits_that_deny_the_protected_need_force(host: Controlled) -> None:
    path = host.site.state / "current/deny.d/local.list"
    path.write_text(f"{PROTECTED}\n")
    done = host.ctl("apply", user=ADMIN)
    assert done.status == INPUT
    assert PROTECTED in done.err and "force" in done.err
    assert host.ctl("apply", "--check").status == INPUT
    assert host.site.verdict(PROTECTED) == XDP_PASS
    note = json.loads(Path(host.site.paths.status).read_text())
    assert note["apply"]["success"] is True
    assert host.ctl("apply", "--force", user=ADMIN).status == DONE
    assert host.site.verdict(PROTECTED) == XDP_DROP


@pytest.mark.slow
@pytest.mark.parametrize("user", [ROOT_USER, ADMIN], ids=NAMES.get)
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("deny 203.0.113.9/24", "write 203.0.113.0/24"),
        ("deny example.net", "host names are not resolved"),
        (f"deny {PROTECTED}", "protected"),
        (f"remove {DENIED}", "deny list 'ansible'"),
        ("allow 203.0.113.9 --expires tomorrow", "is not a duration"),
        ("allow 203.0.113.9 --expires 2001-01-01T00:00:00Z", "past"),
        ("ban 203.0.113.0/24", "network"),
        (f"ban {PROTECTED}", "protected"),
        ("ban 203.0.113.9 --for soon", "write seconds"),
        ("ban 203.0.113.9 --for ", "'' is not a duration: write seconds"),
        ("deny 203.0.113.9 --expires ", "'' is not a time"),
        ("why nobody", "not an IP address"),
    ],
)
def test_bad_input_names_value_and_fix(
    host: Controlled, command: str, message: str, user: User
) -> None:
    before = host.site.snapshot()
    done = host.ctl(*command.split(" "), "--json", user=user)
    assert done.status == INPUT, done
    assert message in done.err
    assert done.json["error"]["kind"] == "input"
    assert host.site.snapshot() == before
    assert not host.banned()


# Bans


@pytest.mark.slow
def test_bans_are_listed_and_lifted_by_hand(host: Controlled) -> None:
    done = host.ctl("ban", "203.0.113.9", "--for", "10m", "--reason", "noise", user=ADMIN)
    assert done.out == "203.0.113.9 is banned for 600 s\n"
    line = host.audits()[-1]
    assert line["event.reason"] == "noise"
    assert line["packetwatch.arguments"] == ["address=203.0.113.9", "duration=600.0"]
    for user in (ROOT_USER, READER):
        (ban,) = host.ctl("bans", "--json", user=user).json["bans"]
        assert (ban["source"], ban["origin"], ban["evidence"]) == (
            "203.0.113.9",
            "manual",
            "manual",
        )
        assert 590 < ban["until"] - time.time() <= 600
        assert host.ctl("bans", "203.0.112.0/22", "--json", user=user).json["bans"] == [ban]
        assert host.ctl("bans", "192.0.2.0/24", "--json", user=user).json["bans"] == []
    assert "lifted" in host.ctl("unban", "203.0.113.9", user=ADMIN).out
    assert host.ctl("bans").out == "no source is banned\n"
    assert host.ctl("unban", "203.0.113.9", user=ADMIN).status == DONE


def test_several_sources_are_banned_and_lifted(host: Controlled) -> None:
    some = ("203.0.113.9", "203.0.113.11", "2001:db8:5::7")
    done = host.ctl("ban", *some, "--for", "1h", user=ADMIN)
    assert (done.status, len(done.out.splitlines())) == (DONE, 3), done
    assert host.banned() == {"203.0.113.9", "203.0.113.11", "2001:db8:5::/64"}
    found = host.ctl("unban", *some, "--json").json
    assert [item["changed"] for item in found["sources"]] == [True] * 3
    assert host.banned() == set()


@pytest.mark.parametrize("user", [ROOT_USER, ADMIN], ids=NAMES.get)
def test_what_was_counted_before_is_forgotten(host: Controlled, user: User) -> None:
    source = f"203.0.113.{user.gid % 100 + 20}"

    def probe(*ports: int) -> list[int]:
        with host.site.program() as program:
            index = socket.if_nametoindex("pw0")
            return [program.test_run(syn4(source, port, OWN), index)[0] for port in ports]

    assert probe(1, 2, 3, 4) == [XDP_PASS] * 4
    assert host.ctl("ban", source, user=user).status == DONE
    assert probe(5) == [XDP_DROP]
    assert host.ctl("unban", source, user=user).status == DONE
    assert probe(5, 6, 7, 8) == [XDP_PASS] * 4 and not host.banned()
    assert probe(9) == [XDP_DROP] and host.banned() == {source}


def test_a_refused_ban_does_not_keep_the_others_from_theirs(host: Controlled) -> None:
    done = host.ctl("ban", PROTECTED, "203.0.113.9")
    assert done.status == INPUT
    assert f"FAILED: {PROTECTED} is not banned" in done.out
    assert host.banned() == {"203.0.113.9"}
    assert host.ctl("ban", "203.0.113.9", "nonsense").status == INPUT


@pytest.mark.slow
def test_a_source_that_a_list_denies_is_not_free_after_unban(host: Controlled) -> None:
    host.ctl("deny", "203.0.113.0/24")
    host.ctl("ban", "203.0.113.9")
    lines = host.ctl("unban", "203.0.113.9", user=ADMIN).out.splitlines()
    assert lines[0].startswith("lifted: 203.0.113.9")
    assert "still denied, by the list 'local' (203.0.113.0/24): packetwatchctl remove" in lines[1]
    assert "list 'ansible'" in host.ctl("unban", DENIED).out
    host.ctl("allow", "203.0.113.9")
    assert "denied" not in host.ctl("unban", "203.0.113.9").out


@pytest.mark.slow
@pytest.mark.parametrize("user", [ROOT_USER, ADMIN], ids=NAMES.get)
def test_removing_what_is_on_no_list_is_done_already(host: Controlled, user: User) -> None:
    done = host.ctl("remove", "203.0.113.200", user=user)
    assert (done.status, done.out) == (DONE, "nothing to remove: 203.0.113.200: on no list\n")
    host.ctl("deny", "203.0.113.9")
    done = host.ctl("remove", "203.0.113.200", "203.0.113.9", user=user)
    assert (done.status, done.out.splitlines()) == (
        DONE,
        ["active now", "note: 203.0.113.200: on no list"],
    )


def test_a_ban_of_an_allowed_source_is_reported_to_have_no_effect(host: Controlled) -> None:
    host.ctl("allow", "203.0.113.9")
    assert "allow list ('local')" in host.ctl("ban", "203.0.113.9", user=ADMIN).out


@pytest.mark.parametrize("user", [ROOT_USER, ADMIN, READER], ids=NAMES.get)
def test_everybody_sees_interfaces_in_the_same_form(host: Controlled, user: User) -> None:
    host.site.policy(action="monitor")
    try:
        found = host.ctl("status", "--json", user=user).json["interfaces"]
        assert found == {"pw0": {"wanted": "auto", "mode": "native", "action": "monitor"}}
        assert (
            "pw0: only monitored: nothing is dropped, native, monitor\n"
            in host.ctl("status", user=user).out
        )
    finally:
        host.site.policy(action="enforce")


@pytest.mark.slow
@pytest.mark.parametrize("user", [ROOT_USER, READER], ids=NAMES.get)
def test_everybody_is_told_what_is_not_filtered(host: Controlled, user: User) -> None:
    host.site.wire.add("pw1")
    host.site.host.attach("pw1")
    try:
        os.unlink(host.site.host.pins.link("pw1"))
        host.wait(lambda: "pw1: NOT FILTERED\n" in host.ctl("status", user=user).out)
        done = host.ctl("status", "--json", user=user)
        assert done.status == FAILED
        assert done.json["interfaces"]["pw1"] == {"wanted": "auto", "mode": "none", "action": ""}
        remedy = "systemctl restart packetwatch-xdp@pw1"
        assert f"pw1 is not filtered: {remedy}" in done.json["problems"]
    finally:
        host.site.host.detach("pw1")
        ip("link delete pw1")


@pytest.mark.slow
def test_panic_is_reported_to_everybody(host: Controlled) -> None:
    host.site.host.panic("a test")
    try:
        for user in (ROOT_USER, READER):
            done = host.ctl("status", user=user)
            assert done.status == FAILED
            assert "PROBLEM: PANIC of a test since 20" in done.out, done.out
    finally:
        host.site.host.lift()
    assert host.ctl("status").status == DONE


@pytest.mark.slow
def test_root_works_without_the_agent_and_says_so(host: Controlled) -> None:
    host.stop()
    done = host.ctl("status")
    assert done.status == FAILED
    assert "pw0: filtered" in done.out and "the agent does not answer" in done.out
    assert host.ctl("lists").status == DONE
    assert host.ctl("protect").status == DONE
    done = host.ctl("ban", "203.0.113.9")
    assert done.status == DONE
    assert "this was written to the kernel directly" in done.out
    assert "203.0.113.9" in host.ctl("bans").out
    assert "new connections are dropped: ban" in host.ctl("why", "203.0.113.9").out
    assert host.ctl("unban", "203.0.113.9").status == DONE
    assert [line["packetwatch.command"] for line in host.audits(host.audit)] == ["ban", "unban"]
    for command in ("top", "watch"):
        assert host.ctl(command).status == NO_AGENT
    assert host.ctl("bans", user=READER).status == NO_AGENT


# Why


@pytest.mark.slow
def test_why_in_order_of_precedence(host: Controlled) -> None:
    host.ctl("ban", "203.0.113.9", "--for", "10m")
    assert "new connections are dropped: ban" in host.ctl("why", "203.0.113.9").out
    host.ctl("deny", "203.0.113.0/24", "--comment", "noisy", "--expires", "2h")
    result = host.ctl("why", "203.0.113.9", "--json").json
    assert (result["because"], result["verdict"], result["live"]) == ("deny", "is dropped", "deny")
    (entry,) = result["declared"]["entries"]
    assert (entry["owner"], entry["prefix"], entry["comment"]) == (
        "local",
        "203.0.113.0/24",
        "noisy",
    )
    assert entry["expires"]
    assert result["bans"][0]["origin"] == "manual"
    host.ctl("allow", "203.0.113.9")
    result = host.ctl("why", "203.0.113.9", "--json").json
    assert (result["because"], result["verdict"]) == ("allow", "passes")
    assert [item["kind"] for item in result["declared"]["entries"]] == ["allow", "deny"]
    assert host.site.verdict("203.0.113.9") == XDP_PASS
    assert host.ctl("why", "203.0.113.0/24", "--json").json["live"] == "mixed"
    assert host.ctl("why", PROTECTED).out.splitlines()[1:] == [
        "  lists in the kernel: none",
        f"  {PROTECTED} is protected (declared)",
    ]


def test_why_for_a_member_reports_what_it_cannot_see(host: Controlled) -> None:
    host.ctl("ban", "203.0.113.9")
    result = host.ctl("why", "203.0.113.9", "--json", user=READER).json
    assert (result["because"], result["live"]) == ("ban", None)
    assert "only root can read" in result["notes"][0]
    assert result["bans"][0]["until"] is None


@pytest.mark.slow
def test_why_reports_monitor_mode_and_hand_edits(host: Controlled) -> None:
    host.site.policy(action="monitor")
    assert "would be dropped: deny" in host.ctl("why", DENIED).out
    host.site.policy(action="enforce")
    (host.site.state / "current/deny.d/local.list").write_text("203.0.113.9\n")
    result = host.ctl("why", "203.0.113.9", "--json").json
    assert result["verdict"] == "passes"
    assert "packetwatchctl apply" in result["notes"][0]


# Events


def test_top_shows_who_talks(host: Controlled) -> None:
    records = [connection(i, (0xCB007109).to_bytes(4, "big")) for i in range(50)]
    with Map.open(host.pins.map("events")) as events:
        feeder = Feeder(events, len(records[0]))
        feeder.feed(records)
        feeder.close()

    # The sources of earlier tests can still be among them.
    host.wait(lambda: "203.0.113.9" in host.ctl("top", "--json", user=READER).out)
    talker = host.ctl("top", "--json", user=READER).json["sources"][0]
    assert talker["source"] == "203.0.113.9"
    assert 40 <= talker["connections"] <= 50
    assert "203.0.113.9" in host.ctl("top", "--once").out


@pytest.mark.slow
def test_top_refreshes_in_place_until_it_is_interrupted(host: Controlled) -> None:
    ours, theirs = pty.openpty()
    # The process that started the tests may ignore interrupts, and children inherit that.
    command = ["env", "--default-signal=INT", *host.command("top", "--interval", "0.2")]
    process = subprocess.Popen(command, stdout=theirs, env=host.environment)
    os.close(theirs)
    try:
        text = b""
        while text.count(b"\x1b[H\x1b[J") < 3:
            text += os.read(ours, 65536)
        assert b"packets per second" in text
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_watch_follows_what_is_written(host: Controlled) -> None:
    command = host.command("watch", "--json", "--action", "audit", "--count", "2")
    following = subprocess.Popen(
        command, stdout=subprocess.PIPE, env=host.environment, **rights_of(READER)
    )
    try:
        time.sleep(1)
        host.ctl("ban", "203.0.113.9", user=ADMIN)
        host.ctl("unban", "203.0.113.9", user=ADMIN)
        out, dummy = following.communicate(timeout=20)
    finally:
        following.kill()
        following.wait()
    found = [json.loads(line)["packetwatch.command"] for line in out.splitlines()]
    assert found == ["ban", "unban"]


def test_a_slow_follower_learns_what_it_missed(host: Controlled) -> None:
    with host.connect() as slow, slow.makefile("rb") as answers:
        slow.sendall(b'{"command":"watch","actions":["connection"]}\n')
        assert answers.readline() == b'{"item":null}\n'
        count = 8000
        records = [connection(i) for i in range(1, count + 1)]
        with Map.open(host.pins.map("events")) as events:
            feeder = Feeder(events, len(records[0]))
            feeder.feed(records)
            feeder.close()
        host.wait(lambda: f'"event.sequence":{count},' in host.log.read_text())
        seen = missed = 0
        while seen + missed < count:
            answer = json.loads(answers.readline())
            seen += "item" in answer
            missed += answer.get("missed", 0)
        assert (seen + missed, missed > 0) == (count, True)


# The socket itself


def test_invalid_requests_are_answered_and_the_server_goes_on(host: Controlled) -> None:
    with host.connect() as connection:
        answers = exchange(
            connection,
            b"\xff\xfe\n",
            b"[]\n",
            b'{"command":7}\n',
            b'{"command":"why"}\n',
            b'{"command":"ban","address":"203.0.113.9","duration":"long"}\n',
            b'{"command":"ban","address":"203.0.113.9","duration":-1}\n',
            b'{"command":"ban","address":"203.0.113.9","duration":1e999}\n',
            b'{"command":"top","most":1000000}\n',
            b'{"command":"watch","actions":"all"}\n',
            b"[" * 60000 + b"\n",
            b'{"command":"status"}\n',
        )
    assert [answer["ok"] for answer in answers] == [False] * 10 + [True]
    assert {answer["error"]["kind"] for answer in answers[:-1]} == {"input"}
    assert not host.banned()


def test_an_edit_with_half_a_character_is_answered(host: Controlled) -> None:
    for request in (
        b'{"command":"deny","addresses":["203.0.113.9"],"expires":"\\ud800"}\n',
        b'{"command":"deny","addresses":["203.0.113.9\\ud800"]}\n',
        b'{"command":"confirm","token":"\\ud800"}\n',
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(host.edit))
            (answer,) = exchange(connection, request)
            assert not answer["ok"] and answer["error"]["message"]


def test_a_reason_that_is_not_utf8_is_logged(host: Controlled) -> None:
    host.stop()
    done = host.ctl("ban", "203.0.113.9", "--reason", "\udcff")
    assert (done.status, host.banned()) == (DONE, {"203.0.113.9"}), done.err


def test_a_request_without_end_is_cut_off(host: Controlled) -> None:
    with host.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b"x" * 100_000)
        assert json.loads(answers.readline())["error"]["kind"] == "input"
        assert answers.readline() == b""


def test_clients_of_one_user_are_bounded(host: Controlled) -> None:
    held = [host.connect() for dummy in range(8)]
    try:
        for connection in held:
            exchange(connection, b'{"command":"status"}\n')
        done = host.ctl("top")
        assert done.status == FAILED
        assert "at most 32 and 8" in done.err
        assert host.ctl("top", user=READER).status == DONE
    finally:
        for connection in held:
            connection.close()
    host.wait(lambda: host.ctl("top").status == DONE)


@pytest.mark.slow
def test_who_is_refused_often_does_not_fill_the_log(host: Controlled) -> None:
    code = (
        "import socket, sys\n"
        "for n in range(500):\n"
        "    with socket.socket(socket.AF_UNIX) as s:\n"
        "        s.connect(sys.argv[1])\n"
        "        s.recv(500)\n"
    )
    before = len(host.lines())
    assert host.python(code, str(host.control), user=OUTSIDER).status == 0
    host.wait(lambda: any("were refused" in x.get("message", "") for x in host.lines()[before:]))
    assert len(host.lines()) - before < 150


@pytest.mark.slow
def test_memory_with_all_clients_and_bans(host: Controlled) -> None:
    """As many bans as the map takes, all logged at once, to a client that follows everything."""
    with host.connect() as slow:
        slow.sendall(b'{"command":"watch"}\n')
        assert host.process is not None
        # The agent is stopped, so that it reads all of them at once.
        host.process.send_signal(signal.SIGSTOP)
        with host.bans() as bans:
            for number in range(12000):
                bans.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 3600)
        host.process.send_signal(signal.SIGCONT)
        time.sleep(3)
        assert len(host.ctl("bans", "--json", user=READER).json["bans"]) == 12000
        host.ctl("top", "--json", user=READER)
        print("agent VmHWM", host.resident_kib("VmHWM"), "VmRSS", host.resident_kib())
        assert host.resident_kib("VmHWM") <= LIMIT_KIB


def test_the_socket_goes_with_the_agent(host: Controlled) -> None:
    host.stop()
    assert not host.control.exists()
    leftover = socket.socket(socket.AF_UNIX)
    leftover.bind(str(host.control))
    leftover.close()
    os.chown(host.control, AGENT.uid, AGENT.gid)
    host.start()
    assert host.ctl("top").status == DONE
    assert host.process is not None
    host.process.send_signal(signal.SIGKILL)
    host.process.wait()
    host.process = None
    host.start()
    assert host.ctl("top").status == DONE


@pytest.mark.slow
def test_an_agent_that_waits_says_so(bytecode_cache: Path) -> None:
    wire = Wire()
    bare = Controlled(wire, bytecode_cache)
    try:
        with wire.host.entered():
            bare.start(wait_for="check that the filter is loaded")
            for command in (*READS[2:5], "ban 203.0.113.9"):
                done = bare.ctl(*command.split(), user=ADMIN)
                assert done.status == FAILED
                assert "the agent sees no filter" in done.err
            assert bare.ctl("ban", "203.0.113.9", user=READER).status == REFUSED
            assert "no interface is filtered" in bare.ctl("status").out
            bare.load()
            bare.wait(lambda: bare.ctl("top").status == DONE)
    finally:
        bare.close()
        wire.close()
