# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent as a process: a user without capabilities, real maps, a real ring."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.agent_process import AgentProcess
from kernel.feeder import Feeder, connection

from packetwatch_core._bans.bans import Bans, Source
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.pins import Pins

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SECOND = 1_000_000_000
LIMIT_KIB = 25 * 1024
# Events that may be logged twice.
BATCH = 4096

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes maps")


class Host(AgentProcess):
    """A folder with everything that an agent needs, including its own maps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, str(folder / "bpf/packetwatch"), NOBODY)
        self.pins = Pins(self.pins_folder)
        self.maps: dict[str, Map] = {}

    def make_maps(self) -> None:
        """Make new maps, as after a boot, for a user who may enter only the agent's folder."""
        self.close_maps()
        self.pins.remove()
        self.maps = self.pins.ensure()
        for path in (self.pins.root, self.pins.own, self.pins.run):
            os.chmod(path, 0o711)
        for name in os.listdir(self.pins.run):
            os.chown(self.pins.map(name), NOBODY, NOBODY)

    def close_maps(self) -> None:
        for bpf_map in self.maps.values():
            bpf_map.close()
        self.maps = {}

    def ban(self, number: int, seconds: float, table: str = "scan_bans") -> None:
        now = time.monotonic_ns()
        value = abi.BAN.pack(
            since=now, expires=now + int(seconds * SECOND), origin=abi.ORIGIN_SCAN, ports=5
        )
        source = Source(128, bytes(10) + b"\xff\xff" + (0x0A000000 + number).to_bytes(4, "big"))
        self.maps[table].update(source.key, value)


@pytest.fixture
def host() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="packetwatch-"))
    (folder / "bpf").mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder / "bpf")], check=True)
    found = Host(folder)
    try:
        found.make_maps()
        yield found
    finally:
        found.close()
        found.close_maps()
        subprocess.run(["umount", str(folder / "bpf")], check=True)
        shutil.rmtree(folder)


def feed(host: Host, records: list[bytes]) -> None:
    feeder = Feeder(host.maps["events"], len(records[0]))
    feeder.feed(records)
    feeder.close()


def sequences(host: Host) -> list[int]:
    return [line["event.sequence"] for line in host.lines() if "event.sequence" in line]


@pytest.mark.slow
def test_a_hundred_thousand_events_in_25_mib(host: Host) -> None:
    count = 100_000
    host.start()
    assert host.status("CapEff") == "0" * 16
    assert host.status("Uid") == str(NOBODY)
    feed(host, [connection(i, (0x0A000000 + i).to_bytes(4, "big")) for i in range(1, count + 1)])
    records = 'packetwatch_agent_records_total{type="connection"}'
    host.wait(lambda: host.metrics()[records] == count)
    assert int(host.status("VmHWM")) <= LIMIT_KIB
    assert host.stop() == 0
    assert sequences(host) == list(range(1, count + 1))


def test_restart_loses_nothing(host: Host) -> None:
    host.start()
    feed(host, [connection(i) for i in range(1, 3001)])
    assert host.stop() == 0
    feed(host, [connection(i) for i in range(3001, 5001)])
    host.start()
    feed(host, [connection(i) for i in range(5001, 6001)])
    host.wait(lambda: len(sequences(host)) >= 6000)
    assert host.stop() == 0
    assert sequences(host) == list(range(1, 6001))


def test_foreign_records_are_counted_and_skipped(host: Host) -> None:
    host.start()
    feed(host, [b"\xff" * 72] * 20 + [connection(1)] + [bytes(72)] * 3)
    feed(host, [b"\x01" * 16])
    host.wait(lambda: sequences(host) == [1])
    host.wait(lambda: host.metrics()['packetwatch_agent_records_total{type="unknown"}'] == 24)


@pytest.mark.slow
def test_a_ban_expires_at_its_time(host: Host) -> None:
    host.start()
    host.ban(1, 2)
    host.ban(2, 600)
    host.wait(lambda: host.actions()["expiry"] == 1, 30)
    host.wait(lambda: host.metrics()['packetwatch_bans_active{origin="scan"}'] == 1)
    assert len(host.maps["scan_bans"].keys()) == 1


@pytest.mark.slow
def test_bans_survive_a_reboot(host: Host) -> None:
    for number in range(200):
        host.ban(number, 600)
    host.ban(999, 60, "overflow")
    host.start()
    Bans(host.maps).add("203.0.113.9", None)
    host.wait(lambda: host.metrics()['packetwatch_bans_active{origin="manual"}'] == 1, 30)
    assert host.stop() == 0

    host.make_maps()
    host.start()
    bans = Bans(host.maps)
    found = bans.active()
    assert len(found) == 201
    assert {ban.table for ban in found} == {"bans"}
    assert abi.SHARED.unpack(host.maps["shared"].lookup(bytes(4)) or b"")["has_bans"] == 1
    (manual,) = (ban for ban in found if ban.origin_name == "manual")
    assert (manual.source.text, manual.expires) == ("203.0.113.9", 0)
    assert host.said("are restored")
    assert host.actions()["ban"] == 1


@pytest.mark.slow
def test_bans_are_saved_while_it_runs(host: Host) -> None:
    host.start()
    host.ban(1, 600)
    saved = host.state / "bans.jsonl"
    host.wait(lambda: saved.exists() and "10.0.0.1" in saved.read_text(), 30)
    assert host.stop(signal.SIGKILL) == -signal.SIGKILL


def test_own_addresses_are_protected_and_local(host: Host) -> None:
    loopback = bytes(10) + b"\xff\xff" + bytes((127, 0, 0, 1))
    host.start(PW_PROTECT="198.51.100.0/24")
    assert host.maps["local"].lookup(loopback) is not None
    reason = Bans(host.maps).why("198.51.100.7").protected
    assert "protected prefix" in reason
    assert Bans(host.maps).why("127.0.0.5").protected


def test_ports_that_services_listen_on_are_known_from_its_start(host: Host) -> None:
    def stamp(server: socket.socket) -> int:
        key = server.getsockname()[1].to_bytes(4, sys.byteorder)
        return int.from_bytes(host.maps["open_ports"].lookup(key) or b"", sys.byteorder)

    with socket.create_server(("", 0)) as server, socket.create_server(("127.0.0.1", 0)) as local:
        host.start()
        host.wait(lambda: stamp(server))
        assert time.monotonic_ns() - stamp(server) < 10 * SECOND
        assert stamp(local) == 0


def test_a_port_in_use_stops_only_the_metrics(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host.start(PW_METRICS_LISTEN=f"127.0.0.1:{server.getsockname()[1]}")
        host.wait(lambda: host.said("PW_METRICS_LISTEN"))
        feed(host, [connection(1)])
        host.wait(lambda: sequences(host) == [1])


@pytest.mark.slow
def test_without_a_filter_its_metrics_say_so(host: Host) -> None:
    state = host.folder / "config/1"
    (state / "policy.d").mkdir(parents=True)
    (state / "interfaces").write_text("pw9 auto\n")
    (host.folder / "config/current").symlink_to("1")
    host.close_maps()
    host.pins.remove()
    host.start(wait=False)
    host.wait(lambda: host.said("check that the filter is loaded"))
    assert host.metrics()['packetwatch_attached{interface="pw9",mode="none"}'] == 0
    host.make_maps()
    host.wait(lambda: host.said("started"))
    feed(host, [connection(1)])
    host.wait(lambda: sequences(host) == [1])
    assert host.stop() == 0


def test_it_can_be_stopped_while_it_waits(host: Host) -> None:
    host.pins.remove()
    host.start(wait=False)
    host.wait(lambda: host.said("check that the filter is loaded"))
    assert host.stop() == 0


@pytest.mark.slow
def test_it_follows_the_maps_when_the_filter_is_loaded_anew(host: Host) -> None:
    host.start()
    feed(host, [connection(1)])
    host.wait(lambda: sequences(host) == [1])
    host.ban(1, 600)
    host.make_maps()
    host.wait(lambda: host.said("started") == 2)
    feed(host, [connection(2)])
    host.wait(lambda: sequences(host) == [1, 2])
    assert [ban.source.text for ban in Bans(host.maps).active()] == ["10.0.0.1"]


def test_killed_within_a_batch_it_repeats_and_loses_none(host: Host) -> None:
    count = 10_000
    feed(host, [connection(i) for i in range(1, 5000)])
    host.start(wait=False)
    host.wait(lambda: len(sequences(host)) > 1000)
    host.stop(signal.SIGKILL)
    # The line that it was writing when it died may be incomplete.
    with host.log.open("r+b") as log:
        text = log.read()
        log.truncate(text.rfind(b"\n") + 1)
    host.start()
    feed(host, [connection(i) for i in range(5000, count + 1)])
    host.wait(lambda: sequences(host)[-1:] == [count], 30)
    found = sequences(host)
    assert set(found) == set(range(1, count + 1))
    assert len(found) - count <= BATCH


def test_bad_setting_is_named_and_does_not_end_the_agent(host: Host) -> None:
    host.start(PW_SELF_HEAL="perhaps")
    assert host.said("a setting is not in force: PW_SELF_HEAL is 'perhaps': write 1 or 0")
    assert host.stop() == 0
