# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator can do, in each state in which the filter is not as declared, or cannot be changed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.controlling import PROTECTED, READER, ROOT_USER, Controlled
from kernel.hosting import DENIED, UNLISTED, XDP_DROP, XDP_PASS
from kernel.timers import Timers

from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import set_lists

pytest_plugins = ("kernel.agent_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
    pytest.mark.slow,
]

LIFT = "packetwatch.xdp.panic -e packetwatch_panic=absent"


@pytest.fixture
def host(shared: Controlled) -> Iterator[Controlled]:
    """A filtered host; the test runs in its namespace."""
    with shared.site.wire.host.entered():
        shared.site.lists(deny=f"{DENIED}\n")
        shared.site.lists(name="local")
        yield shared


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A file system without free space over a folder, whose files stay."""
    copy = folder.with_name(f"{folder.name}-before")
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "full", str(folder)], check=True)
    try:
        status = copy.stat()
        os.chown(folder, status.st_uid, status.st_gid)
        os.chmod(folder, status.st_mode & 0o7777)
        subprocess.run(["cp", "-a", f"{copy}/.", str(folder)], check=True)
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        subprocess.run(["rm", "-r", str(copy)], check=True)


def test_while_a_change_is_pending_it_is_confirmed_or_rolled_back(host: Controlled) -> None:
    timers = Timers(host.site)
    edit = set_lists("ansible", {"deny": f"{DENIED}\n{UNLISTED}\n"}, False)
    timers.host.apply(edit, terms=Terms(300, owner="the role"))
    both = "packetwatchctl confirm keeps it, packetwatchctl rollback reverts it"
    try:
        found = host.ctl("why", UNLISTED)
        assert both in found.out and "apply" not in found.out, found.out
        assert both in host.ctl("lists").out
        (problem,) = host.ctl("status", "--json").json["problems"]
        assert problem.startswith("a change of the role is not confirmed yet and reverts in ")
        assert problem.endswith(f" s: {both}")
        refused = host.ctl("deny", "203.0.113.77")
        assert both in refused.err and "nothing was changed" in refused.err
        assert both in host.ctl("apply").out
    finally:
        timers.host.roll_back()
    assert host.site.verdict(UNLISTED) == XDP_PASS


def test_a_panic_says_how_it_is_lifted(host: Controlled) -> None:
    host.site.host.panic("a test")
    try:
        for user in (ROOT_USER, READER):
            done = host.ctl("status", user=user)
            assert f"{LIFT}\n" in done.out
        red = host.ctl("selftest").out
        assert LIFT in red and "packetwatch-xdp@" not in red
    finally:
        host.site.host.lift()
    assert LIFT not in host.ctl("status").out


def test_bans_that_cannot_be_saved_are_reported(host: Controlled) -> None:
    with full_disk(host.folder / "state"):
        host.ctl("ban", *(f"203.0.113.{number}" for number in range(1, 200)))
        host.wait(lambda: "bans are not saved" in host.log.read_text())
        for user in (ROOT_USER, READER):
            done = host.ctl("status", user=user)
            assert "bans are not saved and would be lost at a reboot: " in done.out
            assert f"{host.folder}/state/bans.jsonl" in done.out
            assert "No space left on device; free space on that file system" in done.out
    host.wait(lambda: "bans are not saved" not in host.ctl("status").out)


def test_a_full_disk_is_named_and_changes_nothing(host: Controlled) -> None:
    with full_disk(host.site.state):
        done = host.ctl("deny", UNLISTED)
        assert done.status != 0
        assert f"cannot write {host.site.state}" in done.err
        assert done.err.endswith("No space left on device; free space on that file system\n")
        assert host.site.verdict(UNLISTED) == XDP_PASS
        assert host.site.verdict(DENIED) == XDP_DROP
        assert host.site.host.verify() == []


def test_a_verification_that_fails_is_reported(host: Controlled) -> None:
    path = host.site.state / "current/deny.d/ansible.list"
    text = path.read_text()
    path.write_text("nonsense\n")
    try:
        with pytest.raises(Exception, match="nonsense"):
            host.site.host.verify()
        problems = host.ctl("status", "--json").json["problems"]
        assert any(
            problem.startswith("the tables could not be verified: deny.d/ansible.list, line 1")
            for problem in problems
        ), problems
    finally:
        path.write_text(text)
    assert host.site.host.verify() == []
    assert "could not be verified" not in host.ctl("status").out


def test_a_denied_protected_address_names_what_can_force_it(host: Controlled) -> None:
    done = host.ctl("deny", PROTECTED)
    assert "packetwatchctl --force" in done.err
    assert "module packetwatch.xdp.access_lists" in done.err
