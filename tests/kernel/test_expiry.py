# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries that expire, over reboots of a host whose clock is not trusted at first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from kernel.hosting import UNLISTED, XDP_DROP, XDP_PASS, Site, run

from packetwatch_core._base import clock
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._host.boot import filter_interface

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"), pytest.mark.slow]


def in_seconds(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def boot(site: Site, monkeypatch: pytest.MonkeyPatch, *, trusted: bool) -> None:
    site.power_off()
    monkeypatch.setattr(clock, "clock_synchronised", lambda: trusted)
    site.host.reattach("pw0")


def test_a_denial_that_has_expired_never_comes_back(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    filtered.lists(deny=f"{UNLISTED} expires={in_seconds(2)}\n", name="local")
    assert filtered.verdict(UNLISTED) == XDP_DROP
    time.sleep(2)
    filtered.host.apply()
    assert filtered.verdict(UNLISTED) == XDP_PASS
    for trusted in (False, True, False):
        boot(filtered, monkeypatch, trusted=trusted)
        assert filtered.verdict(UNLISTED) == XDP_PASS
    # Not even if the clock is trusted and has been set back to before the denial.
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    boot(filtered, monkeypatch, trusted=True)
    assert filtered.verdict(UNLISTED) == XDP_PASS
    assert filtered.host.verify() == []


def test_whose_end_was_never_seen_is_denied_until_the_clock_is_trusted(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    filtered.lists(deny=f"{UNLISTED} expires={in_seconds(2)}\n", name="local")
    time.sleep(2)
    boot(filtered, monkeypatch, trusted=False)
    assert filtered.verdict(UNLISTED) == XDP_DROP
    counts = filtered.host.status.read()["counts"]
    assert (counts["deny"], counts["expired"], counts["undecided"]) == (2, 0, 1)
    boot(filtered, monkeypatch, trusted=True)
    assert filtered.verdict(UNLISTED) == XDP_PASS
    counts = filtered.host.status.read()["counts"]
    assert (counts["deny"], counts["expired"], counts["undecided"]) == (1, 1, 0)


@pytest.mark.parametrize("damage", ["", "soon", "\0\0\0", "folder"])
def test_a_boot_needs_no_kept_time(
    filtered: Site, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    filtered.lists(deny=f"{UNLISTED} expires={in_seconds(3600)}\n", name="local")
    path = Path(filtered.paths.clock)
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_text(damage)
    boot(filtered, monkeypatch, trusted=False)
    assert filtered.verdict(UNLISTED) == XDP_DROP
    boot(filtered, monkeypatch, trusted=True)
    assert filtered.verdict(UNLISTED) == XDP_DROP


def test_an_allow_entry_that_expires_does_not_shield_a_protected_address(filtered: Site) -> None:
    """It is judged as if it had expired, and only if it covers a protected address."""
    filtered.settings(PW_PROTECT=f"{UNLISTED} 2001:db8::/64", PW_PROTECT_AUTO="0")
    end = in_seconds(3600)
    filtered.lists(allow=f"203.0.113.0/28 expires={end}\n# until expires=soon\n", name="other")
    with pytest.raises(InvalidInput, match=r"would deny protected addresses: 203\.0\.113\.9 "):
        filtered.lists(deny="203.0.113.0/24\n", name="local")
    assert filtered.lists(deny="203.0.113.3\n", name="local").changed
    filtered.lists(allow=f"2001:db8::7 expires={end}\n", name="other")
    with pytest.raises(InvalidInput, match="would deny protected addresses: 2001:db8::/64"):
        filtered.lists(deny="2001:db8::7\n", name="local")
    filtered.lists(allow=f"198.51.100.0/24 expires={end}\n", name="other")
    with pytest.raises(InvalidInput, match=r"would deny protected addresses: 203\.0\.113\.9 "):
        filtered.lists(deny="203.0.113.0/24\n", name="local")


# A clock that was ahead

DAY = 86400.0
FRIEND = "198.51.100.99"


def ahead(monkeypatch: pytest.MonkeyPatch, *, trusted: bool) -> None:
    """The clock is a day ahead."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + DAY)
    monkeypatch.setattr(clock, "clock_synchronised", lambda: trusted)


def is_right(site: Site) -> bool:
    """Whether everything is as confirmed: `UNLISTED` is denied, `FRIEND` is allowed."""
    verdicts = site.verdict(UNLISTED), site.verdict(FRIEND)
    return verdicts == (XDP_DROP, XDP_PASS) and site.host.verify() == []


def expiring(site: Site, end: str) -> None:
    """Declare entries that expire, beside a denial that does not."""
    site.lists(f"{UNLISTED} expires={end}\n198.51.100.0/24\n", f"{FRIEND} expires={end}\n")


def test_what_a_clock_ahead_could_not_decide_is_decided_once_it_is_right(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = in_seconds(DAY / 2)
    with monkeypatch.context() as early:
        ahead(early, trusted=False)
        expiring(filtered, end)
        assert filtered.verdict(FRIEND) == XDP_DROP
        assert filtered.host.verify() == []
    monkeypatch.setattr(clock, "clock_synchronised", lambda: True)
    assert filtered.host.verify() != []
    filtered.host.apply()
    assert is_right(filtered)


@pytest.mark.parametrize("by", ["apply", "edit", "boot"])
def test_what_expired_by_a_clock_ahead_counts_again(
    filtered: Site, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The time that the clock has shown was not kept, or an operator has removed it, as the message says."""
    end = in_seconds(DAY / 2)
    with monkeypatch.context() as early:
        ahead(early, trusted=True)
        expiring(filtered, end)
        assert filtered.verdict(UNLISTED) == XDP_PASS
    monkeypatch.setattr(clock, "clock_synchronised", lambda: True)
    assert filtered.host.verify() == [], "the time that it has shown still counts"
    Path(filtered.paths.clock).unlink()
    assert filtered.host.verify() != []
    if by == "boot":
        filtered.power_off()
        filter_interface(run, filtered.paths, "pw0", 1.0)
    elif by == "edit":
        filtered.lists("192.0.2.77", name="other")
    else:
        filtered.host.apply()
    assert is_right(filtered)


def test_a_clock_that_is_not_trusted_brings_nothing_back_by_a_boot(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    filtered.lists(f"{UNLISTED} expires={in_seconds(1)}\n")
    time.sleep(1)
    filtered.host.apply()
    Path(filtered.paths.clock).unlink()
    monkeypatch.setattr(clock, "clock_synchronised", lambda: False)
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    filtered.power_off()
    filter_interface(run, filtered.paths, "pw0", 1.0)
    assert filtered.verdict(UNLISTED) == XDP_PASS
