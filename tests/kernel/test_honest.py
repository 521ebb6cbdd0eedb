# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Honest traffic through program and agent: nobody is banned, although everything counts that can."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import AF_INET, AF_INET6, SOCK_DGRAM

import pytest
from kernel.agent_process import AgentProcess
from kernel.container import ADDRESS, published
from kernel.datapath import Datapath, listening, wait_for
from kernel.hosting import Namespace, ip
from kernel.packets import HOST4, HOST6

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plugged_in")]

THRESHOLD = 5
PYTHON = "/usr/bin/python3"
PUBLISHED = range(8080, 8086)
POLICY = {
    "scan_counts": "closed",
    "scan_ports": THRESHOLD,
    "scan_window": 60,
    "published_ports": ",".join(map(str, PUBLISHED)),
    "scan_kinds": ["syn", "stealth", "ack", "udp", "sctp", "proto"],
}
TCP_REPAIR = 19
# In a query for hostNUMBER.example.
_LAST_DIGIT = -len(b"N\7example\0\0\1\0\1")

numbers = itertools.count(1)


class Client:
    """A host at the other end of the cable, with addresses of its own."""

    def __init__(self, datapath: Datapath, number: int) -> None:
        self._datapath = datapath
        self.own4, self.own6 = f"10.77.1.{number}", f"fd77:0:0:{number:x}::2"
        with self.here():
            ip(f"address add {self.own4}/16 dev v1")
            ip(f"address add {self.own6}/32 dev v1 nodad")
        wait_for(lambda: self.tcp(9) is None and self.tcp(9, HOST6) is None)
        datapath.forget_hits()

    def here(self) -> contextlib.AbstractContextManager[None]:
        return self._datapath.peer()

    def _socket(self, kind: int, target: str, own: int) -> socket.socket:
        is_ipv6 = ":" in target
        with self.here():
            found = socket.socket(AF_INET6 if is_ipv6 else AF_INET, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((self.own6 if is_ipv6 else self.own4, own))
        found.settimeout(5)
        return found

    def tcp(self, port: int, target: str = HOST4, own: int = 0) -> socket.socket | None:
        """Connect; None if the connection is refused."""
        client = self._socket(socket.SOCK_STREAM, target, own)
        try:
            client.connect((target, port))
        except OSError:
            client.close()
            return None
        return client

    def asks(self, ports: Sequence[int], target: str = HOST4) -> list[bool]:
        """Connect to each port, and return which ones accept."""
        found = []
        for port in ports:
            client = self.tcp(port, target)
            found.append(client is not None)
            if client:
                client.close()
        return found

    def udp(self, target: str = HOST4, own: int = 0) -> socket.socket:
        return self._socket(SOCK_DGRAM, target, own)

    def run(self, *command: str) -> str:
        """Run a program of the client's; it must succeed."""
        with self.here():
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def filtered(
    loaded_datapath: Datapath, plugged_in: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Datapath]:
    """Program and agent with one policy for all tests of this file."""
    with loaded_datapath.host_namespace.entered():
        loaded_datapath.reset()
        loaded_datapath.policy(**POLICY)
        ip("route replace 10.77.0.0/16 dev v0")
        ip("-6 route replace fd77::/32 dev v0")
        agent = AgentProcess(
            tmp_path_factory.mktemp("honest") / "agent", loaded_datapath.paths.bpffs, 0
        )
        agent.start(PW_PROTECT_AUTO="0", PW_CONFIG_DIR=loaded_datapath.paths.state)
    yield loaded_datapath
    agent.close()
    with loaded_datapath.host_namespace.entered():
        ip("route delete 10.77.0.0/16 dev v0")
        ip("-6 route delete fd77::/32 dev v0")


@pytest.fixture
def host(filtered: Datapath) -> Iterator[Datapath]:
    """The host's side. Afterwards nobody must be banned, and packets must have come."""
    with filtered.host_namespace.entered():
        before = sum(filtered.cells().values())
        yield filtered
        assert filtered.banned() == set()
        assert sum(filtered.cells().values()) > before


@pytest.fixture
def client(host: Datapath) -> Client:
    return Client(host, next(numbers))


@contextlib.contextmanager
def program(*command: str) -> Iterator[None]:
    """A program that runs for a while."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, command
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def answering(
    port: int, answer: Callable[[socket.socket, bytes, tuple[str, int]], None]
) -> Iterator[socket.socket]:
    """A service over UDP; `answer` gets its socket, a request, and who has sent it."""
    with socket.socket(AF_INET, SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))
        server.settimeout(0.1)
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    answer(server, *server.recvfrom(2048))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            is_over.set()
            thread.join()


def echo(server: socket.socket, data: bytes, sender: tuple[str, int]) -> None:
    server.sendto(data, sender)


@contextlib.contextmanager
def services(ports: Sequence[int]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(listening(AF_INET6, "::", port))
        yield


# Files, mail, shells


@pytest.mark.parametrize("target", [HOST4, f"[{HOST6}]"], ids=["ipv4", "ipv6"])
def test_passive_ftp(client: Client, tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    address = "::" if "[" in target else "0.0.0.0"
    ftp = (PYTHON, "-m", "pyftpdlib", "-i", address, "-p", "2121", "-d", str(tmp_path))
    own = client.own6 if "[" in target else client.own4
    with program(*ftp, "-w", "-r", "41000-41040"):
        wait_for(lambda: client.asks([2121], target.strip("[]")) == [True])
        for number in range(8):
            url = f"ftp://{target}:2121/file"
            got = client.run("curl", "-s", "--interface", own, url, "-o", str(tmp_path / "got"))
            assert not got and (tmp_path / "got").stat().st_size == 100_000, number


def test_passive_ftp_by_this_host(host: Datapath, client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    ftp = (PYTHON, "-m", "pyftpdlib", "-i", client.own4, "-p", "2121", "-d", str(tmp_path))
    with contextlib.ExitStack() as stack:
        with client.here():
            stack.enter_context(program(*ftp))
        command = ["curl", "-s", "--retry", "9", "--retry-connrefused"]
        for dummy in range(5):
            url = f"ftp://{client.own4}:2121/file"
            done = subprocess.run([*command, url], capture_output=True, timeout=60, check=True)
            assert len(done.stdout) == 100_000


def test_a_mail_client_tries_four_ports(client: Client) -> None:
    with services([25]):
        for dummy in range(3):
            assert client.asks([465, 587, 993, 995, 25]) == [False] * 4 + [True]


def test_shells(client: Client, tmp_path: Path) -> None:
    keys = {name: str(tmp_path / name) for name in ("host", "own")}
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", keys["host"]], check=True)
    with program("dropbear", "-F", "-E", "-p", "2222", "-r", keys["host"]):
        wait_for(lambda: client.asks([2222]) == [True])
        with client.here():
            for dummy in range(4):
                # It ends as soon as it has seen the server's key and was refused.
                options = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no")
                files = ("-o", "UserKnownHostsFile=/dev/null", "-b", client.own4)
                done = subprocess.run(
                    ["ssh", *options, *files, "-p", "2222", HOST4],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                assert "Permission denied" in done.stderr


# Datagrams


def test_a_telephone_talks_on_after_the_call(client: Client) -> None:
    with answering(5060, echo), client.udp(own=5060) as phone:
        for call in range(4):
            phone.sendto(b"INVITE", (HOST4, 5060))
            assert phone.recv(100) == b"INVITE"
            media = [16384 + 2 * call + number for number in range(2)]
            with contextlib.ExitStack() as stack:
                mouths = [stack.enter_context(client.udp(own=40_000 + port)) for port in range(2)]
                with contextlib.ExitStack() as ears:
                    for port in media:
                        ears.enter_context(answering(port, echo))
                    speak(mouths, media)
                speak(mouths, media)


def speak(mouths: list[socket.socket], ports: list[int]) -> None:
    for dummy in range(20):
        for mouth, port in zip(mouths, ports):
            with contextlib.suppress(ConnectionRefusedError):
                mouth.sendto(bytes(172), (HOST4, port))
        time.sleep(0.005)


def test_a_peer_of_bittorrent_calls_a_closed_port(client: Client) -> None:
    with client.udp() as peer:
        for dummy in range(30):
            assert client.asks([6881]) == [False]
            with contextlib.suppress(ConnectionRefusedError):
                peer.sendto(b"d1:ad2:id20:", (HOST4, 6881))


def test_a_busy_resolver_gets_late_answers(host: Datapath, client: Client) -> None:
    """One query in ten gets no answer, and the others get each answer once more later."""
    answers: list[tuple[bytes, tuple[str, int]]] = []

    def upstream(server: socket.socket, query: bytes, sender: tuple[str, int]) -> None:
        if query[_LAST_DIGIT] % 10:
            answers.append((query[:2] + b"\x81\x83" + query[4:], sender))
            server.sendto(*answers[-1])

    with contextlib.ExitStack() as stack:
        with client.here():
            server = stack.enter_context(answering(53, upstream))
        options = ("-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--cache-size=0")
        dnsmasq = ("dnsmasq", *options, "-p", "5353", f"--server={client.own4}", "--user=root")
        stack.enter_context(program(*dnsmasq, "--pid-file="))
        wait_for(lambda: client.asks([5353]) == [True])
        for number in range(200):
            with client.udp() as asking:
                name = f"host{number}".encode()
                query = number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0"
                query += bytes([len(name)]) + name + b"\7example\0\0\1\0\1"
                asking.sendto(query, (HOST4, 5353))
                asking.settimeout(0.01)
                # Most clients have gone when the answer comes.
                with contextlib.suppress(TimeoutError):
                    asking.recv(512)
        assert len(answers) > 100
        for answer in answers:
            with contextlib.suppress(ConnectionRefusedError):
                server.sendto(*answer)


def test_time_servers_of_a_pool(host: Datapath, client: Client) -> None:
    request, answer = b"\x23" + bytes(47), b"\x24\1" + bytes(46)

    def serve(server: socket.socket, data: bytes, sender: tuple[str, int]) -> None:
        if data == request:
            server.sendto(answer, sender)

    with answering(123, serve):
        for own in (123, *range(45_000, 45_100)):
            with client.udp(own=own) as asking:
                asking.sendto(request, (HOST4, 123))
                assert asking.recv(100) == answer
    with client.udp(own=123) as there:
        # This host asks too, and has gone when answers come.
        for dummy in range(20):
            with socket.socket(AF_INET, SOCK_DGRAM) as asking:
                asking.sendto(request, (client.own4, 123))
                dummy_data, sender = there.recvfrom(100)
            with contextlib.suppress(ConnectionRefusedError):
                there.sendto(answer, sender)


def test_http3_with_migration_and_a_restart(client: Client) -> None:
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(client.udp()) for dummy in range(20)]
        for dummy in range(2):
            with answering(443, echo):
                for browser in browsers:
                    browser.sendto(bytes(1200), (HOST4, 443))
                    assert len(browser.recv(2000)) == 1200
            for browser in browsers:
                with contextlib.suppress(ConnectionRefusedError):
                    browser.sendto(bytes(1200), (HOST4, 443))


def test_http3_by_this_host(client: Client) -> None:
    with client.udp(own=443) as server:
        for dummy in range(20):
            with socket.socket(AF_INET, SOCK_DGRAM) as browser:
                browser.sendto(bytes(1200), (client.own4, 443))
                sender = server.recvfrom(2000)[1]
                server.sendto(bytes(1200), sender)
                assert len(browser.recv(2000)) == 1200
            for dummy_retry in range(3):
                with contextlib.suppress(ConnectionRefusedError):
                    server.sendto(bytes(1200), sender)


# Many users, many ports


def test_fifty_users_behind_one_address(client: Client) -> None:
    ports = range(7000, 7050)
    with services(ports):
        assert client.asks(ports) == [True] * 50
        assert client.asks(ports, HOST6) == [True] * 50
    # Four of them have an old address of something that moved.
    assert client.asks([7100, 7101, 7102, 7103] * 3) == [False] * 12


def test_monitoring_during_a_restart(host: Datapath, client: Client) -> None:
    """Nobody has asked these services before: only the agent knows that they were there."""
    ports = range(7200, 7210)

    def is_known(port: int) -> bool:
        return any(host.maps["open_ports"].lookup(port.to_bytes(4, "little")) or b"")

    with services(ports):
        wait_for(lambda: all(map(is_known, ports)))
    for dummy in range(3):
        assert client.asks(ports) == [False] * 10
    with services(ports):
        assert client.asks(ports) == [True] * 10


@pytest.fixture
def container(host: Datapath) -> Iterator[Namespace]:
    ports = ",".join(map(str, PUBLISHED))
    with published(f"iifname v0 tcp dport {{ {ports} }} dnat to {ADDRESS}") as found:
        yield found


def test_containers_that_restart(client: Client, container: Namespace) -> None:
    for is_up in (True, False, True):
        with contextlib.ExitStack() as stack, container.entered():
            for port in PUBLISHED if is_up else ():
                stack.enter_context(listening(AF_INET, "0.0.0.0", port))
            assert client.asks(PUBLISHED) == [is_up] * len(PUBLISHED)


# Long connections


@pytest.mark.parametrize("timestamps", [1, 0])
@pytest.mark.parametrize("target", [HOST4, HOST6])
def test_large_transfers(client: Client, target: str, timestamps: int) -> None:
    """Without timestamps, acknowledgements have no options: they look like those of a scanner."""
    setting = Path("/proc/sys/net/ipv4/tcp_timestamps")
    setting.write_text(str(timestamps))
    try:
        with socket.create_server(("::", 7300), family=AF_INET6, dualstack_ipv6=True) as server:
            for dummy in range(4):
                near = client.tcp(7300, target)
                assert near is not None
                far, dummy_address = server.accept()
                with near, far:
                    transfer(far, near)
                    transfer(near, far)
    finally:
        setting.write_text("1")


def transfer(sender: socket.socket, receiver: socket.socket, size: int = 4 << 20) -> None:
    thread = threading.Thread(target=sender.sendall, args=(bytes(size),))
    thread.start()
    left = size
    while left:
        left -= len(receiver.recv(1 << 20))
    thread.join()


def vanish(connection: socket.socket) -> None:
    """Close without a word, as after a timeout or a crash."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connection.close()


@pytest.mark.parametrize("timestamps", [1, 0])
def test_clients_whose_connections_have_died(client: Client, timestamps: int) -> None:
    """The services of ten clients end, and they send on."""
    setting = Path("/proc/sys/net/ipv4/tcp_timestamps")
    setting.write_text(str(timestamps))
    ports = range(7400, 7410)
    clients = []
    try:
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(socket.create_server(("0.0.0.0", port))) for port in ports
            ]
            for server, port in zip(servers, ports):
                clients.append(client.tcp(port))
                vanish(server.accept()[0])
        for near in clients:
            assert near is not None
            near.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                near.recv(1)
    finally:
        setting.write_text("1")
        for near in clients:
            if near:
                near.close()


def test_servers_of_connections_that_this_host_has_forgotten(client: Client) -> None:
    ports = range(7500, 7510)
    for port in ports:
        with client.here():
            server = socket.create_server((client.own4, port))
        with server:
            near = socket.create_connection((client.own4, port), 5)
            far = server.accept()[0]
            vanish(near)
            far.settimeout(5)
            with far, contextlib.suppress(OSError):
                far.sendall(b"late")
                far.shutdown(socket.SHUT_WR)
                far.recv(1)


def test_a_scan_among_all_this_is_banned(filtered: Datapath) -> None:
    with filtered.host_namespace.entered():
        scanner = Client(filtered, next(numbers))
        assert scanner.asks(range(7600, 7604)) == [False] * 4
        with contextlib.suppress(OSError), scanner._socket(socket.SOCK_STREAM, HOST4, 0) as last:
            last.settimeout(0.5)
            last.connect((HOST4, 7604))
        assert filtered.banned() == {scanner.own4}
        filtered.bans.lift(scanner.own4)
