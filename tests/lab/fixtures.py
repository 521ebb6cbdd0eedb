# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the scenarios: the lab that contains the hosts."""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from lab.errors import LabError
from lab.scenario import machine_of, open_fleet

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from lab.fleet import Fleet
    from lab.machine import Machine


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return open_fleet()


@pytest.fixture
def machine(host: Any, fleet: Fleet) -> Machine:
    """The host under test, as the lab knows it."""
    return machine_of(host, fleet)


@pytest.fixture
def sockets() -> Iterator[str]:
    """A folder for ssh's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="pw") as folder:
        yield folder


class ByHost(LoadScopeScheduling):  # type: ignore[misc]
    """Runs each host's tests in their order, and the tests of two hosts in parallel."""

    def _split_scope(self, nodeid: str) -> str:
        found = re.search(r"ansible://(\w+)", nodeid)
        return found[1] if found else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByHost:
    return ByHost(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the host's recent log lines to the report of a failure."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host:
        report.sections.append(("journal of the host", journal(host)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, which they give to `record_property`."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")


def journal(host: Any) -> str:
    argv = ["journalctl", "--unit", "packetwatch*", "--lines", "60", "--no-pager"]
    try:
        return str(machine_of(host, open_fleet()).ssh(argv).stdout)
    except LabError as error:
        return str(error)
