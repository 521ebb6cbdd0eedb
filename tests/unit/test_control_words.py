# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What packetwatchctl reads and writes; its manual, completion and documents are complete."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from packetwatch_agent.control import cli, screen, show, truth, why, wire, words
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.clock import Clock
from packetwatch_core._base.errors import InvalidInput, Unreadable
from packetwatch_core._declared.bulk import read_prefixes
from packetwatch_core._declared.store import State
from packetwatch_core._health.chain import Member, as_fields
from packetwatch_core._tables.tables import compile_tables

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/packetwatch/files"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1w", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert words.seconds_from(text) == seconds
    assert words.seconds_from(words.span(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "soon", "-5", "1.5h", "10 m", "10M", "0h", "9" * 30, "٣"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(InvalidInput, match="write seconds"):
        words.seconds_from(text)


def test_times_from_now() -> None:
    assert words.time_from("2027-01-01T00:00:00Z") == "2027-01-01T00:00:00Z"
    assert re.fullmatch(r"20..-..-..T..:..:..Z", words.time_from("12h"))


def test_nothing_moves_a_terminals_cursor() -> None:
    assert "\x1b" not in "".join(words.table([("\x1b[2J", "b")]))
    line = show.event({"@timestamp": "2026-11-23T21:48:47Z", "message": "\x1b[2J\r\nroot"})
    assert line.isprintable()


def test_kinds_of_errors_and_their_statuses() -> None:
    assert wire.status_of(InvalidInput("")) == 2
    assert wire.status_of(wire.ControlError("", wire.DENIED)) == 3
    assert wire.status_of(PermissionError()) == 3
    assert wire.status_of(Unreadable("")) == 1
    for status in (1, 2, 3, 4):
        answer = json.loads(wire.failed(wire.ControlError("text", status)))
        error = wire.error_of(answer)
        assert (error.status, str(error)) == (status, "text")
    assert wire.error_of({"error": 7}).status == 1


# Why


STATE = State(
    allow={"ansible": "192.0.2.7\n2001:db8:1::7 # mail\n"},
    deny={
        "ansible": "192.0.2.0/24 # all\n192.0.2.128/25 expires=2001-01-01T00:00:00Z\n",
        "local": "# by hand\n2001:db8::/32 expires=2099-01-01T00:00:00Z\n",
    },
)


CLOCK = Clock(1.8e9, True)


def tables() -> Any:
    found = {}
    for kind in ("allow", "deny"):
        text = "".join(getattr(STATE, kind).values())
        found[kind] = read_prefixes(text, "x", 1.8e9, True, kind)
    return compile_tables(found["allow"], found["deny"])


@pytest.mark.parametrize(
    ("address", "verdict", "owners"),
    [
        ("192.0.2.7", "allow", ["allow ansible", "deny ansible"]),
        ("192.0.2.8", "deny", ["deny ansible"]),
        ("192.0.2.200", "deny", ["deny ansible", "deny ansible"]),
        ("198.51.100.1", "none", []),
        ("2001:db8:1::7", "allow", ["allow ansible", "deny local"]),
        ("2001:db8::1", "deny", ["deny local"]),
        ("2001:db9::1", "none", []),
    ],
)
def test_declared_and_active_agree(address: str, verdict: str, owners: list[str]) -> None:
    prefix = parse_prefix(address)
    found = why.declared(STATE, prefix, CLOCK)
    assert found["verdict"] == why.verdict_of(tables(), prefix) == verdict
    assert [f"{item['kind']} {item['owner']}" for item in found["entries"]] == owners


@pytest.mark.parametrize(
    ("prefix", "verdict"),
    [
        ("192.0.2.0/24", "mixed"),
        ("192.0.2.16/28", "deny"),
        ("192.0.0.0/16", "mixed"),
        ("198.51.100.0/24", "none"),
        ("2001:db8:2::/48", "deny"),
        ("2001:db8:1::/48", "mixed"),
        ("0.0.0.0/0", "mixed"),
    ],
)
def test_active_verdict_on_networks(prefix: str, verdict: str) -> None:
    assert why.verdict_of(tables(), parse_prefix(prefix)) == verdict


def test_expired_entries_are_shown_as_such() -> None:
    entries = why.declared(STATE, parse_prefix("192.0.2.200"), CLOCK)["entries"]
    assert [item["in_force"] for item in entries] == [False, True]


def test_the_variable_that_has_an_entry_is_named() -> None:
    text = "192.0.2.0/24 # ticket 7 (packetwatch_deny__security[3])\n"
    prefix = parse_prefix("192.0.2.9")
    lists = why.declared(State(deny={"ansible": text}), prefix, CLOCK)
    assert lists["entries"][0]["origin"] == "packetwatch_deny__security[3]"
    lines = show.why(why.explain(prefix, lists, "deny", None, []))
    wanted = "192.0.2.0/24 in deny list 'ansible' (packetwatch_deny__security[3]), # ticket 7"
    assert lines[1] == f"  {wanted}"


def test_an_end_that_is_not_trusted_yet_is_said_to_be_so() -> None:
    prefix = parse_prefix("192.0.2.200")
    lists = why.declared(STATE, prefix, Clock(0, False))
    assert [item["undecided"] for item in lists["entries"]] == [True, False]
    lines = show.why(why.explain(prefix, lists, "deny", None, []))
    assert "expires 2001-01-01T00:00:00Z, which is NOT TRUSTED YET" in lines[1]
    assert "note: the clock is not trusted yet, because it is not synchronised" in lines[-1]
    # A trusted clock has shown a later time before.
    assert not why.declared(STATE, prefix, Clock(1.0e9, False))["entries"][0]["undecided"]


def test_status_has_the_numbers_of_the_metrics() -> None:
    declared = {"allow": {"ansible": 2}, "deny": {"ansible": 1000, "local": 4}}
    result = {"lists": declared, "entries": {"allow": 2, "deny": 1003, "expired": 1}}
    assert show.status(result) == ["entries: 2 allow, 1003 deny, 1 expired"]
    assert show.status({"lists": declared, "entries": {}}) == ["entries: 2 allow, 1004 deny"]


def test_a_clock_that_is_not_as_it_should_be_is_mentioned() -> None:
    assert truth.about_clock(Clock(time.time(), True), "/x") == []
    (note,) = truth.about_clock(Clock(time.time() + 3600, True), "/x")
    assert note.endswith("if the clock was wrong then, remove /x")
    (note,) = truth.about_clock(Clock(0, False), "/x")
    assert "less than ten minutes ago" in note


class Interface:
    """The part of `truth.Interface` that matters here."""

    def __init__(
        self,
        action: str = "enforce",
        scope: str = "connections",
        link_control: str = "pass",
    ) -> None:
        self.name, self.action, self.scope = "eth0", action, scope
        self.link_control = link_control


def explained(verdict: str, *interfaces: Interface, **bans: Any) -> dict[str, Any]:
    lists = {"verdict": verdict, "entries": [], "inside": 0}
    found = {"protected": "", "bans": []} | bans
    return why.explain(parse_prefix("192.0.2.9"), lists, verdict, found, interfaces)


BAN = {
    "source": "192.0.2.9",
    "origin": "scan",
    "kind": "stealth",
    "evidence": "syn",
    "since": 1.0,
    "until": None,
    "ports": 5,
    "dropped": 1,
    "interface": "",
    "short": False,
}


@pytest.mark.parametrize(
    ("verdict", "interface", "bans", "expected"),
    [
        ("allow", Interface(), [BAN], ("allow", "passes")),
        ("deny", Interface(), [BAN], ("deny", "is dropped")),
        ("deny", Interface("monitor"), [], ("deny", "passes, and would be dropped")),
        ("deny", Interface("off"), [], ("deny", "passes")),
        ("none", Interface(), [BAN], ("ban", "new connections are dropped")),
        ("none", Interface(scope="all"), [BAN], ("ban", "is dropped")),
        ("none", Interface("monitor"), [BAN], ("ban", "passes, and would be dropped")),
        ("none", Interface(), [], ("unlisted", "passes")),
    ],
)
def test_order_of_precedence(
    verdict: str, interface: Interface, bans: list[Any], expected: tuple[str, str]
) -> None:
    result = explained(verdict, interface, bans=bans)
    assert (result["because"], result["verdict"]) == expected
    assert show.why(result)[0].startswith(f"192.0.2.9 {expected[1]}")


def member(kind: str, number: int, name: str, *passes_on: str, **fields: Any) -> dict[str, Any]:
    found = Member(kind, number, name, f"tag{number}" if number else "", passes_on)
    return as_fields([found._replace(**fields)])[0]


def shown(**chains: Any) -> list[str]:
    lists = {"verdict": "none", "entries": [], "inside": 0}
    prefix = parse_prefix("192.0.2.9")
    result = why.explain(
        prefix, lists, "none", {"protected": "", "bans": []}, [Interface()], chains=chains
    )
    return [line for line in show.why(result) if "programs on" in line or line.startswith("    ")]


def test_programs_are_shown_in_their_order_with_what_they_hand_on() -> None:
    ours = member("packetwatch", 42, "packetwatch", "pass")
    assert shown(eth0=[ours], eth1=[]) == []
    filter_before = member("other", 7, "xdpfilt_alw_all", "aborted", "pass")
    assert shown(eth0=[filter_before, ours]) == [
        "  programs on eth0, in this order:",
        "    1. xdpfilt_alw_all (id 7, tag tag7), hands on: aborted, pass",
        "    2. packetwatch (id 42, tag tag42), hands on: pass",
    ]
    missing = member("next", 0, "", origin="/sys/fs/bpf/balancer", problem="nothing is pinned")
    assert shown(eth0=[ours, missing])[-1] == (
        "    2. the next program from /sys/fs/bpf/balancer, which DOES NOT RUN: nothing is pinned"
    )


def test_the_kind_of_a_scan_is_shown() -> None:
    manual = BAN | {"origin": "manual", "kind": "", "evidence": "manual"}
    lines = show.why(explained("none", Interface(), bans=[BAN, manual]))
    assert "(scan of kind stealth, evidence syn)" in lines[-2]
    assert "(manual, evidence manual)" in lines[-1]
    kinds = [line.split()[2] for line in show.bans({"bans": [BAN, manual], "notes": []})]
    assert kinds == ["KIND", "stealth", "-"]
    assert [line.split()[2] for line in screen.page(TOP) if "5 ports" in line] == ["udp"]
    line = show.event({"event.action": "ban", "packetwatch.kind": "ack"})
    assert line.split() == ["ban", "kind", "ack"]


def test_protection_beats_a_ban_and_not_a_list() -> None:
    result = explained("none", Interface(), bans=[BAN], protected="x is protected")
    assert (result["because"], result["verdict"]) == ("protected", "passes")
    assert explained("deny", Interface(), protected="x is protected")["because"] == "deny"


def test_control_traffic_that_passes_the_lists_is_noted() -> None:
    def noted(verdict: str, *interfaces: Interface) -> bool:
        return "link_control" in "".join(explained(verdict, *interfaces)["notes"])

    assert noted("deny", Interface())
    assert noted("deny", Interface(link_control="lists"), Interface())
    assert not noted("deny", Interface(link_control="lists"))
    assert not noted("deny", Interface("monitor"))
    assert not noted("allow", Interface())


def test_what_to_do_about_other_lists_depends_on_the_state() -> None:
    lists = {"verdict": "deny", "entries": [], "inside": 0}
    prefix = parse_prefix("192.0.2.9")
    result = why.explain(prefix, lists, "none", None, [Interface()], lambda: "wait")
    assert "the lists declare deny, but the kernel has none: wait" in result["notes"]


def test_interfaces_may_differ() -> None:
    result = explained("deny", Interface(), Interface("monitor"))
    assert result["verdict"] == "depends on the interface"
    assert "monitor" in "\n".join(show.why(result))


def test_nothing_filtered_passes_all() -> None:
    lists = {"verdict": "deny", "entries": [], "inside": 0}
    result = why.explain(parse_prefix("192.0.2.9"), lists, None, None, [])
    assert result["verdict"] == "passes"
    assert "no interface is filtered" in result["notes"][0]


# Screens


TOP = {
    "packets": {"pass unlisted": 1000, "drop ban": 10},
    "sources": [{"source": "192.0.2.9", "connections": 7}],
    "ports": [{"port": 22, "connections": 7}],
    "scans": [{"source": "192.0.2.9", "seen": 1.0, "kind": "udp", "ports": 5, "result": "ban"}],
    "drops": [{"source": "192.0.2.9", "origin": "scan", "dropped": 9}],
}


def test_rates_are_those_since_the_last_look() -> None:
    before = {"packets": {"pass unlisted": 500}}
    assert screen.rates(TOP, before, 2.0) == {"pass unlisted": 250.0, "drop ban": 5.0}
    assert screen.rates(TOP, None, 0.0)["drop ban"] == 10


def test_pages_come_in_the_same_place_and_fit() -> None:
    written: list[str] = []
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        screen.run(lambda: TOP, written.append, 0.5, lambda: 8, sleep)
    assert len(written) == 2
    assert all(text.startswith("\x1b[H\x1b[J") and text.count("\n") <= 7 for text in written)


# The table of commands


def options_of(name: str) -> set[str]:
    """Return all options of a command."""
    actions = cli.parser()._actions
    choices: dict[str, argparse.ArgumentParser] = next(
        action.choices for action in actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        text for action in choices[name]._actions for text in action.option_strings if text != "-h"
    }


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_json_and_is_in_the_manual(name: str) -> None:
    options = options_of(name)
    assert "--json" in options
    manual = (FILES / "man/packetwatchctl.8").read_text().replace("\\-", "-")
    section = manual.partition(".SH COMMANDS")[2].partition(".SH OPTIONS")[0]
    assert re.search(rf"^\.(B|BR) .*\b{name}\b", section, re.MULTILINE)
    for option in options - {"--json", "--help"}:
        assert option in section, option
    assert f"`{name}" in (ROOT / "docs/control.md").read_text()


def complete(*line: str) -> set[str]:
    """What bash proposes after these words."""
    script = (
        f"source {FILES}/completion/packetwatchctl.bash; COMP_WORDS=(packetwatchctl "
        f'{" ".join(line)} ""); COMP_CWORD=${{#COMP_WORDS[@]}}; ((COMP_CWORD--)); '
        'COMP_WORDS[COMP_CWORD]=""; _packetwatchctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_completed(name: str) -> None:
    assert name in complete()
    assert complete(name) == options_of(name)


def test_every_action_of_the_log_is_completed() -> None:
    table = (ROOT / "docs/events.md").read_text().partition("## What happens")[2]
    actions = set(re.findall(r"^\| ([a-z_]+) \| ", table.partition("**Limits")[0], re.MULTILINE))
    assert {"connection", "would_drop_end", "audit"} <= actions
    assert complete("watch", "--action") == actions


def test_what_is_filtered_and_what_is_not_is_said() -> None:
    def shown(mode: str, action: str) -> str:
        (line,) = show.status({"interfaces": {"eth0": {"mode": mode, "action": action}}})
        return line

    assert shown("native", "enforce") == "eth0: filtered, native, enforce"
    assert shown("native", "monitor") == "eth0: only monitored: nothing is dropped, native, monitor"
    assert shown("generic", "off") == "eth0: passes everything, generic, off"
    assert shown("none", "") == "eth0: NOT FILTERED"


def test_statuses_are_in_the_manual() -> None:
    manual = (FILES / "man/packetwatchctl.8").read_text()
    section = manual.partition(".SH EXIT STATUS")[2].partition(".SH RIGHTS")[0]
    assert re.findall(r"^\.B (\d)$", section, re.MULTILINE) == ["0", "1", "2", "3", "4"]


def test_the_launcher_is_isolated(tmp_path: Path) -> None:
    """It runs no code from the caller's environment or working folder."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "packetwatch_agent").symlink_to(FILES / "agent/packetwatch_agent")
    (library / "packetwatch_core").symlink_to(ROOT / "plugins/module_utils")
    text = (FILES / "bin/packetwatchctl").read_text()
    launcher = tmp_path / "packetwatchctl"
    launcher.write_text(text.replace("/usr/lib/packetwatch/current", str(library)))
    launcher.chmod(0o755)
    for name in ("json", "argparse", "sitecustomize", "packetwatch_agent"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code')\n")
    done = subprocess.run(
        [launcher, "lists", "--json"],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(tmp_path),
            "PW_CONFIG_DIR": str(tmp_path / "none"),
            "PW_PINS": str(tmp_path / "none"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["allow"] == {}


def test_wrong_use_has_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["nonsense"], ["ban"], ["top", "--interval", "0"], ["watch", "--action", "x y"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(line)
        assert ended.value.code == 2
    assert "usage: packetwatchctl" in capsys.readouterr().err
