# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""host_info: which subsets are asked for."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.modules import host_info

from packetwatch_core._base.errors import Unreadable


@pytest.mark.parametrize(
    ("arguments", "subsets"),
    [
        ({}, {"change", "counters", "interfaces", "lists", "panic", "policy"}),
        ({"gather_subset": ["bans", "entries"]}, {"bans", "entries"}),
        ({"gather_subset": ["bans", "all"]}, set(host_info.SUBSETS)),
    ],
)
def test_subsets(run: Any, host: Any, arguments: dict[str, Any], subsets: set[str]) -> None:
    host.answers["info"] = {"bans": []}
    result = run(host_info, arguments, check=True)
    assert ("info", subsets, {}) in host.calls
    assert result["changed"] is False
    assert result["bans"] == []


def test_unknown_subset(run: Any, host: Any) -> None:
    assert run(host_info, {"gather_subset": ["facts"]})["failed"] is True
    assert host.calls == []


def test_what_cannot_be_read_is_a_failure(run: Any, host: Any) -> None:
    host.answers["info"] = Unreadable("cannot read the links")
    result = run(host_info, {})
    assert result["failed"] is True
    assert result["msg"] == "cannot read the links"
