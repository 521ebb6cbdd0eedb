# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host for tests: network namespaces, a veth pair, and a `Host` with temporary paths.

The namespaces have no name, so they end with this process, however it dies. Pins carry its process
number, so that the next run can recognise what a killed run has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from packetwatch_core._base.paths import Paths
from packetwatch_core._change.results import Plan
from packetwatch_core._declared.edits import set_lists, set_policy
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.bytecode import PYTHON, Compiler
from packetwatch_core._kernel.libbpf import ARRAY, Map, call
from packetwatch_core._kernel.programs import Program, attached
from packetwatch_core._kernel.source import flatten

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "roles/packetwatch/files/bpf"
# Environment of the installed library, without the tests' setting of where bytecode is kept.
CLEAN = {"PATH": os.environ["PATH"]}
FULL = bool(os.environ.get("PACKETWATCH_FULL"))
BPFFS = Path("/sys/fs/bpf")
PREFIX = "pwtest-"

HOST_MAC = bytes.fromhex("020000000001")
PEER_MAC = bytes.fromhex("020000000002")
OWN = "192.0.2.1"
DENIED = "198.51.100.7"
UNLISTED = "203.0.113.9"
XDP_PASS, XDP_DROP = 2, 1


class Namespace:
    """A network namespace without a name.

    connections: the size of its own table of TCP connections; 0: it uses the machine's. A reader of
    /proc/net/tcp walks the whole table, which takes milliseconds for the machine's.
    """

    def __init__(self, connections: int = 0) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            if connections:
                # The namespace in which another one is made decides.
                os.unshare(os.CLONE_NEWNET)
                size = Path("/proc/sys/net/ipv4/tcp_child_ehash_entries")
                size.write_text(str(connections))
            os.unshare(os.CLONE_NEWNET)
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            os.setns(before, os.CLONE_NEWNET)
            os.close(before)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Enter this namespace, with this thread and the processes that it starts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            os.setns(self._fd, os.CLONE_NEWNET)
            yield
        finally:
            os.setns(before, os.CLONE_NEWNET)
            os.close(before)

    def close(self) -> None:
        os.close(self._fd)


class Wire:
    """The namespaces of the host and of a peer, and the veth pairs between them."""

    def __init__(self) -> None:
        self.host = Namespace(connections=1024)
        self.peer = Namespace()
        for namespace in (self.host, self.peer):
            with namespace.entered():
                # Without IPv6 the kernel sends no packets by itself: every packet is the tests'.
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
                ip("link set lo up")
        self.add("pw0", OWN)

    def add(self, name: str, address: str = "") -> None:
        """Make a veth in the host's namespace; its end in the peer's namespace is called peer-NAME."""
        with self.host.entered():
            ip(f"link add {name} type veth peer name peer-{name} netns {self.peer.path}")
            ip(f"link set {name} address {HOST_MAC.hex(':')} arp off up")
            if address:
                ip(f"address add {address}/24 dev {name}")
        with self.peer.entered():
            ip(f"link set peer-{name} address {PEER_MAC.hex(':')} arp off up")

    def remove(self, name: str) -> None:
        with self.host.entered():
            ip(f"link delete {name}")

    def close(self) -> None:
        self.host.close()
        self.peer.close()


class Site:
    """A `Host` in a namespace, with the questions that tests ask it and the kernel."""

    def __init__(self, wire: Wire, folder: Path, cache: Path, number: int) -> None:
        self.wire = wire
        self.paths = Paths(
            bpffs=str(BPFFS / f"{PREFIX}{os.getpid()}-{number}"),
            state=str(folder / "etc"),
            cache=str(cache),
            images=str(folder / "boot"),
            spared=str(folder / "spared"),
            ages=str(folder / "feeds"),
            clock=str(folder / "clock"),
            tables=str(folder / "known/tables.json"),
            source=str(SOURCE),
            settings=str(folder / "settings"),
            runtime=str(folder / "systemd"),
            units=str(folder / "units"),
            pending=str(folder / "pending"),
            status=str(folder / "run/status.json"),
        )
        self.host = Host(run, self.paths)
        # Datapath tests in this process keep a filter open all the time.
        self._open_before = Counter(open_bpf_descriptors())

    def left_open(self) -> list[str]:
        """Return the BPF objects that the library has opened since then and not closed."""
        return sorted((Counter(open_bpf_descriptors()) - self._open_before).elements())

    def settings(self, **values: str) -> None:
        lines = (f'{key}="{value}"\n' for key, value in values.items())
        Path(self.paths.settings).write_text("".join(lines))

    def lists(
        self, deny: str = "", allow: str = "", *, name: str = "ansible", force: bool = False
    ) -> Plan:
        """Declare both lists and activate them."""
        edit = set_lists(name, {"allow": allow, "deny": deny}, True)
        return self.host.apply(edit, force=force)

    def policy(self, interface: str | None = None, **keys: str) -> Plan:
        values = {f"PW_{key.upper()}": value for key, value in keys.items()}
        return self.host.apply(set_policy(interface, values, False))

    @property
    def state(self) -> Path:
        return Path(self.paths.state)

    def program(self, interface: str = "pw0") -> Program:
        """Return the program that packets of the interface meet."""
        return Program.by_id(attached(socket.if_nametoindex(interface)).program_id)

    def verdict(self, source: str, interface: str = "pw0") -> int:
        """Return the attached program's verdict for a packet from a source (XDP_PASS, XDP_DROP)."""
        with self.program(interface) as program:
            return program.test_run(packet(source), socket.if_nametoindex(interface))[0]

    def generation_id(self, interface: str = "pw0") -> int:
        """Return the number of the active inner map."""
        return next(self._objects(interface, "generation"))[1]

    def slot(self, interface: str = "pw0") -> Map:
        """Return the map that points to the active generation."""
        return Map.by_id(next(self._objects(interface, "generation"))[0])

    def objects(self, interface: str = "pw0") -> set[tuple[str, int]]:
        """Return (kind, number) of the program, its maps and the active generation."""
        with self.program(interface) as program:
            found = {("program", program.info().id)}
            found |= {("map", number) for number in program.info().map_ids}
        return found | {("map", self.generation_id(interface))}

    def _objects(self, interface: str, name: str) -> Iterator[tuple[int, int]]:
        with self.program(interface) as program:
            for number in program.info().map_ids:
                with Map.by_id(number) as found:
                    if found.info.name == name:
                        value = found.lookup(bytes(4)) or bytes(4)
                        yield number, int.from_bytes(value, "little")

    def pinned_maps(self) -> list[Path]:
        """Return the maps that outlive programs."""
        return sorted(
            path
            for path in Path(self.host.pins.own).rglob("*")
            if path.is_file() and path.name != "program"
        )

    def pin_odd_map(self, path: str) -> None:
        """Pin a map that no version of Packetwatch would make."""
        with Map.create(ARRAY, "odd", 4, 12, 3) as odd:
            odd.pin(path)

    def warm_cache(self) -> None:
        """Compile the collection's own program, unless a test has done so."""
        Compiler(run, self.paths.cache).get(source_text())

    def with_cache(self, folder: Path) -> Host:
        return Host(run, self.paths._replace(cache=str(folder)))

    def paths_as_words(self, cache: str | None = None) -> dict[str, str]:
        """Return the arguments of `Paths`, for another process."""
        return self.paths._asdict() | ({"cache": cache} if cache else {})

    def packets(self) -> dict[str, int]:
        """Return the numbers of IPv4 packets by verdict and reason."""
        found = self.host.info({"counters"})["counters"]["packets"]
        return {
            f"{verdict} {reason}": families["ipv4"]
            for verdict, reasons in found.items()
            for reason, families in reasons.items()
            if "ipv4" in families
        }

    def snapshot(self) -> dict[str, object]:
        """Return everything that a refused or failed change must leave unchanged."""
        return {
            "state": digest_of_tree(self.state),
            "pins": sorted(str(path) for path in Path(self.paths.bpffs).rglob("*")),
            "links": {name: attached(index) for index, name in socket.if_nameindex()},
            "objects": {
                name: self.objects(name)
                for index, name in socket.if_nameindex()
                if attached(index).program_id and self._is_ours(name)
            },
        }

    def _is_ours(self, interface: str) -> bool:
        return any(True for dummy in self._objects(interface, "generation"))

    def power_off(self) -> None:
        """Remove everything from the kernel, like a reboot; files on disk stay."""
        objects = self.objects()
        self.close()
        wait_gone(objects)

    def close(self) -> None:
        remove_pins(Path(self.paths.bpffs))


def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    """Run a process for the library."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout, done.stderr


def install_library(folder: Path) -> None:
    """Install the host library like the role: compiled, so that no start compares file times."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins/module_utils", folder / "packetwatch_core", ignore=skipped)
    compiling = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    subprocess.run([PYTHON, *compiling, str(folder)], env=CLEAN, check=True)


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def dummy_program() -> Program:
    """Load a foreign program, which passes everything."""
    return Program.load(bytes.fromhex("b7000000020000009500000000000000"), "dummy")


def packet(source: str, destination: str = OWN, size: int = 60) -> bytes:
    """Return a UDP packet over Ethernet, which does not open a connection."""
    udp = bytes.fromhex("303900090008") + bytes(2)
    header = bytes.fromhex("4500001c0000000040110000")
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + (0xFFFF - total).to_bytes(2, "big") + header[12:]
    return (HOST_MAC + PEER_MAC + b"\x08\x00" + header + udp).ljust(size, b"\0")


def source_text(*changes: tuple[str, str]) -> str:
    """Return the collection's own program with pieces of its text replaced; each piece must exist."""
    text = flatten(str(SOURCE))
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def other_program() -> str:
    """Return another program that does the same in the tests."""
    return source_text(("#define PW_EXT_MAX 8\n", "#define PW_EXT_MAX 7\n"))


def digest_of_tree(folder: Path) -> str:
    """Return a digest of names, contents and links, without the lock file, which names the last writer."""
    check = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.name == "lock":
            continue
        check.update(f"{path.relative_to(folder)} {path.lstat().st_mode}".encode())
        if path.is_symlink():
            check.update(os.readlink(path).encode())
        elif path.is_file():
            check.update(path.read_bytes())
    return check.hexdigest()


def exists(kind: str, number: int) -> bool:
    """Return whether the kernel still has a map or a program.

    It is not opened: a prog array that is opened and closed again, while the kernel empties it after its last
    user, is never freed.
    """
    following = ctypes.c_uint32()
    name = "bpf_map_get_next_id" if kind == "map" else "bpf_prog_get_next_id"
    try:
        call(name, number - 1, ctypes.byref(following))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return following.value == number


def wait_gone(objects: set[tuple[str, int]], seconds: float = 20) -> None:
    """Wait until the kernel has freed all of them, which it does in the background."""
    wait(lambda: not [item for item in objects if exists(*item)], seconds)


def wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def open_bpf_descriptors() -> list[str]:
    """Return the BPF objects that this process holds open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if "bpf" in target:
                found.append(target)
    return found


def remove_pins(folder: Path) -> None:
    """Remove a folder in bpffs with its contents."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the pins of earlier runs whose process has ended."""
    for path in BPFFS.glob(f"{PREFIX}*"):
        match = re.fullmatch(rf"{PREFIX}([0-9]+)-[0-9]+", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove_pins(path)
