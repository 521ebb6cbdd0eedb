# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for `kernel.hosting`; use them by ``pytest_plugins = ("kernel.site_fixtures",)``."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from kernel.hosting import DENIED, XDP_DROP, Site, Wire, sweep

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Clean up also when the process is asked to end (SIGTERM)."""

    def interrupt(*dummy: object) -> NoReturn:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, former)


@pytest.fixture(scope="session")
def bytecode_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that every source is compiled once."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Two namespaces and a veth pair; the test runs in the host's namespace."""
    found = Wire()
    try:
        with found.host.entered():
            yield found
    finally:
        found.close()


@pytest.fixture
def site(wire: Wire, tmp_path: Path, bytecode_cache: Path) -> Iterator[Site]:
    """A host on which nothing is attached or declared yet."""
    sweep()
    found = Site(wire, tmp_path, bytecode_cache, next(_numbers))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def filtered(site: Site) -> Site:
    """A host whose interface pw0 is filtered: `DENIED` is dropped."""
    site.host.attach("pw0")
    site.lists(deny=DENIED)
    return site


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, bytecode_cache: Path) -> Iterator[Site]:
    """A host like `filtered`, for all tests of a file that leave it as it was."""
    wire = Wire()
    found = Site(wire, tmp_path_factory.mktemp("standing"), bytecode_cache, next(_numbers))
    try:
        with wire.host.entered():
            found.host.attach("pw0")
            found.lists(deny=DENIED)
        yield found
    finally:
        found.close()
        wire.close()


@pytest.fixture
def untouched(standing: Site) -> Iterator[Site]:
    """A filtered host; at the test's end nothing but its settings may have changed."""
    with standing.wire.host.entered():
        before = standing.snapshot()
        yield standing
        Path(standing.paths.settings).unlink(missing_ok=True)
        assert standing.snapshot() == before
        assert standing.verdict(DENIED) == XDP_DROP
