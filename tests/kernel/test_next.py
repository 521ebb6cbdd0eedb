# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The next program of an interface: packets that we pass meet it, and nothing about it stops the filter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.hosting import BPFFS, DENIED, OWN, UNLISTED, XDP_DROP, XDP_PASS, Site

from packetwatch_core._declared.nexts import Next
from packetwatch_core._kernel.programs import Program

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

DROPS = bytes.fromhex("b7000000010000009500000000000000")
PASSES = bytes.fromhex("b7000000020000009500000000000000")


@pytest.fixture
def pin() -> Iterator[str]:
    path = BPFFS / f"pwtest-{os.getpid()}-next"
    yield str(path)
    path.unlink(missing_ok=True)


def pinned(path: str, code: bytes = DROPS) -> int:
    Path(path).unlink(missing_ok=True)
    with Program.load(code, "other") as program:
        program.pin(path)
        return program.info().id


def test_first(filtered: Site, pin: str) -> None:
    filtered.lists(DENIED)
    number = pinned(pin)
    assert filtered.verdict(UNLISTED) == XDP_PASS
    done = filtered.host.attach("pw0", following=Next(path=pin))
    assert done.changed and not done.problems
    assert filtered.verdict(UNLISTED) == XDP_DROP
    assert filtered.packets()["drop deny"] == 0 if "drop deny" in filtered.packets() else True
    chain = filtered.host.info({"interfaces"})["interfaces"]["pw0"]["chain"]
    print(chain)
    assert [m["id"] for m in chain][1] == number
    assert not filtered.host.verify()
    again = filtered.host.attach("pw0", following=Next(path=pin))
    assert not again.changed
    filtered.host.attach("pw0", following=None)
    assert filtered.verdict(UNLISTED) == XDP_PASS
