# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Changes a dispatcher under traffic, on a host. It runs there, with the library there; prints JSON.

    python3 - STEP [ARGUMENT ...]

The interface pw7 is one end of a veth pair. The other end is p7 in the namespace `neighbour`, from which frames
of an unlisted and of a denied source come.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

sys.path.insert(0, "/usr/lib/packetwatch/current")

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._base.paths import Paths
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import in_turn, remove_lists, set_lists
from packetwatch_core._declared.nexts import Next
from packetwatch_core._dispatcher import builder
from packetwatch_core._dispatcher.chain import Dispatchers
from packetwatch_core._dispatcher.extension import load_extension
from packetwatch_core._dispatcher.member import Member
from packetwatch_core._dispatcher.place import Place
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.pins import Pins
from packetwatch_core._kernel.programs import Program

INTERFACE = "pw7"
OWN, UNLISTED, DENIED, ALLOWED = "10.9.0.1", "10.9.0.2", "10.9.0.66", "10.9.0.78"
PORT = 7000
DROPPED_PORT = 7009
OBJECT = "/root/neighbour.o"
# mov r0, XDP_PASS; exit
PASSES = bytes.fromhex("b7000000020000009500000000000000")
# Drops UDP to `DROPPED_PORT` over IPv4 without options.
NEXT = f"""#include <uapi/linux/bpf.h>
int next(struct xdp_md *context)
{{
    unsigned char *data = (void *)(long)context->data;
    if (data + 42 > (unsigned char *)(long)context->data_end || data[12] != 8 || data[23] != 17)
        return XDP_PASS;
    return (data[36] << 8 | data[37]) == {DROPPED_PORT} ? XDP_DROP : XDP_PASS;
}}
"""
_NETNS = 0x40000000
_BURST = 32
_PAUSE = 0.02
_NOTICED = 90.0


def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Start a process as the library wants it."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def tool(*argv: str) -> None:
    """Run a command of the neighbour's; it must succeed."""
    subprocess.run(argv, stdout=sys.stderr, stderr=sys.stderr, check=True)


def chain() -> list[dict[str, object]]:
    """The members of the dispatcher in their order."""
    found = Dispatchers(Pins().dispatchers).read(socket.if_nametoindex(INTERFACE))
    return [member._asdict() for member in found.members] if found else []


def load(name: str, priority: int) -> int:
    """Let libxdp's own tool load a program of the neighbour's; return its id."""
    before = {member["id"] for member in chain()}
    tool("xdp-loader", "load", INTERFACE, OBJECT, "-n", name, "-P", str(priority))
    # The kernel keeps 15 characters of a name.
    (number,) = [
        int(str(member["id"]))
        for member in chain()
        if member["name"] == name[:15] and member["id"] not in before
    ]
    return number


def unload(number: int) -> None:
    """Let libxdp's own tool remove a program."""
    tool("xdp-loader", "unload", INTERFACE, "--id", str(number))


def enter(namespace: str) -> None:
    """Move this thread to a network namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), _NETNS) == 0


def ask(*sources: str, port: int = 9) -> list[bool]:
    """Whether each of these sources gets an answer: an error of ICMP, because no service is there."""
    answers = []

    def asking() -> None:
        enter("neighbour")
        for source in sources:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(1)
                client.bind((source, 0))
                client.connect((OWN, port))
                client.send(b"x")
                try:
                    client.recv(1)
                except ConnectionRefusedError:
                    answers.append(True)
                except TimeoutError:
                    answers.append(False)

    thread = threading.Thread(target=asking)
    thread.start()
    thread.join()
    assert len(answers) == len(sources)
    return answers


def frame(source: str) -> bytes:
    """A UDP datagram to the receiver, without a checksum of UDP."""
    with open(f"/sys/class/net/{INTERFACE}/address", encoding="ascii") as file:
        mac = bytes.fromhex(file.read().strip().replace(":", ""))
    addresses = socket.inet_aton(source) + socket.inet_aton(OWN)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 46, 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", 0xFFFF - total) + head[12:]
    return mac + bytes(5) + b"\2" + b"\x08\x00" + head + struct.pack("!HHHH18x", 4000, PORT, 26, 0)


class Flood:
    """Sends frames of both sources in turn, and counts what arrives, until it is closed."""

    def __init__(self) -> None:
        self.sent = 0
        """Frames of each source."""
        self.arrived = {UNLISTED: 0, DENIED: 0}
        self._stop = threading.Event()
        self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        self._receiver.bind((OWN, PORT))
        self._receiver.settimeout(0.5)
        self._threads = [threading.Thread(target=step) for step in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        enter("neighbour")
        frames = frame(UNLISTED), frame(DENIED)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("p7", 0))
            while not self._stop.is_set():
                for _turn in range(_BURST):
                    for data in frames:
                        sender.send(data)
                    self.sent += 1
                time.sleep(_PAUSE)

    def _receive(self) -> None:
        while True:
            try:
                _data, (source, _port) = self._receiver.recvfrom(64)
            except TimeoutError:
                if self._stop.is_set() and not self._threads[0].is_alive():
                    return
                continue
            self.arrived[source] += 1


def counted() -> int:
    """Packets that the neighbour's program has counted."""
    (number,) = [member["id"] for member in chain() if member["name"] == "neighbour_count"]
    with Program.by_id(int(str(number))) as program, Map.by_id(program.info().map_ids[0]) as seen:
        return int.from_bytes(seen.lookup(bytes(4)) or b"", sys.byteorder)


def denied() -> int:
    """IPv4 packets that Packetwatch has dropped because of a deny entry."""
    packets = Host(run).info({"counters"})["counters"]["packets"]
    return int(packets["drop"].get("deny", {}).get("ipv4", 0))


def change_by_us(turns: int) -> None:
    """Change our place again and again."""
    with Loaded(Pins()) as loaded:
        held = loaded.held_on(socket.if_nametoindex(INTERFACE))
        assert held and held.membership and loaded.extension
        for turn in range(turns):
            held.membership.move(loaded.extension, Place(20 + turn % 2 * 10))


def replace_our_program() -> bool:
    """Declare a list that does not fit into the loaded generation; return whether the program is another one."""
    before = [member["id"] for member in chain() if member["name"] == "packetwatch"]
    # With a gap after each, so that they do not become one range. More than any list that the host had before.
    addresses = "".join(
        f"11.{number >> 15}.{number >> 7 & 255}.{(number & 127) * 2}\n" for number in range(150_000)
    )
    edit = set_lists("many", {"allow": "", "deny": addresses}, allow_empty=True)
    Host(run).apply(edit, force=True)
    return before != [member["id"] for member in chain() if member["name"] == "packetwatch"]


def change_by_the_neighbour(turns: int) -> None:
    """Let libxdp's own tool add a program, replace it by a new one again and again, and remove it."""
    former = 0
    for _turn in range(turns):
        new = load("neighbour_drop", 25)
        if former:
            unload(former)
        former = new
    unload(former)


def flood(ours: int, theirs: int) -> dict[str, object]:
    """Change the chain under traffic; return what both sides have counted."""
    before = counted(), denied()
    traffic = Flood()
    began = time.monotonic()
    try:
        change_by_us(ours // 2)
        is_replaced = replace_our_program()
        change_by_us(ours // 2)
        between = time.monotonic()
        change_by_the_neighbour(theirs)
    finally:
        traffic.close()
    return {
        "sent": traffic.sent,
        "arrived": traffic.arrived[UNLISTED],
        "is_replaced": is_replaced,
        "leaked": traffic.arrived[DENIED],
        "counted": counted() - before[0],
        "denied": denied() - before[1],
        "seconds": [round(between - began, 1), round(time.monotonic() - between, 1)],
    }


def drop() -> dict[str, list[object]]:
    """Let a program drop packets to a port, before us and after us.

    Returns for both whether sources get answers (unlisted, allowed, unlisted at another port), and how
    many packets of a denied source Packetwatch has dropped.
    """
    found: dict[str, list[object]] = {}
    for where, priority in (("before", 5), ("after", 70)):
        number = load("neighbour_drop", priority)
        answers = ask(UNLISTED, ALLOWED, port=DROPPED_PORT) + ask(UNLISTED)
        before = denied()
        ask(DENIED, port=DROPPED_PORT)
        found[where] = [*answers, denied() - before]
        unload(number)
    return found


def last() -> list[object]:
    """Let no program run after us; return whether an unlisted source gets an answer, and what the neighbour counts."""
    with Loaded(Pins()) as loaded:
        held = loaded.held_on(socket.if_nametoindex(INTERFACE))
        assert held and held.membership and loaded.extension
        place, before = held.membership.place, counted()
        held.membership.move(loaded.extension, Place(place.priority, ()))
        answers = ask(UNLISTED, port=PORT)
        between = counted()
        held.membership.move(loaded.extension, place)
        return [*answers, between - before, *ask(UNLISTED, port=PORT), counted() - between]


def large() -> list[object]:
    """Change our place while the MTU needs several buffers, which the neighbour's program does not accept.

    Returns why that is refused, or why the MTU is, and the chain then.
    """
    number = load("neighbour_count", 60)
    peer = ("ip", "-n", "neighbour", "link", "set", "p7", "mtu")
    status, _output, said = run((*peer, "9000"))
    if not status:
        try:
            Host(run).attach(INTERFACE, "dispatcher:33:pass")
        except PacketwatchError as error:
            said = str(error)
    after = [[member["name"], member["priority"]] for member in chain()]
    tool(*peer, "1500")
    unload(number)
    return [said, after]


def cost() -> dict[str, float]:
    """Nanoseconds of a packet that passes: the filter alone, and in dispatchers of one and of two members.

    The second member only returns XDP_PASS. The dispatchers are not attached, so the interface stays as it is. An
    emulated machine shares its processor, so the least of many short rounds counts.
    """
    ifindex = socket.if_nametoindex(INTERFACE)
    data = frame(UNLISTED)
    with Loaded(Pins()) as loaded, load_extension(PASSES, "passes") as passes:
        assert loaded.program and loaded.extension
        ours, other = (
            Member(info.id, info.name, info.tag, info.loaded, 10, 1 << 2, has_frags=True)
            for info in (loaded.extension.info(), passes.info())
        )
        one, two = builder.build([ours]), builder.build([ours, other])
        programs = {"alone": loaded.program, "one": one.program, "two": two.program}
        rounds = [
            {name: program.test_run(data, ifindex, 500)[1] for name, program in programs.items()}
            for _round in range(200)
        ]
        one.close()
        two.close()
    found = {name: float(min(row[name] for row in rounds)) for name in programs}
    return found | {f"{name} : alone": found[name] / found["alone"] for name in ("one", "two")}


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Move the interface to another namespace, and bring it back."""
    tool("ip", "netns", "add", "elsewhere")
    tool("ip", "link", "set", INTERFACE, "netns", "elsewhere")
    inside = ("ip", "-n", "elsewhere")
    tool(*inside, "address", "add", f"{OWN}/24", "dev", INTERFACE)
    tool(*inside, "link", "set", "lo", "up")
    tool(*inside, "link", "set", INTERFACE, "up")
    yield
    tool(*inside, "link", "set", INTERFACE, "netns", "1")
    tool("ip", "netns", "delete", "elsewhere")
    tool("ip", "address", "add", f"{OWN}/24", "dev", INTERFACE)
    tool("ip", "link", "set", INTERFACE, "up")


def wander() -> list[object]:
    """Move the interface to another namespace, repair, and bring it back.

    Returns whether an unlisted and a denied source get answers there, and after the return; then the chain, and
    what is wrong with the host after the agent had time to notice.
    """
    host = Host(run)
    with elsewhere():
        host.apply(force=True)
        answers = ask(UNLISTED, DENIED)
    back = ask(UNLISTED, DENIED)
    deadline = time.monotonic() + _NOTICED
    while (wrong := host.verify()) and time.monotonic() < deadline:
        time.sleep(1)
    return [answers, back, [member["name"] for member in chain()], wrong]


def second() -> str:
    """Try to join with a second filter of its own; return why it is refused."""
    own = "/run/second"
    paths = Paths(
        bpffs="/sys/fs/bpf/second",
        **{name: f"{own}/{name}" for name in ("state", "images", "spared", "ages", "clock")},
        **{name: f"{own}/{name}" for name in ("settings", "pending", "status", "tables")},
    )
    os.makedirs(own, exist_ok=True)
    source = Host(run).store.read_current()[1].program
    try:
        Host(run, paths).attach(INTERFACE, "dispatcher:30:pass", source)
    except PacketwatchError as error:
        return str(error)
    return ""


def revert() -> list[list[object]]:
    """Make a pending change of our place, and revert it; return both chains."""
    host = Host(run)
    host.attach(INTERFACE, "dispatcher:40:pass", terms=Terms(300, "a-token", "test"))
    pending = chain()
    host.roll_back("a-token")
    return [[member["priority"] for member in found] for found in (pending, chain())]


def leave() -> list[bool]:
    """Join, and leave while the interface is in another namespace; return what a denied source gets there."""
    host = Host(run)
    host.attach(INTERFACE, "dispatcher")
    with elsewhere():
        before = ask(DENIED)
        host.detach(INTERFACE)
        after = ask(DENIED)
    tool("ip", "link", "set", INTERFACE, "xdp", "off")
    return before + after


def follow() -> list[object]:
    """Filter the interface without a dispatcher, and with a next program that drops packets to a port.

    Returns whether sources get answers (unlisted, allowed; then unlisted and denied at another port), and the
    kinds of the programs in their order.
    """
    host = Host(run)
    host.attach(INTERFACE, "native", following=Next(source=NEXT))
    answers = ask(UNLISTED, ALLOWED, port=DROPPED_PORT) + ask(UNLISTED, DENIED)
    shown = host.info({"interfaces"})["interfaces"][INTERFACE]["chain"]
    host.detach(INTERFACE)
    return [*answers, *(member["kind"] for member in shown)]


def forget() -> bool:
    """Withdraw the lists of these tests."""
    edit = in_turn(*(remove_lists(name) for name in ("neighbour", "many")))
    return Host(run).apply(edit).changed


STEPS: dict[str, Callable[[], object]] = {
    "chain": chain,
    "flood": lambda: flood(*map(int, sys.argv[2:])),
    "load": lambda: load(sys.argv[2], int(sys.argv[3])),
    "ask": lambda: ask(*sys.argv[2:]),
    "denied": denied,
    "drop": drop,
    "last": last,
    "large": large,
    "cost": cost,
    "wander": wander,
    "second": second,
    "revert": revert,
    "follow": follow,
    "leave": leave,
    "forget": forget,
    "verify": lambda: Host(run).verify(),
}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]]()))
