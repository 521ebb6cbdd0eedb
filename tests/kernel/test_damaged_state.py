# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent may write must stop neither the agent nor root: its file of bans, its folders, its maps."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.controlling import AGENT, READER, ROOT_USER, Controlled, User, controlled
from kernel.hosting import DENIED, OWN, XDP_DROP
from kernel.packets import syn4

from packetwatch_core._bans import saved
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map, possible_cpus

pytest_plugins = ("kernel.agent_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs"),
    pytest.mark.slow,
]

DONE, FAILED = range(2)
HEADER = '{"format": 1, "boot": "another", "map": 1}\n'
GOOD = "203.0.113.77"


def line(**fields: object) -> str:
    now = time.time()
    ban = {"source": GOOD, "origin": "manual", "since": now, "expires": None}
    return json.dumps(ban | {"ports": 0, "dropped": 0} | fields) + "\n"


@pytest.fixture
def host(resting: Controlled) -> Iterator[Controlled]:
    """A filtered host whose agent does not run; afterwards its maps and folders are whole and empty."""
    with resting.site.wire.host.entered():
        yield resting
        resting.stop()
        for table in ("bans", "scan_bans", "overflow"):
            with Map.open(resting.pins.map(table)) as found:
                for old, dummy in found.items():
                    found.delete(old)
        for path in (resting.folder / "state").iterdir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def state(host: Controlled) -> Path:
    return host.folder / "state" / "bans.jsonl"


def evidence(host: Controlled) -> Path:
    return Path(saved.evidence_of(str(state(host))))


# The file of bans

DAMAGED = {
    "a source that is an object": '{"source":{}}\n',
    "brackets": "[" * 100_000 + "\n",
    "brackets without an end": "[" * 3_000_000,
    "a time in a million years": line(since=1e30),
    "an end in a million years": line(expires=1e200),
    "no number": line(since=0).replace('"since": 0', '"since": NaN'),
    "a long number": line().replace('"ports": 0', f'"ports": {"9" * 900}'),
    "an origin that is a list": line(origin=["manual"]),
    "flags for numbers": line(ports=True),
    "a network": line(source="203.0.113.0/24"),
    "control characters": line(source="\x00\x1b[2J"),
    "a long line": line(comment="x" * 1_000_000),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_lines_are_set_aside_and_told(host: Controlled, damage: str) -> None:
    state(host).write_text(HEADER + line() + DAMAGED[damage])
    host.start()
    assert host.banned() == {GOOD}
    assert DAMAGED[damage][:500].encode() in evidence(host).read_bytes()
    assert evidence(host).stat().st_size <= saved.MAX_EVIDENCE
    text = f"read {evidence(host)}, then remove it"
    assert any(text in found.get("message", "") for found in host.lines()), damage
    for user in (ROOT_USER, READER):
        done = host.ctl("status", user=user)
        assert (done.status, text in done.out) == (FAILED, True), done
    evidence(host).unlink()
    assert host.ctl("status").status == DONE


def fifo(path: Path) -> None:
    os.mkfifo(path)
    os.chown(path, AGENT.uid, AGENT.gid)


def link(path: Path) -> None:
    secret = path.parent.parent / "secret"
    secret.write_text(HEADER + line())
    secret.chmod(0o644)
    path.symlink_to(secret)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(path))


def large(path: Path) -> None:
    with path.open("w") as file:
        file.write(HEADER)
        file.truncate(1 << 40)
    os.chown(path, AGENT.uid, AGENT.gid)


def text(content: str) -> Callable[[Path], None]:

    def write(path: Path) -> None:
        path.write_text(content)

    return write


UNUSABLE: dict[str, Callable[[Path], None]] = {
    "fifo": fifo,
    "link": link,
    "link to an endless file": endless,
    "socket": unix_socket,
    "folder": Path.mkdir,
    "a terabyte": large,
    "empty": lambda path: path.touch(),
    "brackets": text("[" * 100_000),
    "another format": text('{"format": {}}\n'),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_is_not_a_file_of_bans_is_set_aside_as_a_whole(host: Controlled, what: str) -> None:
    UNUSABLE[what](state(host))
    began = time.monotonic()
    host.start()
    assert time.monotonic() - began < 10
    assert any(
        "bans of the last boot are not restored" in x.get("message", "") for x in host.lines()
    )
    assert not host.banned()
    assert evidence(host).is_symlink() or evidence(host).exists()
    assert evidence(host).lstat().st_size <= saved.MAX_BYTES
    assert "then remove it" in host.ctl("status").out
    # From now on bans are saved.
    assert host.ctl("ban", GOOD).status == DONE
    host.stop()
    assert stat.S_ISREG(state(host).lstat().st_mode)
    assert GOOD in state(host).read_text()


@pytest.mark.parametrize("what", ["fifo", "link", "socket"])
def test_what_lies_in_the_way_of_the_new_file_is_replaced(host: Controlled, what: str) -> None:
    UNUSABLE[what](Path(f"{state(host)}.new"))
    host.start()
    assert host.ctl("ban", GOOD).status == DONE
    host.stop()
    assert GOOD in state(host).read_text()
    assert "manual" in (host.folder / "state").joinpath("bans.jsonl").read_text()
    secret = host.folder / "secret"
    assert not secret.exists() or secret.read_text().count("\n") == 2


@pytest.mark.parametrize("what", ["fifo", "link to an endless file", "folder"])
def test_a_request_to_root_does_not_wait(host: Controlled, what: str) -> None:
    path = host.folder / "run/heal-request"
    UNUSABLE[what](path)
    code = "import sys\nfrom packetwatch_agent.request import ask\nask(sys.argv[1])\n"
    try:
        began = time.monotonic()
        done = host.python(code, str(path))
        assert time.monotonic() - began < 10
        assert "OSError" in done.err or "IsADirectoryError" in done.err
    finally:
        path.rmdir() if what == "folder" else path.unlink()


# The maps


def key(plen: int, address: bytes) -> bytes:
    return abi.SOURCE.struct.pack(plen, address)


GARBAGE = {
    "a length of 2**32-1": key(2**32 - 1, b"\xff" * 16),
    "a length of 129": key(129, b"\x01" * 16),
    "a length of 0": key(0, bytes(16)),
    "a network with host bits": key(64, b"\xff" * 16),
}
COMMANDS = ("bans", "top --once", f"why {GOOD}", "protect", f"ban {GOOD}", f"unban {GOOD}", "apply")


def spoil(host: Controlled) -> int:
    """Write garbage into the maps, as the agent's user may."""
    words: list[str] = []
    count = 0
    for table in ("bans", "scan_bans", "overflow"):
        for garbage in GARBAGE.values():
            words += [host.pins.map(table), garbage.hex(), "ff" * abi.BAN.size]
            count += 1
    code = (
        "import sys\n"
        "from packetwatch_core._kernel.libbpf import Map\n"
        "words = sys.argv[1:]\n"
        "for path, key, value in zip(words[::3], words[1::3], words[2::3]):\n"
        "    with Map.open(path) as found:\n"
        "        found.update(bytes.fromhex(key), bytes.fromhex(value))\n"
    )
    words += [host.pins.map("counters4"), "00" * 4, "ff" * (abi.COUNTERS.size * possible_cpus())]
    words += [host.pins.map("hosts"), "ee" * 16, "ff" * abi.HOST.size]
    words += [host.pins.map("bans"), key(128, b"\xfe" * 16).hex(), "ff" * abi.BAN.size]
    done = host.python(code, *words, user=AGENT)
    assert done.status == 0, done.err
    return count


def test_root_works_beside_garbage_in_the_maps(host: Controlled) -> None:
    count = spoil(host)
    with Map.open(host.pins.map("counters4")) as counters:
        told = f"{count} entries of the tables of bans are not bans"
        assert told in host.ctl("bans").out
        done = host.ctl("status")
        assert f"PROBLEM: {told}" in done.out
        assert "pw0: filtered" in done.out
        for words in COMMANDS:
            done = host.ctl(*words.split())
            # Only `top` needs an agent.
            assert done.status == (4 if words.startswith("top") else DONE), done
            assert "Traceback" not in done.err
        found = host.site.host.info({"bans", "protected", "counters", "interfaces"})
        assert len(found["bans"]) == 1
        assert host.site.host.verify() == []
        assert host.ctl("selftest").status == FAILED
        host.site.lists(deny=DENIED)
        assert host.site.verdict(DENIED) == XDP_DROP
        counters.update(bytes(4), bytes(counters.value_bytes))


def test_the_agent_removes_garbage_from_the_maps_and_says_so(host: Controlled) -> None:
    count = spoil(host)
    host.start()
    host.wait(lambda: any("were not bans" in x.get("message", "") for x in host.lines()))
    (found,) = (x for x in host.lines() if "were not bans" in x.get("message", ""))
    assert found["packetwatch.count"] == count
    assert len(found["packetwatch.entries"]) == 5
    assert host.ctl("bans").out.count("note") == 0
    for user in (ROOT_USER, READER):
        for words in ("status", *COMMANDS[:4]):
            done = host.ctl(*words.split(), user=user)
            assert "Traceback" not in done.err
            assert done.status in (DONE, FAILED), done
    with host.site.program() as program:
        for port in range(4001, 4007):
            program.test_run(syn4("203.0.113.78", port, OWN), socket.if_nametoindex("pw0"))
    host.wait(lambda: "203.0.113.78" in host.banned())


@pytest.mark.parametrize("user", [ROOT_USER, READER], ids=["root", "reader"])
def test_a_new_agent_follows_beside_garbage(host: Controlled, user: User) -> None:
    spoil(host)
    host.start()
    assert host.ctl("top", "--once", user=user).status == DONE
    host.stop()


def freeze(host: Controlled, *names: str) -> None:
    """Freeze maps as a taken-over agent can."""
    code = (
        "import sys\n"
        "from packetwatch_core._kernel.libbpf import Map\n"
        "for path in sys.argv[1:]:\n"
        "    Map.open(path).freeze()\n"
    )
    done = host.python(code, *map(host.pins.map, names), user=AGENT)
    if "Operation not permitted" in done.err:
        pytest.skip("this kernel lets only root freeze a map")
    assert done.status == 0, done.err


@pytest.mark.parametrize("name", ["shared", "events"])
def test_a_frozen_map_that_every_agent_needs_is_reported(bytecode_cache: Path, name: str) -> None:
    with controlled(bytecode_cache) as host, host.site.wire.host.entered():
        host.stop()
        freeze(host, name)
        out = host.ctl("status").out
        assert f"PROBLEM: the map {name} is frozen" in out, out
        assert host.ctl("deny", "203.0.113.90").status == DONE
        assert host.site.verdict("203.0.113.90") == XDP_DROP


def test_frozen_maps_keep_neither_root_nor_the_agent_from_their_work(bytecode_cache: Path) -> None:
    """On kernels that allow it to whoever may write a map, it is for good."""
    with controlled(bytecode_cache) as host, host.site.wire.host.entered():
        host.stop()
        with host.bans() as bans:
            bans.add(GOOD, 0.5)
        names = ("bans", "hosts", "nets", "local", "open_ports")
        freeze(host, *names)
        host.start()
        time.sleep(2)
        host.wait(lambda: any("are frozen" in x.get("message", "") for x in host.lines()))
        host.wait(
            lambda: any("bans are not followed" in x.get("message", "") for x in host.lines())
        )
        out = host.ctl("status").out
        for name in names:
            assert f"PROBLEM: the map {name} is frozen" in out, out
        assert "boot the host" in out
        done = host.ctl("ban", "203.0.113.90")
        assert (done.status, "deny the source by list" in done.err) == (FAILED, True), done
        # Other protected addresses than those in the maps.
        host.site.settings(PW_PROTECT="198.51.100.98", PW_PROTECT_AUTO="0")
        assert host.ctl("deny", "203.0.113.90").status == DONE
        assert host.site.verdict("203.0.113.90") == XDP_DROP
        host.stop()
