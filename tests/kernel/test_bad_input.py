# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors name what is wrong and its remedy, and nothing has changed. Interfaces: test_attach.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernel.hosting import DENIED, OWN, ROOT, UNLISTED, XDP_DROP, XDP_PASS, Site, other_program

from packetwatch_core._base.errors import InvalidInput, LoadFailed, PacketwatchError, Unreadable
from packetwatch_core._declared.edits import list_text, set_lists, set_policy
from packetwatch_core._host.host import Host

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")


def deny(value: Any) -> Callable[[Host], object]:
    """Return a call that denies entries, given as a module gets them."""

    def call(host: Host) -> object:
        return host.apply(set_lists("ansible", {"deny": list_text(value, "deny").text}, True))

    return call


def deny_text(text: str) -> Callable[[Host], object]:
    """Return a call that sets the text of the deny list."""
    return lambda host: host.apply(set_lists("ansible", {"deny": text}, True))


def policy(interface: str | None = None, **keys: str) -> Callable[[Host], object]:
    return lambda host: host.apply(set_policy(interface, keys, False))


WRONG: dict[str, tuple[Callable[[Host], object], str]] = {
    "no address": (deny(["203.0.113.9", "nonsense"]), r"deny\[1\].*'nonsense'"),
    "prefix too long": (deny(["203.0.113.0/33"]), r"deny\[0\].*203\.0\.113\.0/33"),
    "host bits": (
        deny(["203.0.113.9/24"]),
        r"deny\[0\].*203\.0\.113\.9/24.*203\.0\.113\.0/24",
    ),
    "host bits, IPv6": (deny(["2001:db8::1/64"]), r"deny\[0\].*2001:db8::/64"),
    "in a variable": (
        deny({"packetwatch_deny__web": ["203.0.113.9", "203.0.113.300"]}),
        r"packetwatch_deny__web\[1\].*203\.0\.113\.300",
    ),
    "line of a file": (
        deny_text("203.0.113.9\n203.0.113\n"),
        r"ansible\.list, line 2.*203\.0\.113",
    ),
    "list's name": (
        lambda host: host.apply(set_lists("../x", {"deny": ""}, True)),
        r"'\.\./x' is not a name for a list; allowed: ",
    ),
    "emptied": (
        lambda host: host.apply(set_lists("ansible", {"deny": ""}, False)),
        r"would lose all its entries \(1\).*set allow_empty to true",
    ),
    "policy's key": (policy(PW_SPEED="9"), r"PW_SPEED"),
    "action": (policy(PW_ACTION="fast"), r"PW_ACTION.*'fast'.*enforce, monitor, off"),
    "ports": (policy(PW_SCAN_PORTS="65"), r"PW_SCAN_PORTS.*'65'.*from 1 to 64"),
    "window": (policy(PW_SCAN_WINDOW="soon"), r"PW_SCAN_WINDOW.*'soon'"),
    "published": (policy(PW_PUBLISHED_PORTS="80,70000"), r"PW_PUBLISHED_PORTS.*70000"),
    "policy's interface": (policy("eth9", PW_ACTION="off"), r"no interface 'eth9'.*pw0"),
    "interface's name": (
        lambda host: host.attach("eth 0"),
        r"'eth 0' is not an interface name; allowed: ",
    ),
    "ban's address": (lambda host: host.ban("203.0.113.0/24", 60), r"203\.0\.113\.0/24"),
    "ban of an own address": (lambda host: host.ban(OWN, 60), rf"{OWN}.*cannot be banned"),
    "deny of an own address": (
        deny(["192.0.2.0/24"]),
        rf"would deny protected addresses: {OWN} \(own address\).*allow them.*force",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_value_is_named_and_nothing_changes(untouched: Site, case: str) -> None:
    action, message = WRONG[case]
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        action(untouched.host)


SETTINGS = {
    "PW_LIST_MEMORY": ("64M", r"PW_LIST_MEMORY is '64M': write MiB, from 1 to 65536"),
    "PW_PROTECT": ("192.0.2.300", r"PW_PROTECT: .*192\.0\.2\.300"),
    "PW_PROTECT_AUTO": ("maybe", r"PW_PROTECT_AUTO is 'maybe': write 1 or 0"),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_wrong_setting_is_named_and_nothing_changes(untouched: Site, key: str) -> None:
    value, message = SETTINGS[key]
    untouched.settings(**{key: value})
    with pytest.raises(InvalidInput, match=message):
        untouched.lists(UNLISTED)


def test_more_protected_than_there_is_room_for(untouched: Site) -> None:
    untouched.settings(PW_PROTECT=" ".join(f"10.{i >> 8}.{i & 255}.1" for i in range(5000)))
    edit = set_lists("ansible", {"deny": UNLISTED}, True)
    for act in (untouched.host.plan, untouched.host.apply):
        with pytest.raises(
            PacketwatchError, match="do not fit into the map hosts, which takes 409"
        ):
            act(edit)


# Protected addresses


def test_declared_protection_refuses_a_deny(untouched: Site) -> None:
    untouched.settings(PW_PROTECT="203.0.113.0/28, 2001:db8::5")
    for text, named in (
        ("203.0.113.9", r"203\.0\.113\.0/28"),
        ("203.0.0.0/16", r"203\.0\.113\.0/28"),
        ("2001:db8::/32", "2001:db8::5 .declared"),
    ):
        with pytest.raises(InvalidInput, match=f"would deny protected addresses: {named}"):
            untouched.lists(text)


def test_protected_may_be_denied_by_force_or_with_an_allow(filtered: Site) -> None:
    filtered.settings(PW_PROTECT=UNLISTED)
    assert filtered.lists("203.0.113.0/24", force=True).changed
    assert filtered.verdict(UNLISTED) == XDP_DROP
    assert filtered.policy(scan_ports="7").changed, "what was forced is not asked again"
    assert filtered.lists("203.0.0.0/16", allow=UNLISTED).changed
    assert filtered.verdict(UNLISTED) == XDP_PASS


# Damage


def test_unreadable_state_is_not_taken_for_none(untouched: Site) -> None:
    current = untouched.state / "current"
    target = os.readlink(current)
    current.unlink()
    with pytest.raises(Unreadable, match=r"current is missing although .* make it again: ln -s"):
        untouched.host.apply()
    with pytest.raises(Unreadable):
        untouched.host.attach("pw0")
    current.symlink_to(target)


@pytest.mark.slow
def test_pinned_map_of_another_version(filtered: Site) -> None:
    tracks = filtered.host.pins.map("tracks2")
    os.unlink(tracks)
    filtered.pin_odd_map(tracks)
    before = filtered.snapshot()
    with pytest.raises(LoadFailed, match=r"tracks2 is not a map of this version.*state: absent"):
        filtered.host.attach("pw0", source=other_program())
    assert filtered.snapshot() == before


# What a host can lack; each is tried in a process that really lacks it

CHILD = """
import os, sys
sys.path.insert(0, {library!r})
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._host.host import Host
from packetwatch_core._base.paths import Paths
import subprocess
def run(argv, stdin):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
try:
    Host(run, Paths(**{paths!r})).attach("pw0")
except PacketwatchError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""

LACKS = {
    "bpffs": (
        "umount -a -t bpf",
        True,
        "Unsupported: no BPF file system is mounted for .*mount -t bpf bpf /sys/fs/bpf",
    ),
    "bcc": (
        "mount -t tmpfs none /usr/lib/python3/dist-packages",
        False,
        "Unsupported: bcc is not installed: apt-get install python3-bpfcc",
    ),
    "headers": (
        "mount -t tmpfs none /lib/modules; mount -t tmpfs none /usr/src",
        False,
        "Unsupported: the headers of the running kernel .* are not installed: "
        "apt-get install linux-headers-",
    ),
    "permission": (
        "",
        True,
        "this needs root with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
    ),
    "permission to compile": ("", False, "Unsupported: not permitted to use BPF: run as root"),
    "permission to write": (
        "mount -o bind,ro {state} {state}",
        True,
        "cannot write .*Read-only file system",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("lack", LACKS)
def test_what_the_host_lacks_is_named_with_its_remedy(
    site: Site, tmp_path: Path, lack: str
) -> None:
    command, cached, message = LACKS[lack]
    site.lists(deny=DENIED)
    if cached:
        site.warm_cache()
    before = site.snapshot()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/packetwatch_core").symlink_to(ROOT / "plugins/module_utils")
    paths = site.paths_as_words(cache=None if cached else str(tmp_path / "cache"))
    script = CHILD.format(library=str(tmp_path / "lib"), paths=paths)
    inner = f'{command.format(state=site.state)}\nexec "$@"'
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    argv = [*(dropped if lack.startswith("permission") and not command else []), sys.executable]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", inner, "sh", *argv, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert re.search(message, done.stderr, re.DOTALL), done.stderr
    assert site.snapshot() == before
    assert not Path(site.paths.bpffs).exists()
