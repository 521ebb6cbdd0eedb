# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated host on the running kernel, on which modules run.

The host is a process with a network namespace, connected with that of a peer, and a mount namespace. In
there the BPF file system is empty, and /etc, /run, /usr and /var/lib are written to memory. All of it
disappears when the process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible
import pytest

from packetwatch_core._kernel.source import flatten

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "roles" / "packetwatch" / "files" / "bpf"
# A release is tested as it was installed from its tarball.
COLLECTIONS = Path(os.environ.get("PACKETWATCH_COLLECTIONS", ROOT.parents[2]))
PYTHON = "/usr/bin/python3"

RUN_MODULE = """
import runpy, sys
sys.path[:0] = sys.argv[2:]
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
name = "ansible_collections.packetwatch.xdp.plugins.modules." + sys.argv[1]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 0.5)
except ConnectionRefusedError:
    print("reached")
except TimeoutError:
    print("no answer")
"""

Result = dict[str, Any]

# Without systemd no change can be pending.
CHANGING = ("access_lists", "policy", "program")

SETUP = """
mount -t tmpfs tmpfs /mnt
for path in /etc /var/lib /usr/lib /usr/local; do
    mkdir -p /mnt/$path/upper /mnt/$path/work
    mount -t overlay -o lowerdir=$path,upperdir=/mnt/$path/upper,workdir=/mnt/$path/work o $path
done
rm -rf /etc/packetwatch /var/lib/packetwatch
mount -t tmpfs tmpfs /run
# sysfs must show the devices of this network namespace.
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
ip netns add peer
ip link add pw0 type veth peer name pw1 netns peer
ip link set pw0 up
ip -n peer link set pw1 up
ip address add 192.0.2.1/24 dev pw0
ip address add 2001:db8:1::1/64 dev pw0 nodad
ip -n peer address add 192.0.2.7/24 dev pw1
ip -n peer address add 2001:db8:1::7/64 dev pw1 nodad
ip tuntap add pwtun mode tun
echo ready
exec sleep infinity
"""


class ModuleHost:
    """Runs commands and modules in the namespaces."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        # Variables of Ansible's connection, and others.
        self.connection = "local"
        self.environment: dict[str, str] = {}
        self.source = str(folder / "own.c")
        Path(self.source).write_text(flatten(str(SOURCES)))
        # The parts of Ansible that a module contains, without the rest of the controller's environment.
        self._library = folder / "library"
        self._library.mkdir()
        (self._library / "ansible").symlink_to(Path(ansible.__file__).parent)
        self.enter = ["nsenter", f"--target={pid}", "--mount", "--net", "--"]

    def command(self, *argv: str, check: bool = True) -> str:
        """Run a command on the host; return its output."""
        done = subprocess.run(
            [*self.enter, *argv], stdout=subprocess.PIPE, text=True, check=check, timeout=120
        )
        return done.stdout

    def module(
        self, name: str, /, check: bool = False, diff: bool = False, **options: Any
    ) -> Result:
        """Run a module as a host does; return its result. The options include its action plug-in's.

        Ansible itself would take ten times as long.
        """
        if name == "program" and options.get("state") != "detached":
            options.setdefault("src", self.source)
        if name in CHANGING:
            options.setdefault("confirm_timeout", 0)
        arguments = options | {"_ansible_check_mode": check, "_ansible_diff": diff}
        done = subprocess.run(
            [*self.enter, PYTHON, "-c", RUN_MODULE, name, str(self._library), str(COLLECTIONS)],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | self.environment,
            check=False,
            timeout=300,
        )
        assert done.stdout.startswith("\n{"), done.stdout
        result: Result = json.loads(done.stdout)
        return result

    def ansible(
        self, name: str, /, check: bool = False, diff: bool = False, **options: Any
    ) -> Result:
        """Run a module through Ansible, with its action plug-in."""
        if name in CHANGING:
            options.setdefault("confirm_timeout", 0)
        argv = ["ansible", "host", "-i", "host,", "-c", self.connection]
        argv += ["-m", f"packetwatch.xdp.{name}"]
        argv += ["-e", f"ansible_python_interpreter={PYTHON}", "-a", json.dumps(options)]
        argv += ["--check"] * check + ["--diff"] * diff
        done = subprocess.run(
            [*self.enter, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)} | self.environment,
            check=False,
            timeout=300,
        )
        begin = done.stdout.rfind("host | ")
        assert begin >= 0, done.stdout
        status, text = done.stdout[begin:].split(" => ", 1)
        result: Result = json.loads(text)
        return result | ({"failed": True} if "FAILED" in status else {})

    def four_times(self, name: str, /, **options: Any) -> list[Result]:
        """Run in check mode, apply, apply again, check again; assert what must hold for all modules."""
        predicted, done, again, again_predicted = (
            self.module(name, check=check, diff=True, **options)
            for check in (True, False, False, True)
        )
        for result in (predicted, done, again, again_predicted):
            assert "failed" not in result, result
        assert predicted["changed"] is True, predicted
        assert done["changed"] is True, done
        assert again["changed"] is False, again
        assert again_predicted["changed"] is False, again_predicted
        return [predicted, done, again, again_predicted]

    def peer_reaches(self, address: str) -> bool:
        """Whether the peer gets an answer, also a refusal, if it opens a connection."""
        argv = ["nsenter", "--net=/run/netns/peer", "--", PYTHON, "-c", CONNECT, address]
        return self.command(*argv) == "reached\n"

    def files(self) -> dict[str, str]:
        """The files of confirmed state: content by path below its directory."""
        current = "/etc/packetwatch/current/"
        listed = self.command("find", current, "-type", "f", check=False).split()
        return {path.removeprefix(current): self.command("cat", path) for path in listed}

    def mode(self, interface: str) -> str:
        """How `ip` shows the attached program: xdp, xdpgeneric or empty."""
        words = self.command("ip", "-o", "link", "show", interface).split()
        return next((word for word in words if word.startswith("xdp")), "")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ModuleHost]:
    """A host on which Packetwatch never was."""
    with make_host(tmp_path) as found:
        yield found


@contextlib.contextmanager
def make_host(folder: Path) -> Iterator[ModuleHost]:
    """Make such a host. folder: for its files on the controller."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not (COLLECTIONS / "ansible_collections/packetwatch/xdp").is_dir():
        pytest.skip("runs in the copy that make makes")
    argv = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc", SETUP]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield ModuleHost(process.pid, folder)
        finally:
            for pid in processes_of(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes_of(host: int) -> list[int]:
    """All processes of a host, given by its first process; with those that wait for a timer's end."""
    found = [host]
    with contextlib.suppress(OSError):
        own = os.stat(f"/proc/{host}/ns/mnt").st_ino
        if own == os.stat("/proc/self/ns/mnt").st_ino:
            return found  # The process has no namespace of its own yet.
        for path in Path("/proc").glob("[0-9]*/ns/mnt"):
            with contextlib.suppress(OSError):
                if path.stat().st_ino == own:
                    found.append(int(path.parts[2]))
    return found


def gated_plugins(folder: Path) -> Path:
    """The folder in which Ansible finds the connection plugin `gated`."""
    plugins = folder / "connections.d"
    plugins.mkdir()
    source = Path(__file__).with_name("gated.py")
    (plugins / source.name).write_text(source.read_text())
    return plugins


@pytest.fixture
def text_file(tmp_path: Path) -> Any:
    """Writes a file on the controller."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write
