# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attaching, detaching and modes, on veth pairs of the tests' own."""

from __future__ import annotations

import os
import socket

import pytest
from kernel.hosting import DENIED, STRANGER, XDP_DROP, XDP_PASS, Site, Wire, ip, wait_gone

from packetwatch_core._prog import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")


def test_veth_gets_native(site: Site) -> None:
    done = site.host.attach("pw0")
    assert done.changed
    assert (done.mode, done.reason) == ("native", "")
    assert done.program_id == attached(socket.if_nametoindex("pw0")).program_id
    assert (done.before, done.after) == ("pw0: none\n", "pw0: native\n")
    assert site.host.store.read_current()[1].interfaces == {"pw0": "auto"}


def test_lists_hold_from_the_first_packet(site: Site) -> None:
    site.lists(deny=DENIED)
    site.host.attach("pw0")
    assert site.verdict(DENIED) == XDP_DROP
    assert site.verdict(STRANGER) == XDP_PASS


def test_second_attach_changes_nothing(filtered: Site) -> None:
    before = filtered.snapshot()
    done = filtered.host.attach("pw0")
    assert not done.changed
    assert filtered.snapshot() == before
