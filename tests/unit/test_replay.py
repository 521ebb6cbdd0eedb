# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``packetwatchctl replay``: decisions of the kept hour, the rules one by one, files and errors."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from kernel.hour import PROTECTED, THRESHOLDS, options
from unit.replaying import NOWHERE, Decision, run

from packetwatch_core._bans.recorded import Recording

RECORDED = Path(__file__).with_name("recorded")
SCANNER, HOST = "203.0.113.7", "192.0.2.1"
BEGIN = 1_790_000_000


class Journal:
    """Lines of an agent, in a file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"
        self._lines: list[str] = []

    def add(self, at: float, action: str, port: int = 0, **fields: Any) -> None:
        """Add an event; in names of fields, ``__`` stands for a dot."""
        seconds, rest = divmod(round(at * 1e6), 10**6)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(BEGIN + seconds))
        line = {
            "@timestamp": f"{moment}.{rest:06d}Z",
            "event.action": action,
            "host.name": "web1",
            "source.ip": SCANNER,
            "destination.ip": HOST,
            "destination.port": port,
            "packetwatch.prefix": f"{SCANNER}/32",
            "packetwatch.kind": "syn",
            "observer.ingress.interface.name": "eth0",
        }
        named = {name.replace("__", "."): value for name, value in fields.items()}
        self._lines.append(json.dumps(line | named))

    def probe(self, at: float, port: int, **fields: Any) -> None:
        self.add(at, "probe", port, **fields)

    def write(self) -> str:
        self.path.write_text("\n".join(self._lines) + "\n")
        return str(self.path)

    def bans(self, *arguments: str, folder: Path = NOWHERE) -> list[tuple[float, str, float]]:
        """Time, source and seconds of each ban of a replay."""
        found = run("--json", *arguments, self.write(), folder=folder)
        assert found.status == 0, found.text
        return [
            (round(ban["time"] - BEGIN, 5), ban["source"], ban["seconds"])
            for ban in found.result["bans"]
        ]


def confirm(folder: Path) -> Path:
    """Make confirmed state below a folder; return its own folder."""
    state = folder / "state/7"
    for name in ("allow.d", "deny.d", "policy.d"):
        (state / name).mkdir(parents=True)
    (state / "interfaces").write_text("eth0 auto\n")
    (folder / "state/current").symlink_to("7")
    return state


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_kept_hour_has_the_decisions_of_the_live_run(threshold: int) -> None:
    expected = json.loads((RECORDED / "hour.json").read_text())[str(threshold)]
    assert len(expected) > 10
    found = run(*options(threshold), str(RECORDED / "hour.jsonl.gz"))
    assert found.status == 0
    assert found.decisions == [Decision(*one) for one in expected]
    assert found.result["spared"] == {PROTECTED: "protected while it was recorded"}
    assert found.result["sum"]["bans"] == len(expected)


def test_other_thresholds_ban_fewer_or_more() -> None:
    hour = str(RECORDED / "hour.jsonl.gz")
    sums = [
        run(*options(threshold), "--slow-scan-ports", "0", hour).result["sum"]["sources"]
        for threshold in (2, 5, 8, 14)
    ]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == len(sums)
    assert sums[-1] == 0


def test_probes_count_within_the_window(journal: Journal) -> None:
    for number in range(4):
        journal.probe(number, 20 + number)
    journal.probe(59.9, 30)
    assert journal.bans() == [(59.9, SCANNER, 600)]
    assert journal.bans("--scan-window", "50s") == []
    assert journal.bans("--scan-ports", "4", "--ban-time", "1h") == [(3, SCANNER, 3600)]
    assert journal.bans("--scan-kinds", "ack") == []


def test_a_repeated_connection_keeps_its_probe_in_the_window(journal: Journal) -> None:
    """The agent reports a probe once within its window. Later packets of it have connection lines only."""
    journal.add(0, "connection", 20)
    journal.probe(0, 20)
    journal.add(40, "connection", 20)
    for number in range(4):
        journal.probe(70 + number, 30 + number)
    assert journal.bans() == [(73, SCANNER, 600)]
    # Connections of other sources, and those to ports that were never closed, are no probes.
    assert journal.bans("--recorded-window", "30s") == []


def test_connections_to_open_ports_count_with_any_only(journal: Journal) -> None:
    for number in range(5):
        journal.add(number, "connection", 20 + number)
    found = run("--json", journal.write())
    assert found.status == 1
    assert "packetwatch_log_probes" in found.result["problems"][0]
    assert journal.bans("--scan-counts", "any") == [(4, SCANNER, 600)]


def test_one_port_of_several_addresses_is_several_probes(journal: Journal) -> None:
    for number in range(5):
        journal.probe(number, 22, destination__ip=f"192.0.2.{number}")
        journal.probe(number, 22, destination__ip=f"192.0.2.{number}", packetwatch__kind="ack")
    assert journal.bans() == [(4, SCANNER, 600)]


def test_a_port_of_udp_is_another_probe(journal: Journal) -> None:
    for number in range(3):
        journal.probe(number, 20 + number)
        journal.probe(number, 20 + number, packetwatch__kind="udp")
    assert journal.bans() == []
    assert journal.bans("--scan-kinds", "syn,udp") == [(2, SCANNER, 600)]


def test_a_banned_source_is_not_counted_and_a_repeated_scanner_is_banned_longer(
    journal: Journal,
) -> None:
    for begin in (0, 300, 605, 2000):
        for number in range(5):
            journal.probe(begin + number, 20 + number)
    assert journal.bans() == [(4, SCANNER, 600), (609, SCANNER, 600), (2004, SCANNER, 600)]
    doubled = [(4, SCANNER, 600), (609, SCANNER, 1200), (2004, SCANNER, 2000)]
    assert journal.bans("--ban-time-max", "2000") == doubled


def test_slow_scans_are_counted_over_hours(journal: Journal) -> None:
    for number in range(20):
        journal.probe(number * 3600, 20 + number)
    assert journal.bans() == [(19 * 3600, SCANNER, 600)]
    assert journal.bans("--slow-scan-ports", "0") == []
    assert journal.bans("--slow-scan-window", "18h") == []


def test_ipv6_sources_are_networks_unless_the_recording_says_otherwise(journal: Journal) -> None:
    for number in range(5):
        address = f"2001:db8::{number + 1}"
        journal.add(number, "connection", 20 + number, source__ip=address)
    assert journal.bans("--scan-counts", "any") == [(4, "2001:db8::/64", 600)]
    for number in range(5):
        address = f"2001:db8::{number + 1}"
        journal.probe(10, 30, source__ip=address, packetwatch__prefix=f"{address}/128")
    assert journal.bans("--scan-counts", "closed") == []


def test_sources_that_are_never_banned(journal: Journal, tmp_path: Path) -> None:
    """By the recording, the command, the settings, and the allow lists of confirmed state."""
    sources = {name: f"198.51.100.{number}" for number, name in enumerate("abcde")}
    for source in sources.values():
        for number in range(5):
            journal.probe(
                number, 20 + number, source__ip=source, packetwatch__prefix=f"{source}/32"
            )
    journal.add(
        9,
        "scan",
        packetwatch__reason="protected",
        source__ip=sources["a"],
        packetwatch__prefix=f"{sources['a']}/32",
    )
    (tmp_path / "settings").write_text(f'PW_PROTECT="{sources["b"]}"\n')
    (confirm(tmp_path) / "allow.d/ansible.list").write_text(f"{sources['c']}\n")
    found = run("--json", "--spare", f"{sources['d']}/32", journal.write(), folder=tmp_path)
    assert [ban["source"] for ban in found.result["bans"]] == [sources["e"]]
    assert found.result["spared"] == {
        sources["a"]: "protected while it was recorded",
        sources["b"]: "protected",
        sources["c"]: "on an allow list",
        sources["d"]: "spared by the command",
    }


def test_the_policy_is_the_confirmed_one_of_the_interface(journal: Journal, tmp_path: Path) -> None:
    folder = confirm(tmp_path) / "policy.d"
    (folder / "default.conf").write_text("PW_SCAN_PORTS=3\nPW_CLOSED_PORTS=drop\n")
    (folder / "eth1.conf").write_text("PW_SCAN_PORTS=2\n")
    for number in range(3):
        journal.probe(number, 20 + number)
        journal.probe(
            number,
            20 + number,
            observer__ingress__interface__name="eth1",
            packetwatch__prefix="203.0.113.8/32",
        )
    both = [(1, "203.0.113.8", 600), (2, SCANNER, 600)]
    assert journal.bans(folder=tmp_path) == both
    assert journal.bans("--scan-ports", "9", folder=tmp_path) == []


def test_the_connections_of_a_batch_are_merged_with_its_other_lines(journal: Journal) -> None:
    """The agent writes the connections of a batch before its probes."""
    for batch in range(5):
        for number in range(500):
            journal.add(batch * 5 + number / 100, "connection", number)
        for number in range(500):
            journal.probe(batch * 5 + number / 100 + 0.005, number)
    times = [line.time for line in Recording([journal.write()])]
    assert len(times) == 5000
    assert times == sorted(times)


def test_probes_keep_their_order_although_their_times_are_less_exact(journal: Journal) -> None:
    ports = list(range(1, 3000))
    for port in ports:
        journal.probe(10 + port // 7 * 0.004 - port % 3 * 1e-6, port)
    found = [line.fields["destination.port"] for line in Recording([journal.write()])]
    assert found == ports


def test_files_are_merged_and_may_be_compressed(journal: Journal, tmp_path: Path) -> None:
    journal.probe(0, 20)
    journal.probe(2, 22)
    one = tmp_path / "one.gz"
    one.write_bytes(gzip.compress(Path(journal.write()).read_bytes()))
    two = Journal(tmp_path)
    two.probe(1, 21)
    two.probe(3, 23)
    found = run("--json", "--scan-ports", "4", two.write(), str(one))
    assert found.times == [BEGIN + 3]
    assert found.result["bans"][0]["ports"] == [20, 21, 22, 23]


def test_what_the_recording_cannot_tell_is_said(journal: Journal) -> None:
    journal.probe(0, 20)
    journal.add(1, "ban", packetwatch__origin="scan", packetwatch__opaque=True)
    journal.add(1, "ban", packetwatch__origin="manual")
    journal.add(
        2,
        "",
        packetwatch__suppressed=11,
        packetwatch__lost=12,
        packetwatch__probes_lost=13,
    )
    journal.add(3, "probe", 70000)
    text = run(journal.write()).text
    for said in (
        "unknown: 11 events held back",
        "unknown: 12 events lost",
        "unknown: 13 probes",
        "unknown: 1 packets that hid",
        "unknown: 2 bans while it was recorded",
        "unknown: 1 lines without",
        "the host itself made 1 ban of scans",
    ):
        assert said in text


def test_a_recording_of_two_hosts_is_refused_with_a_reason(journal: Journal) -> None:
    journal.probe(0, 20)
    journal.probe(0, 20, host__name="web2")
    found = run(journal.write())
    assert found.status == 1
    assert "PROBLEM: the recording is of 2 hosts" in found.text


@pytest.mark.parametrize(
    ("arguments", "content", "status", "said"),
    [
        (["--scan-ports", "65"], b"{}", 2, "scan_ports is '65'"),
        (["--scan-window", "never"], b"{}", 2, "scan_window is 'never'"),
        (["--recorded-window", "x"], b"{}", 2, "'x' is not a duration"),
        (["--spare", "203.0.113.300"], b"{}", 2, "203.0.113.300"),
        (["--ban-time-max", "1"], b"{}", 2, "less than ban_time"),
        ([], b"", 2, "has no line of the agent"),
        ([], b"-- Boot 1 --\nnot JSON\n[1]\n{}\n", 2, "has no line of the agent"),
        ([], b"\x1f\x8bnot gzip", 1, "cannot read"),
        ([], gzip.compress(b"x" * 99, mtime=0)[:-9], 1, "cannot read"),
        ([], b'{"@timestamp":' + b"[" * 60000, 2, "has no line of the agent"),
    ],
)
def test_errors_name_the_value(
    tmp_path: Path, arguments: list[str], content: bytes, status: int, said: str
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    found = run(*arguments, str(path))
    assert (found.status, said in found.text) == (status, True), found.text


def test_text_of_an_attacker_does_not_reach_the_terminal(journal: Journal) -> None:
    for number in range(5):
        journal.probe(number, 20 + number, host__name="web\x1b[2J")
    assert "\x1b" not in run(journal.write()).text
