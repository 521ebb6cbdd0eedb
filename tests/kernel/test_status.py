# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Root's status note for the agent, and whether it is true."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.hosting import DENIED, Site, dummy_program, ip, source_text, wait

from packetwatch_core._active.attach import create_link
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")


def note(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(site.paths.status).read_text())
    return found


def test_what_an_attachment_notes(filtered: Site) -> None:
    found = note(filtered)
    with filtered.program() as attached_program:
        program = attached_program.info().id
    assert found["interfaces"] == {"pw0": {"program": program, "mode": "native", "attached": True}}
    assert found["matches"] is True
    assert found["counts"] == {
        "allow": 0,
        "deny": 1,
        "expired": 0,
        "undecided": 0,
        "ranges_ipv4": 1,
        "ranges_ipv6": 0,
        "left_out": 0,
        "broken_feeds": 0,
    }
    assert found["bytes"] == 2 * abi.PAGE
    assert found["capacity"] >= found["bytes"]
    assert found["number"] == int(os.readlink(filtered.state / "current"))
    assert found["apply"]["success"] is True
    assert time.time() - 60 < found["apply"]["time"] <= time.time()
    assert found["digest"] == filtered.host.info({"lists"})["lists"]["digest"]


def test_anybody_may_read_it_and_only_root_write(filtered: Site) -> None:
    path = Path(filtered.paths.status)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_it_follows_lists_policies_and_interfaces(filtered: Site) -> None:
    before = note(filtered)
    filtered.lists(deny=f"{DENIED}\n2001:db8::/32\n", allow="192.0.2.7\n")
    counts = note(filtered)["counts"]
    assert (counts["allow"], counts["deny"], counts["ranges_ipv6"]) == (1, 2, 1)
    filtered.policy(scan_ports="9")
    after = note(filtered)
    assert after["digest"] != before["digest"] and after["matches"] is True
    assert after["counts"] == counts
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    assert set(note(filtered)["interfaces"]) == {"pw0", "pw1"}
    filtered.host.detach("pw1")
    assert set(note(filtered)["interfaces"]) == {"pw0"}
    assert note(filtered)["matches"] is True
    filtered.host.detach("pw0")
    assert not Path(filtered.paths.status).exists()


def test_entries_without_effect_are_counted_except_by_a_boot(filtered: Site) -> None:
    filtered.lists(deny=f"{DENIED}\n224.0.0.1\n", allow=f"{DENIED}\n")
    counts = {"shadowed": 1, "impossible": 1, "expired": 0}
    assert note(filtered)["idle"] == counts
    Path(filtered.paths.status).unlink()
    filtered.host.apply()
    assert "idle" not in note(filtered)
    filtered.host.verify()
    assert note(filtered)["idle"] == counts


@pytest.mark.slow
def test_another_program_is_noted(filtered: Site) -> None:
    before = note(filtered)
    filtered.host.attach("pw0", source=source_text(("PW_EXT_MAX 8", "PW_EXT_MAX 6")))
    assert note(filtered)["interfaces"] != before["interfaces"]
    assert note(filtered)["matches"] is True


def test_verification_finds_nothing_wrong(filtered: Site) -> None:
    Path(filtered.paths.status).unlink()
    assert filtered.host.verify() == []
    found = note(filtered)
    assert found["matches"] is True
    assert found["counts"]["deny"] == 1
    assert found["tracks"] == 0
    assert "apply" not in found


def test_verification_sees_that_the_lists_differ(filtered: Site) -> None:
    """Confirmed state was edited by hand, and not applied."""
    (filtered.state / "current/deny.d/ansible.list").write_text("198.51.100.8\n")
    edited = ["confirmed state was edited by hand and is not active: packetwatchctl apply"]
    for dummy in range(2):
        assert filtered.host.verify() == edited
        assert note(filtered)["matches"] is False
        assert note(filtered)["edited"] is True
    filtered.host.apply()
    assert note(filtered)["matches"] is True
    assert filtered.host.verify() == []


def test_a_table_that_is_not_what_its_header_says_is_found(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen map cannot be changed, so this simulates broken memory."""
    mapped = Map.mapped

    @contextlib.contextmanager
    def lie(self: Map, begin: int, end: int, *, writes: bool = False) -> Iterator[memoryview]:
        with mapped(self, begin, end, writes=writes) as data:
            if writes or begin != abi.PAGE:
                yield data
            else:
                with memoryview(data[:-1].tobytes() + bytes([data[-1] ^ 1])) as wrong:
                    yield wrong

    monkeypatch.setattr(Map, "mapped", lie)
    assert filtered.host.verify() == ["the tables in the kernel are not those of confirmed state"]
    filtered.host.apply()
    assert note(filtered)["matches"] is False
    filtered.policy(scan_ports="9")
    assert note(filtered)["matches"] is False


def test_what_is_right_again_is_noted_at_once(filtered: Site) -> None:
    """This holds even if nothing was compiled for it."""
    filtered.policy(scan_ports="9")
    verified = note(filtered)["verified"]
    path = Path(filtered.paths.status)
    path.write_text(path.read_text().replace('"matches": true', '"matches": false'))
    filtered.policy(scan_ports="10")
    assert note(filtered)["matches"] is True
    assert note(filtered)["verified"] == verified


def test_what_was_never_compiled_is_not_reported_to_match(filtered: Site) -> None:
    Path(filtered.paths.status).unlink()
    filtered.policy(scan_ports="9")
    assert "matches" not in note(filtered)
    assert filtered.host.verify() == []
    assert note(filtered)["matches"] is True


def test_verification_names_what_is_not_filtered(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    os.unlink(filtered.host.pins.link("pw1"))
    assert filtered.host.verify() == ["pw1 is not filtered"]
    ip("link delete pw1")
    assert filtered.host.verify() == []


def test_another_program_in_our_place_is_found(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    os.unlink(filtered.host.pins.link("pw1"))
    wait(lambda: attached(socket.if_nametoindex("pw1")).mode == "none")
    with dummy_program() as foreign:
        held = create_link(foreign, "pw1", socket.if_nametoindex("pw1"), "auto")
        assert filtered.host.verify() == ["pw1 is not filtered"]
        assert "pw1" not in note(filtered)["interfaces"]
        held.link.close()


def test_a_failed_boot_is_noted(filtered: Site) -> None:
    (filtered.state / "current/deny.d/ansible.list").write_text("nonsense\n")
    with pytest.raises(PacketwatchError):
        filtered.host.apply()
    assert note(filtered)["apply"]["success"] is False
    with pytest.raises(PacketwatchError):
        filtered.host.reattach("pw0")
    assert note(filtered)["apply"]["success"] is False


def test_a_refused_change_is_no_failure_of_ours(filtered: Site) -> None:
    with pytest.raises(PacketwatchError):
        filtered.lists(deny="nonsense")
    assert note(filtered)["apply"]["success"] is True


def test_what_cannot_be_noted_stops_nothing(filtered: Site) -> None:
    folder = Path(filtered.paths.status).parent
    Path(filtered.paths.status).unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert filtered.lists(deny="203.0.113.0/24").changed
    assert filtered.host.verify() == []
