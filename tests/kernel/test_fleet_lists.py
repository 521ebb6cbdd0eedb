# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one-shot for lists of the fleet, on a filtered host."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from kernel.hosting import DENIED, UNLISTED, XDP_DROP, XDP_PASS, Site
from kernel.timers import Timers

from packetwatch_agent import fleet_lists
from packetwatch_core._base.errors import InvalidInput, LoadFailed, Pending, Unreadable
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._host.fleet import Taken, take_lists
from packetwatch_core._network import reach

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")

PROTECTED = "198.51.100.99"


class Lab:
    """A filtered host, and the file that a fleet process would write."""

    def __init__(self, site: Site, folder: Path) -> None:
        site.settings(PW_PROTECT=PROTECTED, PW_PROTECT_AUTO="0")
        self.site = site
        self.host = Timers(site).host
        self.path = folder / "fleet/lists.json"
        self.path.parent.mkdir()
        self.said: list[str] = []
        self.complaints: list[str] = []

    def write(self, deny: Sequence[str] = (), allow: Sequence[str] = ()) -> None:
        found = {
            kind: [{"address": address} for address in addresses]
            for kind, addresses in (("allow", allow), ("deny", deny))
        }
        self.path.write_text(json.dumps({"v": 1, "lists": {"web": found}}))

    def take(self, *kinds: str) -> Taken | None:
        return take_lists(self.host, str(self.path), kinds or ("deny",))

    def follow(self, *kinds: str) -> None:
        says = self.said.append, self.complaints.append
        fleet_lists.follow(self.host, str(self.path), kinds or ("deny",), *says, pause=0.2)


@pytest.fixture
def lab(filtered: Site, tmp_path: Path) -> Lab:
    return Lab(filtered, tmp_path)


def test_lists_become_the_drop_in_of_the_fleet_at_once(lab: Lab) -> None:
    lab.follow()
    assert lab.said == ["the fleet has no lists yet"]
    lab.write(deny=[UNLISTED], allow=[DENIED])
    lab.follow()
    assert lab.said[-1] == "lists of the fleet are active now: 1 deny"
    assert "1 entry of the fleet ignored" in lab.complaints[-1]
    assert (lab.site.verdict(UNLISTED), lab.site.verdict(DENIED)) == (XDP_DROP, XDP_DROP)
    assert lab.host.pending() is None
    dummy, state = lab.host.store.read_current()
    assert (list(state.deny), list(state.allow)) == (["ansible", "fleet"], ["ansible"])
    lab.follow()
    assert lab.said[-1] == "lists of the fleet have not changed: 1 deny"
    lab.follow("allow", "deny")
    assert lab.site.verdict(DENIED) == XDP_PASS
    # The host does not take any lists any more.
    take_lists(lab.host, str(lab.path), ())
    assert (lab.site.verdict(UNLISTED), lab.site.verdict(DENIED)) == (XDP_PASS, XDP_DROP)
    assert list(lab.host.store.read_current()[1].deny) == ["ansible"]


def test_protected_addresses_are_left_out_and_named(lab: Lab) -> None:
    lab.write(deny=["198.51.100.0/24", PROTECTED, UNLISTED])
    lab.follow()
    assert PROTECTED in lab.complaints[-1] and "198.51.100.0/24" in lab.complaints[-1]
    assert (lab.site.verdict(PROTECTED), lab.site.verdict(UNLISTED)) == (XDP_PASS, XDP_DROP)
    # What becomes protected later is left out by the next apply, and refuses no other change.
    lab.site.settings(PW_PROTECT=UNLISTED, PW_PROTECT_AUTO="0")
    lab.host.apply(set_lists("local", {"deny": "203.0.113.77\n"}, True))
    assert lab.site.verdict(UNLISTED) == XDP_PASS


@pytest.mark.slow
def test_whatever_is_wrong_changes_nothing(lab: Lab) -> None:
    lab.write(deny=[UNLISTED])
    lab.take()
    before = lab.site.snapshot()
    for text in ("{", '{"v":1,"lists":{"a":{"deny":[{"address":"0.0.0.0/0"}]}}}', '{"v":9}'):
        lab.path.write_text(text)
        with pytest.raises(InvalidInput):
            lab.follow()
    lab.path.unlink()
    lab.path.symlink_to("/etc/passwd")
    with pytest.raises(Unreadable, match="stay as they were"):
        lab.follow()
    lab.path.unlink()
    os.mkfifo(lab.path)
    with pytest.raises(Unreadable, match="not a regular file"):
        lab.follow()
    assert lab.site.snapshot() == before
    assert lab.site.verdict(UNLISTED) == XDP_DROP


def test_the_self_test_reverts_what_cuts_a_protected_address_off(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write(deny=[UNLISTED])
    before = lab.host.store.read_current()

    def fail(*dummy: object) -> None:
        raise LoadFailed("192.0.2.9 on pw0")

    monkeypatch.setattr(reach, "check", fail)
    with pytest.raises(LoadFailed):
        lab.take()
    assert lab.host.pending() is None and lab.host.store.read_current() == before
    assert lab.site.verdict(UNLISTED) == XDP_PASS


@pytest.mark.slow
def test_a_change_while_the_one_shot_works_is_not_missed(lab: Lab) -> None:
    lab.write(deny=[UNLISTED])
    thread = threading.Thread(target=lab.follow)
    thread.start()
    while not lab.said:
        time.sleep(0.01)
    lab.write(deny=["203.0.113.200"])
    thread.join()
    assert lab.site.verdict("203.0.113.200") == XDP_DROP
    assert lab.site.verdict(UNLISTED) == XDP_PASS


@pytest.mark.slow
def test_it_waits_for_a_change_of_others(lab: Lab) -> None:
    lab.write(deny=[UNLISTED])
    other = set_lists("local", {"deny": "203.0.113.77\n"}, True)
    assert lab.host.apply(other, terms=Terms(60, owner="a play")).pending
    with pytest.raises(Pending):
        lab.take()
    thread = threading.Thread(target=lab.follow)
    thread.start()
    time.sleep(0.3)
    assert not lab.said
    lab.host.confirm()
    thread.join()
    assert lab.site.verdict(UNLISTED) == lab.site.verdict("203.0.113.77") == XDP_DROP
