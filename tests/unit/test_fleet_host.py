# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet process without a store: settings, brake, reports, pauses, clock, words."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from packetwatch_agent.control import answers, show
from packetwatch_agent.control.ctl.session import FLEET_SOCKET
from packetwatch_agent.part import Part
from packetwatch_agent.settings import read_as
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import Endpoint, parse_endpoints
from packetwatch_core._setup import places
from packetwatch_fleet.fold import Ban
from packetwatch_fleet.host.applier import Applier, _Difference
from packetwatch_fleet.host.brake import Place, why_not_lift
from packetwatch_fleet.host.picture import Picture
from packetwatch_fleet.host.settings import FleetSettings
from packetwatch_fleet.host.status import Status
from packetwatch_fleet.host.witness import Witness
from packetwatch_fleet.plugins import FOLDER
from packetwatch_fleet.reports import MAX_BANS, MAX_PAIRS, Reports
from packetwatch_fleet.sources import Sources
from packetwatch_fleet.store.backoff import Backoff
from packetwatch_fleet.store.dates import Clock
from packetwatch_fleet.store.folder import Folder
from packetwatch_fleet.store.http import parse_date
from packetwatch_fleet.store.interface import Gone, Put, Relisted
from packetwatch_fleet.store.plugins import open_store

ROOT = Path(__file__).resolve().parents[2]
UNIT = (ROOT / "roles/packetwatch/files/units/packetwatch-fleet.service").read_text()


def loaded_by(folder: Path, modules: str) -> set[str]:
    """Return all modules that a process has loaded after these."""
    for name, place in (
        ("packetwatch_core", "plugins/module_utils"),
        ("packetwatch_agent", "roles/packetwatch/files/agent/packetwatch_agent"),
        ("packetwatch_fleet", "roles/packetwatch/files/fleet/packetwatch_fleet"),
    ):
        (folder / name).symlink_to(ROOT / place)
    done = subprocess.run(
        [sys.executable, "-s", "-c", f"import sys, {modules}\nprint(*sys.modules)"],
        env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_process_loads_nothing_that_touches_maps(tmp_path: Path) -> None:
    """That would be a megabyte on each host, for what the process may not do."""
    loaded = loaded_by(tmp_path, "packetwatch_fleet.host.__main__, packetwatch_fleet.store.etcd")
    assert "packetwatch_fleet.store.follower" in loaded
    assert not loaded & {"ctypes", "packetwatch_core._kernel.libbpf"}


def test_an_agent_without_a_fleet_loads_nothing_for_it(tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, "packetwatch_agent.assembly")
    assert {"packetwatch_agent.keeper", "packetwatch_agent.control.server"} < loaded
    own = {f"packetwatch_agent.{name}" for name in ("fleet", "sightings", "vetoes")}
    assert not loaded & {*own, "packetwatch_core._bans.fleet", "packetwatch_fleet", "ssl"}


# Settings and places


def test_defaults_are_where_the_unit_and_the_command_look() -> None:
    found = read_as(FleetSettings, {})
    assert found.store == "none" and found.problems == {}
    assert found.control_socket == FLEET_SOCKET == "/run/packetwatch-fleet/control.sock"
    assert "\nRuntimeDirectory=packetwatch-fleet\n" in UNIT
    assert found.state_dir == "/var/lib/packetwatch-fleet"
    assert "\nStateDirectory=packetwatch-fleet\n" in UNIT
    assert f"\nLoadCredential=fleet:{places.CREDENTIALS}\n" in UNIT
    own = {"/run/packetwatch-fleet", "/var/lib/packetwatch-fleet", places.CREDENTIALS}
    assert own < set(places.DATA)


def test_the_agents_settings_are_shared_where_they_mean_the_same() -> None:
    found = read_as(
        FleetSettings,
        {
            "PW_CONTROL_SOCKET": "/run/x.sock",
            "PW_METRICS_LISTEN": "127.0.0.1:1",
            "PW_SHARED_PREFIXES": "2001:db8::/64",
            "PW_READERS": "a b",
            "PW_FLEET_ENFORCERS": "e1,api",
            "PW_FLEET_HOST": "Web 1",
        },
    )
    assert found.agent_socket == "/run/x.sock"
    assert found.control_socket == FLEET_SOCKET
    assert found.metrics_listen == ("127.0.0.1", 9478)
    assert found.shared_prefixes == [parse_prefix("2001:db8::/64")]
    assert (found.readers, found.enforcers) == ("a b", ("e1", "api"))
    assert "'Web 1'" in found.problems["PW_FLEET_HOST"]


def test_the_credentials_of_the_role_are_those_of_the_unit() -> None:
    task = (ROOT / "roles/packetwatch/tasks/fleet.yml").read_text()
    names = set(re.findall(r"- name: ([a-z]+(?:\.pem)?)$", task, re.MULTILINE))
    assert names == set(re.findall(r"=%d/fleet_(\S+)", UNIT))
    assert "no_log: true" in task and task.count('mode: "0600"') == 1


def test_endpoints() -> None:
    assert parse_endpoints("a=192.0.2.1:2378, [2001:db8::1]:1", "X") == [
        Endpoint("a", "192.0.2.1", 2378),
        Endpoint("2001:db8::1", "2001:db8::1", 1),
    ]
    for text in ("a=host:1", "192.0.2.1", "A=192.0.2.1:1", "a=2001:db8::1:1", "=x", "a=1.2.3.4:0"):
        with pytest.raises(InvalidInput, match=r"X has .*NAME=ADDRESS:PORT"):
            parse_endpoints(text, "X")


def test_each_metric_is_documented() -> None:
    parts: list[type[Part]] = [Picture, Applier, Witness, Status]
    names = {name for part in parts for name in part.METRICS}
    page = (ROOT / "docs/fleet-host.md").read_text()
    assert set(re.findall(r"^\| `(packetwatch_fleet_[a-z_]+)` \|", page, re.MULTILINE)) == names


RULES = ROOT / "roles/packetwatch/files/prometheus/packetwatch-fleet.rules.yml"


def test_each_alert_is_documented() -> None:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    page = (ROOT / "docs/fleet-host.md").read_text()
    for rule in group["rules"]:
        assert f"`{rule['alert']}`" in page


FIRED = """
rule_files: [packetwatch-fleet.rules.yml]
tests:
  - interval: 1m
    input_series:
      - {series: 'packetwatch_fleet_connected{instance="a"}', values: 1x30 0x30}
      - {series: 'packetwatch_fleet_answer_age_seconds{instance="b"}', values: 2x30 90x30}
      - {series: 'packetwatch_fleet_revision{instance="c"}', values: 7x30 _x30}
      - {series: 'packetwatch_fleet_bans_held{instance="d"}', values: 0x30 3x30}
      - {series: 'packetwatch_fleet_bans_missing{instance="e"}', values: 0x30 1x30}
      - {series: 'packetwatch_fleet_clock_offset_seconds{instance="f"}', values: 1x30 -9x30}
      - {series: 'packetwatch_fleet_observations_lost_total{instance="g"}', values: 0+50x30 1500+500x30}
      - {series: 'packetwatch_fleet_bans_refused{instance="h",reason="quota"}', values: 0x30 5x30}
      - {series: 'packetwatch_fleet_bans_refused{instance="h",reason="veto"}', values: 5x60}
      - {series: 'packetwatch_fleet_values_refused_total{instance="i",reason="version"}', values: 3x39 3+1x30}
      - {series: 'packetwatch_fleet_enforcer_age_seconds{instance="a",enforcer="e1"}', values: 20x30 20+60x30}
      - {series: 'packetwatch_fleet_enforcer_age_seconds{instance="b",enforcer="e1"}', values: 20x60}
      - {series: 'packetwatch_fleet_enforcer_age_seconds{instance="a",enforcer="e2"}', values: 20x30 20+60x30}
      - {series: 'packetwatch_enforcer_connected{instance="n1"}', values: 1x30 0x30}
      - {series: 'packetwatch_enforcer_connected{instance="n2"}', values: 1x30 _x30}
      - {series: 'packetwatch_enforcer_connected{instance="n3"}', values: 1x90}
      - {series: 'packetwatch_enforcer_blind{instance="n1"}', values: 0x30 1x30}
      - {series: 'packetwatch_enforcer_blind{instance="n3"}', values: 0x30 1x30}
      - {series: 'packetwatch_enforcer_rule_fault{instance="n3",rule="own"}', values: 0x30 1x30}
      - {series: 'packetwatch_enforcer_refused_total{instance="n3",reason="never"}', values: 0x30 0+2x30}
      - {series: 'packetwatch_enforcer_refused_total{instance="n3",reason="hold"}', values: 0+9x60}
      - {series: 'packetwatch_enforcer_clock_offset_seconds{instance="n3"}', values: 0x30 -7x30}
      - {series: 'packetwatch_api_requests_total{instance="n3",status="5xx"}', values: 0x30 0+2x30}
      - {series: 'packetwatch_api_requests_total{instance="n3",status="4xx"}', values: 0+9x60}
      - {series: 'packetwatch_api_store_answers{instance="n1"}', values: 1x30 0x30}
      - {series: 'packetwatch_api_store_answers{instance="n2"}', values: 1x30 _x30}
      - {series: 'packetwatch_enforcer_rule_value{instance="n3",rule="quorum",value="unreachable"}', values: 0x10 1x100}
      - {series: 'packetwatch_enforcer_rule_value{instance="n3",rule="sweep",value="unreachable"}', values: 0x100}
      - {series: 'packetwatch_enforcer_rule_value{instance="n3",rule="sweep",value="entries"}', values: 1x100}
    promql_expr_test:
      - {expr: 'count by (alertname, instance) (ALERTS{alertstate="firing"})', eval_time: 29m, exp_samples: []}
      - expr: count by (alertname, instance) (ALERTS{alertstate="firing"})
        eval_time: 50m
        exp_samples:
          - {labels: '{alertname="PacketwatchFleetLost", instance="a"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetLost", instance="b"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetProcessGone", instance="c"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetBrake", instance="d"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetBansMissing", instance="e"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetClock", instance="f"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetBlind", instance="g"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetBansRefused", instance="h"}', value: 1}
          - {labels: '{alertname="PacketwatchFleetValuesRefused", instance="i"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerSilent"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerLost", instance="n1"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerGone", instance="n2"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerBlind", instance="n3"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerRuleOff", instance="n3"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerRefuses", instance="n3"}', value: 1}
          - {labels: '{alertname="PacketwatchEnforcerClock", instance="n3"}', value: 1}
          - {labels: '{alertname="PacketwatchApiErrors", instance="n3"}', value: 1}
          - {labels: '{alertname="PacketwatchApiGone", instance="n1"}', value: 1}
          - {labels: '{alertname="PacketwatchApiGone", instance="n2"}', value: 1}
      - expr: count by (instance, rule) (ALERTS{alertname="PacketwatchEnforcerRuleUnreachable",alertstate="firing"})
        eval_time: 75m
        exp_samples:
          - {labels: '{instance="n3", rule="quorum"}', value: 1}
      - expr: ALERTS{alertname="PacketwatchEnforcerSilent",alertstate="firing"}
        eval_time: 50m
        exp_samples:
          - labels: ALERTS{alertname="PacketwatchEnforcerSilent",alertstate="firing",enforcer="e2",severity="critical"}
            value: 1
"""


@pytest.mark.skipif(not shutil.which("promtool"), reason="no Prometheus is installed")
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    (tmp_path / "test.yml").write_text(FIRED)
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_stores_by_name(tmp_path: Path) -> None:
    assert open_store("none", {}) is None
    with pytest.raises(InvalidInput, match="PW_FLEET_STORE is 'consul'"):
        open_store("consul", {})
    with pytest.raises(InvalidInput, match="PW_FLEET_ENDPOINTS"):
        open_store("etcd", {})
    with pytest.raises(InvalidInput, match="PW_FLEET_FOLDER"):
        open_store("folder", {"PW_FLEET_FOLDER": "x"})
    given = {"PW_FLEET_ENDPOINTS": "192.0.2.1:1", "PW_FLEET_ACCOUNT": "a"}
    with pytest.raises(InvalidInput, match="PW_FLEET_PASSWORD_FILE"):
        open_store("etcd", given | {"PW_FLEET_PASSWORD_FILE": str(tmp_path / "none")})
    with pytest.raises(InvalidInput, match="PW_FLEET_CA"):
        open_store("etcd", given | {"PW_FLEET_ACCOUNT": "", "PW_FLEET_CA": str(tmp_path / "none")})
    (tmp_path / "mine.py").write_text(
        "from packetwatch_fleet.store.folder import Folder\n"
        "def open_store(settings):\n    return Folder(settings['MINE'])\n"
    )
    assert Path(places.CREDENTIALS) not in Path(FOLDER).parents, "the process could not read it"
    store = open_store("mine", {"MINE": str(tmp_path / "store")}, str(tmp_path))
    assert store
    assert store.write("/a", b"1") == 2


# The folder


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    store = Folder(str(tmp_path / "store"))
    first = store.write("/a/x", b"1")
    follower = store.follow("/a/")
    [listed] = follower.step()
    assert isinstance(listed, Relisted)
    assert listed.snapshot.items == {"/a/x": (first, b"1")}
    assert listed.snapshot.cluster
    second = store.write("/a/y", b"2")
    store.write("/b/z", b"3")
    store.delete("/a/x")
    store.write("/a/short", b"", ends=time.time() + 1)
    time.sleep(0.25)
    changes = follower.step()
    assert {type(change) for change in changes} == {Gone, Put}
    assert Put("/a/y", b"2", second) in changes
    time.sleep(2.2)
    assert [change.key for change in follower.step() if isinstance(change, Gone)] == ["/a/short"]
    follower.close()


# The clock


def test_a_few_dates_bound_the_time_better_than_one() -> None:
    clock = Clock()
    assert clock.offset() is None
    # The store is 1000.25 seconds ahead; an answer takes 10 ms.
    for sent in (0.0, 0.3, 0.6, 0.9, 1.7):
        clock.note(int(sent + 0.005 + 1000.25), sent, sent + 0.01)
    assert abs((clock.offset() or 0) - 1000.25) < 0.2
    # Another node's clock, or one that was set.
    clock.note(500, 2.0, 2.01)
    assert abs((clock.offset() or 0) - 498.5) < 0.6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 29 Nov 2026 15:10:15 GMT", 1795965015),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1709251199),
        ("Fri, 31 Dec 2100 00:00:00 GMT", 4133894400),
        ("Sunday, 29-Nov-26 15:10:15 GMT", None),
        ("Sun, 29 Nov 2026 25:10:15 GMT", None),
        ("", None),
    ],
)
def test_dates(text: str, seconds: int | None) -> None:
    assert parse_date(text) == seconds


def test_pauses_grow_and_have_chance_in_them() -> None:
    backoff = Backoff()
    backoff.begin()
    pauses = [backoff.pause() for dummy in range(8)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (0.5, 1, 2, 4, 6, 6, 6, 6)))
    assert len(set(pauses)) == 8
    backoff.reset()
    assert backoff.pause() <= 0.5


# The brake


@pytest.mark.parametrize(
    ("before", "after", "lifts", "bans", "why"),
    [
        (Place("a", 9), Place("a", 10), 0, 500, ""),
        (Place("a", 9), Place("a", 10), 100, 100, ""),
        (Place("a", 9), Place("a", 10), 101, 300, ""),
        (Place("a", 9), Place("a", 10), 101, 201, "101 of 201"),
        (Place("a", 9), Place("a", 8), 1, 500, "back from revision 9 to 8"),
        (Place("a", 9), Place("b", 10), 1, 500, "another one"),
        (Place("a", 9), Place("b", 10), 0, 500, ""),
        (Place(), Place("b", 10), 1, 500, ""),
    ],
)
def test_the_brake(before: Place, after: Place, lifts: int, bans: int, why: str) -> None:
    found = why_not_lift(before, after, lifts, bans)
    assert why in found and bool(why) == bool(found)


# The comparison with the kernel


def difference(items: list[Any], longest: Any = 604800) -> _Difference:
    wanted = {
        "192.0.2.1": Ban(1600, 900, "answer", "e1", "r", 3),
        "2001:db8::/64": Ban(1600, 900, "answer", "e1", "r", 3),
        "192.0.2.3": Ban(2_000_000, 900, "manual", "api", "r", 0),
    }
    found = _Difference(set(wanted), wanted.get, Sources(), 1000)
    for item in items:
        found.take(item)
    found.cap(longest)
    return found


def test_what_the_kernel_has_is_compared() -> None:
    found = difference(
        [["192.0.2.1", 599, "answer"], ["2001:db8::/64", 500, "answer"], ["192.0.2.9", 60, "syn"]]
    )
    assert (found.missing, found.other, set(found.extra)) == (
        {"192.0.2.3"},
        {"2001:db8::/64"},
        {"192.0.2.9"},
    )
    assert found.extra["192.0.2.9"].until == 1060
    assert difference([["192.0.2.1", 600, "syn"]]).other == {"192.0.2.1"}
    assert difference([["192.0.2.1", 700, "answer"]]).other == {"192.0.2.1"}


def test_a_ban_that_the_agent_bounds_is_prolonged_now_and_then() -> None:
    assert difference([["192.0.2.3", 604_000, "manual"]]).other == set()
    assert difference([["192.0.2.3", 500_000, "manual"]]).other == {"192.0.2.3"}


def test_items_that_are_not_understood_are_left_out() -> None:
    wrong: list[Any] = [None, [], ["192.0.2.1"], ["192.0.2.1", "x", "syn"], ["x", 1, "syn"]]
    assert difference(wrong).count == 0


# Reports


def test_reports_are_bounded() -> None:
    reports = Reports(Sources())
    for number in range(MAX_BANS + 10):
        address = f"198.51.{number >> 8}.{number & 255}"
        assert reports.take({"ban": [address, list(range(1, 65)), 600.0, "syn"]}, 10.0) == "bans"
    for number in range(MAX_PAIRS + 7):
        assert reports.take({"probe": ["203.0.113.7", number + 1]}, 10.0) == "seen"
    bans, seen = reports.bans(10.0, 1e9), reports.seen(10.0, 1e9)
    assert len(bans) < 16_000 and len(seen) < 16_000
    rows = json.loads(bans)["bans"]
    assert len(rows) == MAX_BANS and rows[-1][0] == address
    assert rows[0][1:] == [1e9 + 610, 1e9 + 10, [1, 2, 3, 4, 5, 6, 7, 8], "syn"]
    found = json.loads(seen)
    pairs = base64.b64decode(found["p"])
    assert pairs[:6] == bytes([203, 0, 113, 7, 0, 1]) and len(pairs) == 6 * MAX_PAIRS
    assert found["lost"] == 7
    # Each report begins anew, and has a number of its own.
    assert json.loads(reports.seen(11.0, 1e9)) == found | {"n": 2, "t": 1e9 + 11, "p": ""}


def test_a_pair_is_reported_once_and_ipv6_by_its_64() -> None:
    reports = Reports(Sources())
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::1"):
        reports.take({"probe": [address, 258]}, 0.0)
    found = json.loads(reports.seen(0.0, 0.0))
    assert base64.b64decode(found["p6"]) == bytes.fromhex("20010db800000000") + b"\x01\x02"


def test_bans_that_have_ended_are_not_reported() -> None:
    reports = Reports(Sources())
    for address, seconds in (("192.0.2.1", 5), ("192.0.2.2", 50), ("2001:db8::7", 50)):
        reports.take({"ban": [address, [], seconds, "answer"]}, 0.0)
    assert reports.take({"end": ["2001:db8::/64", "192.0.2.99"]}, 1.0) == "bans"
    assert reports.take({"end": ["192.0.2.99"]}, 1.0) == ""
    assert [row[0] for row in json.loads(reports.bans(6.0, 0.0))["bans"]] == ["192.0.2.2"]


# Words


FLEET: dict[str, Any] = {
    "store": {
        "connected": True,
        "endpoint": "192.0.2.11:2378",
        "cluster": "1",
        "revision": 7,
        "age": 2.0,
        "problem": "",
        "declared": 12,
        "held": 2,
        "clock": -0.2,
        "values_refused": {"row": 3},
        "rules": {"e1": 1795965015},
    },
    "agent": {"bans": 11, "missing": 1, "refused": {"protected": 1}, "problem": ""},
    "reports": {"host": "web1", "reports": {"bans": 4}, "lost": 5, "problem": "no answer"},
}


def test_the_state_of_the_fleet_in_words() -> None:
    assert answers.RESULTS["fleet"](FLEET) == FLEET
    assert show.fleet(FLEET) == [
        "store: following 192.0.2.11:2378, revision 7, heard of 2s ago",
        "bans: 12 declared, 11 in the kernel, 1 missing, refused: 1 protected",
        "kept: 2 bans that the store does not have any more",
        "clock: -0.2 s from that of the fleet",
        "enforcer e1: last heard of 2026-11-29T15:10:15Z",
        "reports of web1: 4 bans",
        "5 observations not reported",
        "values of the store that do not count: 3 row",
        "PROBLEM: no answer",
    ]
    away = FLEET | {"store": FLEET["store"] | {"connected": False, "age": None}}
    assert show.fleet(away)[0] == "store: NOT FOLLOWED, revision 7, never heard of"


@pytest.mark.parametrize(
    ("fleet", "line"),
    [
        (
            {
                "source": "192.0.2.1",
                "ban": {
                    "enforcer": "e1",
                    "rule": "quorum",
                    "evidence": "syn",
                    "hosts": 3,
                    "since": 1795965000,
                    "until": 1795965015,
                },
                "decisions": 1,
                "lifted": None,
            },
            "  fleet: 192.0.2.1 is banned until 2026-11-29T15:10:15Z by e1/quorum, evidence syn, seen by 3 hosts",
        ),
        (
            {
                "source": "192.0.2.1",
                "ban": {
                    "enforcer": "e1",
                    "rule": "sweep",
                    "evidence": "syn",
                    "hosts": 5,
                    "since": 1795965000,
                    "until": 1795965015,
                    "why": "it was there",
                    "at": ["web1", "web2"],
                    "ports": [22, 23],
                },
                "decisions": 1,
                "lifted": None,
            },
            "  fleet: 192.0.2.1 is banned until 2026-11-29T15:10:15Z by e1/sweep, evidence syn, seen by 5 hosts "
            "(web1, web2), ports 22, 23: it was there",
        ),
        (
            {"source": "192.0.2.1", "ban": None, "decisions": 1, "lifted": 1795965015},
            "  fleet: 192.0.2.1 is not banned, lifted 2026-11-29T15:10:15Z",
        ),
        ({"problem": "no answer"}, "  fleet: not known: no answer"),
    ],
)
def test_what_the_fleet_says_about_an_address(fleet: dict[str, Any], line: str) -> None:
    if "source" in fleet:
        assert answers.RESULTS["fleet_why"](fleet) == fleet
    result: dict[str, Any] = {
        "address": "192.0.2.1",
        "because": "unlisted",
        "verdict": "passes",
        "interfaces": [],
        "chains": {},
        "declared": {"verdict": "none", "entries": [], "inside": 0},
        "live": None,
        "protected": "",
        "bans": [],
        "notes": [],
        "fleet": fleet,
    }
    assert line in show.why(result)
