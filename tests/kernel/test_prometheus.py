# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Prometheus scrapes a real agent, and answers the queries of rules and dashboard."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kernel.test_agent as agents
import pytest
from kernel.feeder import connection
from kernel.hosting import wait
from lab.prometheus import HERE, Prometheus, complaints, get
from unit.catalogue import CATALOGUE

FILES = agents.ROOT / "roles/packetwatch/files"
RULES = FILES / "prometheus/packetwatch.rules.yml"
# It has a value for each interface that has a next program.
NEXT = "packetwatch_next_program"
host = agents.host

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes maps"),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus is installed"),
]


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["packetwatch.rules.yml", "packetwatch-fleet.rules.yml"])
def test_rules_are_rules(name: str, tmp_path: Path) -> None:
    rules = str(RULES.with_name(name))
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", rules, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "tests"),
    [
        ("packetwatch.rules.yml", "rules_test.yml"),
        ("packetwatch-fleet.rules.yml", "fleet_rules_test.yml"),
    ],
)
def test_alerts_fire_when_they_should(rules: str, tests: str, tmp_path: Path) -> None:
    shutil.copy(RULES.with_name(rules), tmp_path)
    shutil.copy(Path(__file__).with_name(tests), tmp_path)
    assert "SUCCESS" in promtool("test", "rules", tests, folder=tmp_path)


def test_promtool_finds_no_fault_with_the_metrics(host: agents.Host) -> None:
    host.start()
    assert complaints(get(HERE, "127.0.0.1", host.port, "/metrics")) == ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def scraped(host: agents.Host) -> Iterator[Prometheus]:
    """An agent that has a value for every metric: confirmed state, a note, a heartbeat, a fleet."""
    state = host.folder / "config/3"
    (state / "policy.d").mkdir(parents=True)
    (state / "interfaces").write_text("lo auto\n")
    (host.folder / "config/current").symlink_to("3")
    status = host.folder / "status.json"
    note = {
        "number": 3,
        "interfaces": {"lo": {"program": 1, "mode": "generic", "attached": True}},
        "digest": "ab" * 32,
        "matches": True,
        "bytes": 65536,
        "capacity": 131072,
        "counts": {
            "allow": 1,
            "deny": 2,
            "expired": 1,
            "undecided": 1,
            "ranges_ipv4": 3,
            "ranges_ipv6": 4,
            "left_out": 5,
            "broken_feeds": 0,
        },
        "idle": {"shadowed": 1, "impossible": 1, "expired": 1},
        "feeds": {"drop": {"fetched": time.time(), "published": time.time() - 60}},
        "expired_feeds": {"zeus": time.time()},
        "verified": time.time(),
        "tracks": 5,
        "apply": {"time": time.time(), "success": True},
        "heal": {"time": time.time(), "success": 1, "failure": 0, "found": [], "left": []},
    }
    status.write_text(json.dumps(note))
    host.start(
        PW_STATUS_FILE=str(status),
        PW_HEARTBEAT_URL=f"http://127.0.0.1:{free_port()}/{{status}}",
        PW_FLEET="enforce",
        PW_FLEET_USER="65534",
    )
    agents.feed(host, [connection(number) for number in range(1, 101)])
    prometheus = Prometheus(host.folder, RULES, f"127.0.0.1:{host.port}", free_port())
    try:
        wait(prometheus.is_scraping, 60)
        yield prometheus
    finally:
        prometheus.close()


def dashboard_queries() -> list[str]:
    board = json.loads((FILES / "grafana/packetwatch.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in board["annotations"]["list"]]
    return [query.replace("$instance", ".*").replace("$__rate_interval", "10s") for query in found]


@pytest.mark.slow
def test_it_is_scraped_and_every_query_has_an_answer(scraped: Prometheus) -> None:
    wait(lambda: len(scraped.query("rate(packetwatch_events_total[10s])")) == 1, 30)
    records = scraped.query('packetwatch_agent_records_total{type="connection"}')
    assert [sample["value"][1] for sample in records] == ["100"]
    assert scraped.query("up")[0]["value"][1] == "1"

    known = scraped.ask("metadata")
    for name, (kind, text) in CATALOGUE.items():
        if name == NEXT:
            assert name not in known, "no interface has a next program"
            continue
        assert known[name] == [{"type": kind, "help": text, "unit": ""}]
        assert scraped.query(name), name

    for query in dashboard_queries():
        answer = scraped.query(query)
        # lo is not filtered, nothing was applied within two minutes, and no interface has a next program.
        assert answer or ">" in query or NEXT in query, query

    (group,) = scraped.ask("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    wait(
        lambda: {rule["health"] for rule in scraped.ask("rules")["groups"][0]["rules"]} == {"ok"},
        30,
    )
    pending = {alert["labels"]["alertname"] for alert in scraped.ask("alerts")["alerts"]}
    assert pending == {"PacketwatchNotFiltering", "PacketwatchFeedExpired"}
