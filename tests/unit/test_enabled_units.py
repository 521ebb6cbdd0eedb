# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which units the role enables, disables and starts, and when it restarts the agent."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from packetwatch_core._declared.store import State, Store
from packetwatch_core._setup import places, units
from packetwatch_core._setup.units import (
    AGENT,
    BUS,
    FLEET,
    NOTHING,
    Units,
    forecast,
    needs,
    plan_units,
    unit_of,
)

ETH0, ETH1 = "packetwatch-xdp@eth0.service", "packetwatch-xdp@eth1.service"
SETTINGS = 'PW_PROTECT="192.0.2.1,192.0.2.2"\nPW_HEARTBEAT_URL=""\n'


class Systemd:
    """Units as files, and what systemctl says about them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.active: set[str] = set()
        self.process = 0
        self.started = 0
        self.commands: list[list[str]] = []
        (root / "multi-user.target.wants").mkdir()
        (root / AGENT).touch()

    def enable(self, *names: str) -> None:
        for name in names:
            (self.root / "multi-user.target.wants" / name).touch()

    def run(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        if argv[1] != "show":
            self.commands.append(list(argv[1:]))
            return 0, "", ""
        return 0, "\n".join(self._show(name) for name in argv[4:]), ""

    def _show(self, name: str) -> str:
        enabled = (self.root / "multi-user.target.wants" / name).exists()
        lines = [f"Id={name}", f"ActiveState={'active' if name in self.active else 'inactive'}"]
        lines.append(f"UnitFileState={'enabled' if enabled else 'disabled'}")
        if name in (AGENT, FLEET, BUS) and name in self.active:
            lines += [f"MainPID={self.process}", f"ExecMainStartTimestamp=@{self.started}"]
        return "".join(f"{line}\n" for line in lines)

    def plan(self, *interfaces: str, settings: str = SETTINGS, restart: bool = False) -> Units:
        return plan_units(self.run, interfaces, settings, restart)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    monkeypatch.setattr(places, "UNITS", str(tmp_path))
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "CREDENTIALS", str(tmp_path / "credentials"))
    monkeypatch.setattr(Store, "has_linked", lambda *dummy: True)
    return Systemd(tmp_path)


@pytest.fixture
def agent(systemd: Systemd) -> Iterator[Systemd]:
    """The agent runs, with these settings."""
    values = {"PW_PROTECT": "192.0.2.1,192.0.2.2", "PW_HEARTBEAT_URL": "", "PW_PINS": "/run"}
    with subprocess.Popen(["/bin/sleep", "60"], env=values) as process:
        # The kernel shows the environment some time after exec.
        while not Path(f"/proc/{process.pid}/environ").read_bytes():
            time.sleep(0.01)
        systemd.active.add(AGENT)
        systemd.enable(AGENT)
        systemd.process = process.pid
        systemd.started = 2000
        yield systemd
        process.kill()


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("eth0", "eth0"),
        ("eth0.100", "eth0.100"),
        ("br-lan", r"br\x2dlan"),
        (".hidden", r"\x2ehidden"),
        ("wan@1", r"wan\x401"),
        ("lan:1", "lan:1"),
    ],
)
def test_unit_names(name: str, escaped: str) -> None:
    assert unit_of(name) == f"packetwatch-xdp@{escaped}.service"


def test_without_the_roles_units_nothing_is_done(systemd: Systemd) -> None:
    (systemd.root / AGENT).unlink()
    assert systemd.plan("eth0") == NOTHING
    assert not NOTHING.changed


def test_a_first_run(systemd: Systemd) -> None:
    assert systemd.plan("eth0") == Units([ETH0, AGENT], [ETH0, AGENT], [], [], [], False)


def test_check_mode_forecasts_a_first_run(systemd: Systemd) -> None:
    (systemd.root / AGENT).unlink()
    state = State(interfaces={"eth0": "auto"}, settings=SETTINGS)
    found = forecast(systemd.run, False, needs(state, installs=True))
    units = (ETH0, AGENT)
    after = "".join(f"{what} {unit}\n" for what in ("enabled", "started") for unit in units)
    assert found == {"changed": True, "diff": {"before": "", "after": after}}
    assert not forecast(systemd.run, False, needs(state))["changed"]
    assert systemd.commands == []


def test_check_mode_follows_the_planned_state(agent: Systemd) -> None:
    """A rollback of a run that added an interface and changed a setting."""
    agent.enable(ETH0, ETH1)
    agent.active |= {ETH0, ETH1}
    former = State(interfaces={"eth0": "auto"}, settings=SETTINGS.replace("192.0.2.2", "192.0.2.3"))
    found = forecast(agent.run, False, needs(former))
    assert found["diff"] == {"before": f"enabled {ETH1}\n", "after": f"restarted {AGENT}\n"}
    assert agent.commands == []


def test_a_run_without_changes(agent: Systemd) -> None:
    agent.enable(ETH0)
    agent.active.add(ETH0)
    assert systemd_is_content(agent)


def systemd_is_content(systemd: Systemd) -> bool:
    return not systemd.plan("eth0").changed


def test_units_of_other_interfaces_are_disabled(agent: Systemd) -> None:
    agent.enable(ETH0, ETH1)
    agent.active |= {ETH0, ETH1}
    plan = agent.plan("eth0")
    assert plan == Units([], [], [ETH1], [], [], False)
    assert plan.describe() == {"before": f"enabled {ETH1}\n", "after": ""}
    units._carry_out(agent.run, plan)
    assert agent.commands == [["disable", "--now", ETH1]]


def test_an_agent_with_other_settings_is_restarted(agent: Systemd) -> None:
    assert not agent.plan().restart
    for settings in ('PW_PROTECT="192.0.2.1"\n', f"{SETTINGS}PW_SELF_HEAL=0\n"):
        plan = agent.plan(settings=settings)
        assert plan == Units([], [], [], [AGENT], [], False)
    units._carry_out(agent.run, plan)
    assert agent.commands == [["restart", AGENT]]
    assert agent.plan(restart=True).restart
    agent.process = 0
    assert not agent.plan(settings="PW_SELF_HEAL=0\n").restart, "it has just ended"


@pytest.mark.parametrize(("started", "outdated"), [(0, True), (1999, True), (2000, False)])
def test_an_agent_with_other_code_is_restarted(
    agent: Systemd, started: int, outdated: bool
) -> None:
    (agent.root / "lib").mkdir()
    code = agent.root / "lib/current"
    code.symlink_to("1.0")
    os.utime(code, (2000.9, 2000.9), follow_symlinks=False)
    agent.started = started
    assert bool(agent.plan().restart) is outdated


def test_a_settings_file_that_is_not_the_link_is_replaced(
    agent: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "has_linked", lambda *dummy: False)
    assert agent.plan().link
    assert not agent.plan(settings="").link, "the role has declared none"


IN_FLEET = f'{SETTINGS}PW_FLEET_STORE="etcd"\n'


@pytest.mark.parametrize("store", ["", 'PW_FLEET_STORE="none"\n'])
def test_a_host_without_a_fleet_has_no_process_for_it(systemd: Systemd, store: str) -> None:
    plan = systemd.plan("eth0", settings=SETTINGS + store)
    assert FLEET not in (*plan.enable, *plan.start)
    systemd.enable(FLEET)
    systemd.active.add(FLEET)
    assert systemd.plan("eth0", settings=SETTINGS + store).disable == [FLEET]


@pytest.mark.parametrize("store", ["", 'PW_FLEET_STORE="none"\n'])
def test_a_host_that_leaves_its_fleet_loses_what_it_has_shown_there(
    systemd: Systemd, store: str
) -> None:
    password = Path(places.CREDENTIALS, "password")
    password.parent.mkdir()
    password.write_text("secret\n")
    assert not systemd.plan("eth0", settings=IN_FLEET).forget
    systemd.enable(ETH0, AGENT, FLEET)
    systemd.active |= {ETH0, AGENT, FLEET}
    plan = systemd.plan("eth0", settings=SETTINGS + store)
    assert plan.forget == [places.CREDENTIALS] and plan.changed
    assert f"{places.CREDENTIALS}\n" in plan.describe()["before"]
    assert password.exists()
    # The process ends first: systemd would not start it again without its credentials.
    seen: list[tuple[list[str], bool]] = []

    def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        seen.append((list(argv[1:]), password.exists()))
        return systemd.run(argv, stdin)

    units._carry_out(run, plan)
    assert seen == [(["disable", "--now", FLEET], True)]
    assert not password.parent.exists()
    (systemd.root / "multi-user.target.wants" / FLEET).unlink()
    assert not systemd.plan("eth0", settings=SETTINGS + store).changed


def test_a_host_in_a_fleet_has_the_process(systemd: Systemd) -> None:
    plan = systemd.plan("eth0", settings=IN_FLEET)
    assert plan == Units([ETH0, AGENT, FLEET], [ETH0, AGENT, FLEET], [], [], [], False)


def test_a_host_publishes_only_if_it_has_a_bus(systemd: Systemd) -> None:
    plan = systemd.plan("eth0", settings=f'{SETTINGS}PW_BUS="rabbitmq"\n')
    assert plan.enable == plan.start == [ETH0, AGENT, BUS]
    assert BUS not in systemd.plan("eth0", settings=f'{SETTINGS}PW_BUS="none"\n').start
    systemd.enable(BUS)
    systemd.active.add(BUS)
    assert systemd.plan("eth0", settings=SETTINGS).disable == [BUS]
    plan = systemd.plan("eth0", settings=f'{SETTINGS}PW_BUS="rabbitmq"\n', restart=True)
    units._carry_out(systemd.run, plan)
    assert plan.restart == [BUS] and ["restart", BUS] in systemd.commands


@pytest.mark.parametrize("change", ["code", "credentials", "settings", "restart", ""])
def test_the_fleet_process_is_restarted_for_what_it_has_read(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    for name, place in (("LIBRARY", "lib"), ("CREDENTIALS", "credentials")):
        folder = tmp_path / place
        folder.mkdir()
        monkeypatch.setattr(places, name, str(folder))
        time_of = 3000 if change == place or (change, place) == ("code", "lib") else 1000
        os.utime(folder, (time_of, time_of))
        if place == "lib":
            (folder / "current").symlink_to("1.0")
            os.utime(folder / "current", (time_of, time_of), follow_symlinks=False)
    values = {"PW_PROTECT": "192.0.2.1,192.0.2.2", "PW_HEARTBEAT_URL": "", "PW_FLEET_STORE": "etcd"}
    with subprocess.Popen(["/bin/sleep", "60"], env=values) as process:
        while not Path(f"/proc/{process.pid}/environ").read_bytes():
            time.sleep(0.01)
        systemd.enable(ETH0, AGENT, FLEET)
        systemd.active |= {ETH0, FLEET}
        systemd.process, systemd.started = process.pid, 2000
        settings = IN_FLEET + 'PW_FLEET_HOST="x"\n' * (change == "settings")
        plan = systemd.plan("eth0", settings=settings, restart=change == "restart")
        process.kill()
    assert plan.restart == [FLEET] * bool(change)
    if change:
        units._carry_out(systemd.run, plan)
        assert ["restart", FLEET] in systemd.commands
        assert f"restarted {FLEET}\n" in plan.describe()["after"]
