# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a compromised agent cannot do: load, attach, detach, change lists. Each test is an attempt.

Each runs as the agent's user, with the agent's pins, and can reach its socket. On a real host the
unit sees less: only its own folder of pins.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.controlling import AGENT, Controlled, controlled
from kernel.hosting import DENIED, XDP_DROP

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")

RESTRICTED = Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() != "0"

_TRY = """
import errno, json, os, socket, subprocess, sys, time
from packetwatch_core._kernel.libbpf import ARRAY, HASH, Map, call, obj_get, obj_pin
from packetwatch_core._kernel.pins import Pins
from packetwatch_core._kernel.programs import Link, Program
from packetwatch_core._declared.store import Store
root, ifindex, objects, control, edit, state = sys.argv[1:7]
pins, ifindex, objects = Pins(root), int(ifindex), json.loads(objects)
run = lambda name: os.path.join(pins.run, name)
def ask(path, request):
    with socket.socket(socket.AF_UNIX) as found:
        found.settimeout(10)
        found.connect(path)
        found.sendall(json.dumps(request).encode() + b"\\n")
        answer = json.loads(found.makefile().readline())
        if not answer["ok"]:
            print(answer["error"]["kind"])
            sys.exit()
try:
    exec(sys.argv[7])
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
_NOTHING = 'bytes.fromhex("b7000000020000009500000000000000")'
# What it may do: without these, the refusals below would prove nothing.
ALLOWED = {
    "write a ban": 'm = Map.open(run("bans")); k = bytes(20); m.update(k, bytes(48)); m.delete(k)',
    "forget what was counted of a source": 'Map.open(run("tracks2")).delete(bytes(20))',
    "read the counters": 'Map.open(run("counters4")).lookup(bytes(4))',
    "ask its socket": 'ask(control, {"command": "status"})',
}
ATTEMPTS = {
    "load a program": (f"Program.load({_NOTHING}, 'evil')", "EPERM"),
    "load a socket filter": (
        f"n = {_NOTHING}; call('bpf_prog_load', 1, b'evil', b'GPL', n, 2, None)",
        "EPERM" if RESTRICTED else "done",
    ),
    "create a map": ("Map.create(HASH, 'evil', 4, 4, 1)", "EPERM" if RESTRICTED else "done"),
    "open the program's pin": ("Program.open(pins.program)", "EACCES"),
    "open the link's pin": ("Link.open(pins.link('pw0'))", "EACCES"),
    "open the log's rates": ("Map.open(pins.map('rates'))", "EACCES"),
    "find the program by number": ("Program.by_id(objects['program'])", "EPERM"),
    "find the generation by number": ("Map.by_id(objects['generation'])", "EPERM"),
    "find the live tables by number": ("Map.by_id(objects['pages'])", "EPERM"),
    "find a link by number": (
        "[call('bpf_link_get_fd_by_id', number) for number in range(1, 9)]",
        "EPERM",
    ),
    "list the programs": (
        "import ctypes; call('bpf_prog_get_next_id', 0, ctypes.byref(ctypes.c_uint32()))",
        "EPERM",
    ),
    "attach with what it can open": (
        "m = Map.open(run('bans')); call('bpf_link_create', m.fd, ifindex, 37, None)",
        "EINVAL",
    ),
    "attach elsewhere with what it can open": (
        "m = Map.open(run('shared')); call('bpf_link_create', m.fd, 1, 37, None)",
        "EINVAL",
    ),
    "update a link through a map": (
        "m = Map.open(run('bans')); call('bpf_link_update', m.fd, m.fd, None)",
        "EINVAL",
    ),
    "detach a link through a map": (
        "m = Map.open(run('bans')); call('bpf_link_detach', m.fd)",
        "EINVAL",
    ),
    "run the program": ("Program.open(pins.program).test_run(bytes(60))", "EACCES"),
    "take the program off by netlink": (
        "import ctypes; call('bpf_xdp_detach', ifindex, 0, None)",
        "EPERM",
    ),
    "set the interface down": (
        "done = subprocess.run(['ip', 'link', 'set', 'pw0', 'down'], stderr=-1)\n"
        "if done.returncode: raise PermissionError(errno.EPERM, '')",
        "EPERM",
    ),
    "remove the link's pin": ("os.unlink(pins.link('pw0'))", "EACCES"),
    "remove a pin of its own maps": ("os.unlink(run('bans'))", "EACCES"),
    "put another map in a pin's place": (
        "m = Map.open(run('bans')); obj_pin(m.fd, run('evil'))",
        "EACCES",
    ),
    "pin into the links' folder": (
        "m = Map.open(run('bans')); obj_pin(m.fd, pins.link('evil'))",
        "EACCES",
    ),
    "rename the folder of links": ("os.rename(pins.links, pins.links + '_')", "EACCES"),
    "write a list": ("open(state + '/current/deny.d/local.list', 'w')", "EACCES"),
    "add a list": ("open(state + '/current/allow.d/evil.list', 'w')", "EACCES"),
    "move what is confirmed": (
        "os.symlink('9', state + '/._link'); os.rename(state + '/._link', state + '/current')",
        "EACCES",
    ),
    "take the writers' lock": ("open(state + '/lock', 'r+')", "EACCES"),
    "write policy": ("open(state + '/current/policy.d/default.conf', 'w')", "EACCES"),
    "allow through its own socket": (
        "ask(control, {'command': 'allow', 'addresses': ['198.51.100.7']})",
        "input",
    ),
    "remove through its own socket": (
        "ask(control, {'command': 'remove', 'addresses': ['198.51.100.7']})",
        "input",
    ),
    "apply through its own socket": ("ask(control, {'command': 'apply'})", "input"),
    "ban as a peer of its own socket": (
        "ask(control, {'command': 'ban', 'address': '203.0.113.9'})",
        "denied",
    ),
    "edit through the one-shot's socket": (
        "ask(edit, {'command': 'allow', 'addresses': ['198.51.100.7']})",
        "EACCES",
    ),
    "put its own socket in the one-shot's place": ("os.rename(control, edit)", "EACCES"),
    "become root": ("os.setuid(0)", "EPERM"),
}


@pytest.fixture(scope="module")
def shared(bytecode_cache: Path) -> Iterator[Controlled]:
    """One host for all attempts; it denies `DENIED`."""
    with controlled(bytecode_cache) as found:
        with found.site.wire.host.entered():
            found.site.lists(deny=f"{DENIED}\n", name="local")
        yield found


@pytest.fixture
def host(shared: Controlled) -> Iterator[Controlled]:
    """That host; nothing may have changed at a test's end."""
    with shared.site.wire.host.entered():
        before = shared.site.snapshot()
        yield shared
        assert shared.site.snapshot() == before
        assert shared.site.verdict(DENIED) == XDP_DROP


def attempt(host: Controlled, code: str) -> str:
    with host.site.program() as program:
        number = program.info().id
    slot = next(host.site._objects("pw0", "generation"))
    objects = {"program": number, "generation": slot[0], "pages": slot[1]}
    done = host.python(
        _TRY,
        host.pins.root,
        str(socket.if_nametoindex("pw0")),
        json.dumps(objects),
        str(host.control),
        str(host.edit),
        host.site.paths.state,
        code,
        user=AGENT,
    )
    assert done.status == 0, done.err
    return done.out.strip()


@pytest.mark.parametrize("name", ALLOWED)
def test_the_agent_can(host: Controlled, name: str) -> None:
    assert attempt(host, ALLOWED[name]) == "done"


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_agent_cannot(host: Controlled, name: str) -> None:
    code, expected = ATTEMPTS[name]
    assert attempt(host, code) == expected
