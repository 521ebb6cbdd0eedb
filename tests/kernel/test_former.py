# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollback to the state that was confirmed before: a change like any other, and only one step."""

from __future__ import annotations

import os
import socket
import time

import pytest
from kernel.hosting import (
    DENIED,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    ip,
    other_program,
    source_text,
)
from kernel.timers import Timers

from packetwatch_core._base.errors import InvalidInput, Reverted
from packetwatch_core._change.pending import Terms
from packetwatch_core._change.results import Plan
from packetwatch_core._declared.edits import roll_back
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")


def go_back(site: Site) -> Plan:
    return site.host.apply(roll_back(site.host.store))


def verdicts(site: Site) -> tuple[int, int]:
    return site.verdict(DENIED), site.verdict(UNLISTED)


def test_lists(filtered: Site) -> None:
    former = filtered.host.store.read_current()[1]
    filtered.lists(deny=UNLISTED)
    bad = filtered.host.store.number()
    predicted = filtered.host.plan(roll_back(filtered.host.store))
    assert verdicts(filtered) == (XDP_PASS, XDP_DROP)
    done = go_back(filtered)
    assert (done.changed, done.digest_after) == (True, predicted.digest_after)
    assert verdicts(filtered) == (XDP_DROP, XDP_PASS)
    assert filtered.host.store.read_current()[1] == former
    assert filtered.host.store.took_back() == bad
    assert filtered.host.info({"change"})["change"]["took_back"] == bad
    # Applying confirmed state, at boot or as a repair, keeps the rollback.
    assert not filtered.host.apply().changed
    assert filtered.host.verify() == []


def test_a_second_rollback_does_not_undo_the_first(filtered: Site) -> None:
    filtered.lists(deny=UNLISTED)
    go_back(filtered)
    number = filtered.host.store.number()
    assert not go_back(filtered).changed
    assert filtered.host.store.number() == number
    # After another change there is again something to roll back.
    filtered.lists(deny=UNLISTED)
    assert filtered.host.store.took_back() == 0
    assert go_back(filtered).changed
    assert verdicts(filtered) == (XDP_DROP, XDP_PASS)


def test_policy(filtered: Site) -> None:
    filtered.policy(action="monitor")
    assert filtered.verdict(DENIED) == XDP_PASS
    go_back(filtered)
    assert filtered.verdict(DENIED) == XDP_DROP


@pytest.mark.slow
def test_program(filtered: Site) -> None:
    filtered.host.attach("pw0", source=source_text())
    with filtered.program() as program:
        tag = program.info().tag
    filtered.host.attach("pw0", source=other_program())
    with filtered.program() as program:
        assert program.info().tag != tag
    assert filtered.host.plan(roll_back(filtered.host.store)).changed
    assert go_back(filtered).changed
    with filtered.program() as program:
        assert program.info().tag == tag
    assert filtered.verdict(DENIED) == XDP_DROP
    assert not filtered.host.attach("pw0").changed


@pytest.mark.slow
def test_it_is_confirmed_as_any_change(filtered: Site) -> None:
    timers = Timers(filtered)
    filtered.lists(deny=UNLISTED)
    number = filtered.host.store.number()
    edit = roll_back(filtered.host.store)
    change = timers.host.apply(edit, terms=Terms(0.2)).pending
    assert change and verdicts(filtered) == (XDP_DROP, XDP_PASS)
    time.sleep(0.3)
    with pytest.raises(Reverted, match="not confirmed in time"):
        timers.host.confirm(change.token)
    assert verdicts(filtered) == (XDP_PASS, XDP_DROP)
    assert filtered.host.store.number() == number
    change = timers.host.apply(edit, terms=Terms(60)).pending
    assert change and timers.host.confirm(change.token).changed
    assert verdicts(filtered) == (XDP_DROP, XDP_PASS)
    assert filtered.host.store.took_back() == number


def test_interfaces(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1", "generic")
    filtered.policy("pw1", action="monitor")
    filtered.host.detach("pw1")
    assert go_back(filtered).changed
    assert attached(socket.if_nametoindex("pw1")).mode == "generic"
    assert (filtered.verdict(DENIED, "pw1"), filtered.verdict(DENIED)) == (XDP_PASS, XDP_DROP)
    filtered.host.attach("pw1", "native")
    assert go_back(filtered).changed
    assert attached(socket.if_nametoindex("pw1")).mode == "generic"


def test_an_interface_that_is_gone_is_named(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    filtered.host.detach("pw1")
    ip("link delete pw1")
    before = filtered.snapshot()
    with pytest.raises(InvalidInput, match="there is no interface 'pw1'; there are: lo, pw0"):
        go_back(filtered)
    assert filtered.snapshot() == before


def test_nothing_to_roll_back_to(site: Site) -> None:
    with pytest.raises(InvalidInput, match="keeps no state that was confirmed before"):
        go_back(site)
