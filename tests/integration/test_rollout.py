# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks on three hosts with the whole role: batches, reports, rollback, panic.

All hosts are installed once; each test leaves them as it found them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.fleet import HOST, PEER, Fleet, Run, make_fleet

if TYPE_CHECKING:
    from tests.integration.conftest import ModuleHost

pytestmark = pytest.mark.slow(50)

SITE = "packetwatch.xdp.site"
FIRST = "198.51.100.7"
SECOND = "198.51.100.8"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Run, Run]]:
    """The fleet, the first run of the role, during which one host was down, and the second run."""
    with make_fleet(3, tmp_path_factory.mktemp("fleet"), attach=False) as fleet:
        fleet.variables["packetwatch_deny"] = [FIRST]
        fleet.cut("h02")
        first = fleet.play(SITE)
        fleet.cut("h02", up=True)
        yield fleet, first, fleet.play(SITE)


@pytest.fixture
def fleet(installed: tuple[Fleet, Run, Run]) -> Iterator[Fleet]:
    """All hosts as the inventory declares them, before and after the test."""
    found = installed[0]
    yield found
    for name in found.hosts:
        found.cut(name, up=True)
        found.host_variables[name] = {}
    found.variables = {"packetwatch_deny": [FIRST]}
    settle(found)


def settle(fleet: Fleet) -> None:
    """Bring all hosts to the state that the inventory declares."""
    for name, host in fleet.hosts.items():
        host.module("panic", state="absent", confirm_timeout=0)
        host.module("change", state="rolled_back")
        host.module("access_lists", deny=[FIRST], allow=[], allow_empty=True)
        host.module("policy", action="enforce", confirm_timeout=0)
        assert host.peer_reaches(HOST), name


def test_a_host_that_is_down_is_named_and_holds_up_no_other(
    installed: tuple[Fleet, Run, Run],
) -> None:
    fleet, first, second = installed
    assert first.status != 0, first.output
    recap = first.recap()
    assert recap["h02"]["unreachable"] == 1, first.output
    for name in ("h01", "h03"):
        assert (recap[name]["unreachable"], recap[name]["failed"]) == (0, 0), first.output
        assert recap[name]["changed"] > 0
    assert second.status == 0, second.output
    recap = second.recap()
    assert [recap[name]["changed"] > 0 for name in sorted(recap)] == [False, True, False]
    for name in fleet.hosts:
        assert fleet.denied(name) == f"{FIRST}\n"


def test_a_canary_that_is_locked_out_is_the_only_one_touched(fleet: Fleet) -> None:
    fleet.variables |= {"packetwatch_deny": [PEER], "packetwatch_confirm_timeout": 10}
    done = fleet.play(SITE)
    assert done.status != 0
    assert "was not confirmed in time: the host has reverted" in done.output, done.output
    assert done.recap()["h01"]["failed"] == 1
    for name, host in fleet.hosts.items():
        assert fleet.denied(name) == f"{FIRST}\n", name
        assert host.peer_reaches(HOST)
    # On the other hosts only the first two tasks ran: do they answer, and would they be refused?
    for name in ("h02", "h03"):
        assert done.recap()[name]["ok"] == 2, done.output


def test_a_canary_that_becomes_unreachable_stops_all_others(fleet: Fleet) -> None:
    fleet.variables["packetwatch_deny"] = [SECOND]
    fleet.host_variables["h01"]["gated_lose"] = "modules.__private.units"
    # So there is a task after the change.
    fleet.hosts["h01"].command("rm", "/run/units/packetwatch.service")
    done = fleet.play(SITE)
    assert done.status != 0
    assert done.recap()["h01"]["unreachable"] == 1, done.output
    assert "hosts of earlier batches were not completed: h01" in done.output, done.output
    assert fleet.denied("h01") == f"{SECOND}\n"
    for name in ("h02", "h03"):
        assert fleet.denied(name) == f"{FIRST}\n", name


def test_batches_of_ones_own(fleet: Fleet) -> None:
    fleet.variables["packetwatch_deny"] = [SECOND]
    fleet.host_variables["h02"] = {"packetwatch_deny": [PEER], "packetwatch_confirm_timeout": 10}
    done = fleet.play(SITE, "-e", json.dumps({"packetwatch_batches": [1, 1, "100%"]}))
    assert done.status != 0
    assert [fleet.denied(name) for name in sorted(fleet.hosts)] == [
        f"{SECOND}\n",
        f"{FIRST}\n",
        f"{FIRST}\n",
    ], done.output


def test_report(fleet: Fleet, tmp_path: Path) -> None:
    files = [tmp_path / f"report.{suffix}" for suffix in ("txt", "json", "csv")]
    option = f"packetwatch_report={','.join(map(str, files))}"
    done = fleet.play("packetwatch.xdp.report", "-e", option)
    assert done.status == 0, done.output
    assert "all 3 hosts are as they should be" in done.output
    assert json.loads(files[1].read_text())["ok"] is True

    good = json.loads(files[1].read_text())["hosts"]["h01"]
    assert (good["mode"], good["action"]) == ("pw0=native", "enforce")
    fleet.module("h01", "access_lists", deny=[SECOND])
    fleet.module("h01", "policy", action="monitor", confirm_timeout=0)
    fleet.module("h02", "panic")
    fleet.cut("h03")
    done = fleet.play("packetwatch.xdp.report", "-e", option)
    assert done.status == 2, done.output
    assert "3 of 3 hosts are not as they should be: h01, h02, h03" in done.output
    text = files[0].read_text()
    assert text in done.output
    assert "h01: the lists are not those of the inventory\n" in text
    assert "h02: PANIC of " in text
    assert "h03: not reached: " in text
    hosts = json.loads(files[1].read_text())["hosts"]
    assert hosts["h01"]["digest"] != hosts["h01"]["expected"] == good["digest"]
    assert hosts["h01"]["action"] == "monitor"
    assert hosts["h02"]["panic"] is True
    rows = {row["host"]: row for row in csv.DictReader(files[2].open(encoding="utf-8"))}
    assert rows["h01"]["version"] == good["version"]
    assert rows["h03"]["ok"] == "false"
    assert rows["h03"]["problems"].startswith("not reached: ")


def test_report_of_changes_that_are_not_confirmed(fleet: Fleet) -> None:
    lists = {"deny": [SECOND], "confirm_timeout": 600}
    pending = fleet.module("h01", "access_lists", **lists)
    returned = fleet.module("h02", "access_lists", **lists)
    fleet.module("h02", "change", state="rolled_back", token=returned["token"])
    fleet.module("h03", "policy", scan_ports=9, confirm_timeout=0)
    done = fleet.play("packetwatch.xdp.report")
    fleet.module("h01", "change", state="rolled_back", token=pending["token"])
    fleet.module("h03", "policy", scan_ports=5, confirm_timeout=0)
    assert done.status == 2, done.output
    assert re.search(r"h01: a change of .* is not confirmed yet and reverts in", done.output)
    assert re.search(r"h02 .* reverted at 20\S+Z", done.output), done.output
    assert "h02: " not in done.output
    assert "h03: the policy is not that of the inventory" in done.output
    assert "2 of 3 hosts are not as they should be: h01, h03" in done.output


def test_report_refuses_what_it_cannot_write(fleet: Fleet) -> None:
    done = fleet.play("packetwatch.xdp.report", "-e", "packetwatch_report=report.pdf")
    assert done.status == 2
    assert "report.pdf' has no known suffix; write one of .csv, .json, .txt" in done.output


def test_rollback(fleet: Fleet) -> None:
    fleet.variables["packetwatch_deny"] = [SECOND]
    assert fleet.play(SITE).status == 0
    predicted = fleet.play("packetwatch.xdp.rollback", "--check")
    assert {row["changed"] for row in predicted.recap().values()} == {1}
    done = fleet.play("packetwatch.xdp.rollback")
    assert done.status == 0, done.output
    assert {row["changed"] for row in done.recap().values()} == {1}
    again = fleet.play("packetwatch.xdp.rollback")
    assert {row["changed"] for row in again.recap().values()} == {0}
    for name, host in fleet.hosts.items():
        assert fleet.denied(name) == f"{FIRST}\n"
        # The one-shot that boot and repair use.
        attach(host)
        apply = "PYTHONPATH=/usr/lib/packetwatch/current python3 -m packetwatch_agent apply"
        assert "already active" in host.command("sh", "-c", apply)
    done = fleet.play("packetwatch.xdp.report")
    assert "h01: the lists are not those of the inventory" in done.output


def attach(host: ModuleHost, check: bool = True) -> str:
    """Run what packetwatch-xdp@pw0.service runs at boot; return its output."""
    command = "PYTHONPATH=/usr/lib/packetwatch/current python3 -m packetwatch_agent attach pw0 2>&1"
    return host.command("sh", "-c", command, check=check)


def test_panic(fleet: Fleet) -> None:
    fleet.module("h01", "access_lists", deny=[SECOND], confirm_timeout=600)
    done = fleet.play("packetwatch.xdp.panic")
    assert done.status == 0, done.output
    # The playbook has one task, and nothing runs before it.
    assert {row["ok"] for row in done.recap().values()} == {1}, done.output
    for host in fleet.hosts.values():
        assert host.mode("pw0") == ""
        assert "PANIC of " in attach(host, check=False)
        assert host.mode("pw0") == ""
    refused = fleet.play(SITE)
    assert refused.status == 2
    assert "PANIC of packetwatch.xdp.panic (user root) since 20" in refused.output, refused.output
    report = fleet.play("packetwatch.xdp.report")
    assert "3 of 3 hosts are not as they should be" in report.output
    lifted = fleet.play("packetwatch.xdp.panic", "-e", "packetwatch_panic=absent")
    assert lifted.status == 0, lifted.output
    for host in fleet.hosts.values():
        assert host.mode("pw0") == "xdp"
    done = fleet.play(SITE)
    assert done.status == 0, done.output
    wrong = fleet.play("packetwatch.xdp.panic", "-e", "packetwatch_panic=off")
    assert wrong.status == 2
    assert "value of state must be one of: present, absent, got: off" in wrong.output


def test_lifting_a_panic_that_would_lock_out_is_reverted(fleet: Fleet) -> None:
    fleet.play("packetwatch.xdp.panic")
    fleet.module("h02", "access_lists", deny=[PEER], force=True, confirm_timeout=0)
    lift = {"packetwatch_panic": "absent", "packetwatch_confirm_timeout": 5}
    done = fleet.play("packetwatch.xdp.panic", "-e", json.dumps(lift))
    assert done.status == 2, done.output
    assert [row["failed"] for dummy, row in sorted(done.recap().items())] == [0, 1, 0]
    assert fleet.hosts["h02"].mode("pw0") == ""
    assert fleet.hosts["h02"].peer_reaches(HOST)
    fleet.module("h02", "access_lists", deny=[FIRST])


def test_unban(fleet: Fleet) -> None:
    for name in ("h01", "h03"):
        fleet.module(name, "ban", address="203.0.113.9", reason="ticket 4711")
    done = fleet.play("packetwatch.xdp.unban", "-e", "packetwatch_address=203.0.113.9")
    assert done.status == 0, done.output
    changed = {name for name, row in done.recap().items() if row["changed"]}
    assert changed == {"h01", "h03"}
    assert '"origin": "manual"' in done.output, done.output
    assert re.search(r'"since": "20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"', done.output), done.output
    for host in fleet.hosts.values():
        assert host.module("host_info", gather_subset=["bans"])["bans"] == []
    fleet.cut("h02")
    again = fleet.play("packetwatch.xdp.unban", "-e", "packetwatch_address=203.0.113.9")
    assert again.status == 4
    assert again.recap()["h02"]["unreachable"] == 1
    missing = fleet.play("packetwatch.xdp.unban")
    assert "name it with -e packetwatch_address=ADDRESS" in missing.output, missing.output
