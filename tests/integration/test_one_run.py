# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run of the role is one change: what it costs without changes, and how it is rolled back or fails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.fleet import HOST, PEER, Fleet, make_fleet

if TYPE_CHECKING:
    from tests.integration.conftest import ModuleHost

pytestmark = pytest.mark.slow(18)

SITE = "packetwatch.xdp.site"
FIRST, SECOND = "198.51.100.7", "198.51.100.8"
DECLARED = {
    "packetwatch_deny": [FIRST],
    # An interface with mode auto would keep the mode that it has.
    "packetwatch_interfaces": [{"name": "pw0", "mode": "native"}],
}
NEXT = """#include <uapi/linux/bpf.h>
int next(struct xdp_md *context) { return XDP_PASS; }
"""
MAX_RUNS = 6
# Each state has these for itself: they name its own files, and the state that it rolled back.
OWN = ("digests", "took_back")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One host after a run of the role."""
    with make_fleet(1, tmp_path_factory.mktemp("fleet"), attach=False) as found:
        found.variables |= DECLARED
        add = ("ip", "link", "add", "pw8", "type", "veth", "peer", "name", "pw9")
        found.hosts["h01"].command(*add)
        done = found.play(SITE)
        assert done.status == 0, done.output
        yield found


@pytest.fixture
def host(fleet: Fleet) -> Iterator[ModuleHost]:
    """That host; after the test it is again as the first run has left it."""
    yield fleet.hosts["h01"]
    fleet.variables = dict(DECLARED)
    done = fleet.play(SITE)
    assert done.status == 0, done.output


def look(host: ModuleHost) -> dict[str, Any]:
    """All that a run declares, and what came of it."""
    listed = host.command("sh", "-c", "ls /etc/systemd/system/*.wants/packetwatch*").split()
    return {
        "files": {name: text for name, text in host.files().items() if name not in OWN},
        "modes": [host.mode(name) for name in ("pw0", "pw8")],
        "settings": host.command("cat", "/etc/default/packetwatch"),
        "units": sorted(path.rpartition("/")[2] for path in listed),
    }


def number(host: ModuleHost) -> int:
    return int(host.command("readlink", "/etc/packetwatch/current"))


def declare_everything(fleet: Fleet, deny: str = SECOND, **pw0: str) -> None:
    fleet.variables |= {
        "packetwatch_deny": [deny],
        "packetwatch_allow__ops": ["203.0.113.1"],
        "packetwatch_interfaces": [
            {"name": "pw8", "scan_ports": 3},
            {"name": "pw0", "mode": "generic", **pw0},
        ],
        "packetwatch_scan_ports": 7,
        "packetwatch_protect": ["203.0.113.2"],
    }


def test_a_run_without_changes(fleet: Fleet, host: ModuleHost) -> None:
    was, before, state = look(host), fleet.modules_run(), number(host)
    done = fleet.play(SITE)
    assert done.status == 0, done.output
    assert done.recap()["h01"]["changed"] == 0, done.output
    # `Connect`, the checks, and the change.
    assert 3 <= fleet.modules_run() - before <= MAX_RUNS
    assert (look(host), number(host)) == (was, state)
    assert was["units"] == ["packetwatch-xdp@pw0.service", "packetwatch.service"]


def test_a_run_is_one_change_and_rollback_takes_it_back(
    fleet: Fleet, host: ModuleHost, tmp_path: Path
) -> None:
    was, state = look(host), number(host)
    source = tmp_path / "next.c"
    source.write_text(NEXT)
    declare_everything(fleet, next_src=str(source))
    predicted = fleet.play(SITE, "--check", "--diff")
    assert look(host) == was
    done = fleet.play(SITE, "--diff")
    assert done.status == 0, done.output
    for output in (predicted.output, done.output):
        for line in (
            f"+deny ansible: {SECOND}",
            "+interface pw8: auto",
            f"+next program of pw0: next_src {hashlib.sha256(NEXT.encode()).hexdigest()[:12]}",
            "+policy pw8: PW_SCAN_PORTS=3",
            "+enabled packetwatch-xdp@pw8.service",
            "+started packetwatch-xdp@pw8.service",
        ):
            assert line in output, output
    assert predicted.recap()["h01"]["changed"] == done.recap()["h01"]["changed"] == 2
    assert number(host) == state + 1
    now = look(host)
    assert now["modes"] == ["xdpgeneric", "xdp"]
    assert "packetwatch-xdp@pw8.service" in now["units"]
    assert 'PW_PROTECT="203.0.113.2"' in now["settings"]
    predicted = fleet.play("packetwatch.xdp.rollback", "--check", "--diff")
    assert look(host) == now
    done = fleet.play("packetwatch.xdp.rollback", "--diff")
    assert done.status == 0, done.output
    for output in (predicted.output, done.output):
        assert "-enabled packetwatch-xdp@pw8.service" in output, output
        assert '+setting PW_PROTECT=""' in output, output
    assert predicted.recap()["h01"]["changed"] == done.recap()["h01"]["changed"] == 2
    assert look(host) == was
    assert number(host) == state + 2
    assert fleet.play("packetwatch.xdp.rollback").recap()["h01"]["changed"] == 0


def test_a_run_that_locks_out_leaves_nothing(fleet: Fleet, host: ModuleHost) -> None:
    was, state = look(host), number(host)
    declare_everything(fleet, PEER)
    fleet.variables["packetwatch_confirm_timeout"] = 10
    done = fleet.play(SITE)
    assert done.status != 0
    assert "was not confirmed in time: the host has reverted" in done.output, done.output
    assert host.peer_reaches(HOST)
    assert (look(host), number(host)) == (was, state)


def test_software_that_cannot_be_installed_leaves_nothing(fleet: Fleet, host: ModuleHost) -> None:
    was, state = look(host), number(host)
    declare_everything(fleet)
    library = "/usr/lib/packetwatch"
    damaged = f"{library}/current/packetwatch_agent/part.py"
    host.command("sh", "-c", f"echo '# damaged' >>{damaged}")
    host.command(
        "sh", "-c", f"mount --bind {library} {library} && mount -o remount,bind,ro {library}"
    )
    done = fleet.play(SITE)
    assert done.status != 0
    assert "Read-only file system" in done.output, done.output
    assert (look(host), number(host)) == (was, state)
    host.command("umount", library)
    done = fleet.play(SITE)
    assert done.status == 0, done.output
    assert look(host)["modes"] == ["xdpgeneric", "xdp"]
    assert "damaged" not in host.command("cat", damaged)


def test_a_refused_run_changes_nothing(fleet: Fleet, host: ModuleHost) -> None:
    was, state = look(host), number(host)
    software = host.command(
        "sh", "-c", "rm /usr/local/bin/packetwatchctl; ls -lR /usr/lib/packetwatch"
    )
    declare_everything(fleet, "203.0.113.0/24")
    del fleet.variables["packetwatch_allow__ops"]
    done = fleet.play(SITE)
    assert done.status != 0
    assert "the lists would deny protected addresses: 203.0.113.2" in done.output, done.output
    assert (look(host), number(host)) == (was, state)
    assert host.command("ls", "-lR", "/usr/lib/packetwatch") == software
    assert host.command("ls", "/usr/local/bin/packetwatchctl", check=False) == ""
