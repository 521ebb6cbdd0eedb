# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ban: what the host is asked for."""

from __future__ import annotations

import types
from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.modules import ban

from packetwatch_core._base.errors import InvalidInput

CHANGE = types.SimpleNamespace(
    changed=True, source="2001:db8::/64", before="", after="banned\n", lifted=[]
)


def test_ban(run: Any, host: Any) -> None:
    host.answers["ban"] = CHANGE
    arguments = {"address": "2001:db8::7", "duration": 60, "reason": "ticket 4711"}
    result = run(ban, arguments, check=True, diff=True)
    assert host.calls == [("ban", "2001:db8::7", 60.0, {"check": True})]
    assert result["changed"] is True
    assert result["source"] == "2001:db8::/64"
    assert result["diff"] == {"before": "", "after": "banned\n"}


def test_ban_until_lifted(run: Any, host: Any) -> None:
    host.answers["ban"] = CHANGE
    run(ban, {"address": "192.0.2.7"})
    assert host.calls == [("ban", "192.0.2.7", None, {"check": False})]


def test_lift(run: Any, host: Any) -> None:
    host.answers["unban"] = CHANGE
    run(ban, {"address": "192.0.2.7", "state": "absent"})
    assert host.calls == [("unban", "192.0.2.7", {"check": False})]


def test_what_the_host_refuses_is_a_failure_in_its_words(run: Any, host: Any) -> None:
    host.answers["ban"] = InvalidInput("192.0.2.1 is not banned: it is protected (gateway)")
    result = run(ban, {"address": "192.0.2.1"})
    assert result["failed"] is True
    assert result["msg"] == "192.0.2.1 is not banned: it is protected (gateway)"


@pytest.mark.parametrize("arguments", [{}, {"address": "192.0.2.7", "duration": "1x"}])
def test_nonsense_is_refused(run: Any, host: Any, arguments: dict[str, Any]) -> None:
    assert run(ban, arguments)["failed"] is True
    assert host.calls == []
