# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Protected and local addresses."""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest
from unit.fake_maps import mapped, run_maps

from packetwatch_core._base.errors import InvalidInput, TooLarge, Unreadable
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.netlink import Address, Route
from packetwatch_core._network import peers, protect

NOTHING = protect.Network([], [])


def v6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def address(text: str, prefixlen: int) -> Address:
    family = 6 if ":" in text else 4
    raw = v6(text) if family == 6 else socket.inet_aton(text)
    return Address(family, raw, prefixlen, 2, 0, 0, raw)


NETWORK = protect.Network(
    [
        address("192.0.2.10", 24),
        address("2001:db8:1::10", 64),
        address("2001:db8:9::10", 128),
        address("127.0.0.1", 8),
        address("::1", 128),
    ],
    [
        Route(4, bytes(4), 0, (socket.inet_aton("192.0.2.1"),), 2),
        Route(6, bytes(16), 0, (v6("fe80::1"),), 2),
        Route(6, v6("2001:db8:9::"), 64, (), 2),
    ],
)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def hosts(protection: protect.Protection) -> dict[bytes, str]:
    return {key: protect.ORIGINS[origin] for key, origin in protection.hosts.items()}


def test_own_addresses_and_gateways(tmp_path: Path) -> None:
    found = protect.compute([], True, NETWORK, str(tmp_path))
    assert hosts(found) == {
        mapped("192.0.2.10"): "own address",
        v6("2001:db8:1::10"): "own address",
        v6("2001:db8:9::10"): "own address",
        mapped("127.0.0.1"): "loopback",
        v6("::1"): "loopback",
        mapped("192.0.2.1"): "gateway",
        v6("fe80::1"): "gateway",
    }
    assert found.nets[104, mapped("127.0.0.0")] == abi.NET_PROTECTED
    assert found.local == {
        mapped("192.0.2.10"),
        v6("2001:db8:1::10"),
        v6("2001:db8:9::10"),
        mapped("127.0.0.1"),
        v6("::1"),
    }
    assert found.problems == []


def test_single_nets(tmp_path: Path) -> None:
    found = protect.compute(protect.parse_declared("2001:db8:7::7"), True, NETWORK, str(tmp_path))
    single = {net for net, flags in found.nets.items() if flags == abi.NET_SINGLE}
    assert single == {
        (10, v6("fe80::")),
        (64, v6("fe80::")),
        (64, v6("2001:db8:1::")),
        (64, v6("2001:db8:7::")),
        (64, v6("2001:db8:9::")),
    }


@pytest.mark.parametrize("auto", [True, False])
def test_local_routes(tmp_path: Path, auto: bool) -> None:
    local = [
        Route(4, socket.inet_aton("127.0.0.0"), 8, (), 1, True),
        Route(4, socket.inet_aton("198.51.100.128"), 25, (), 1, True),
        Route(4, socket.inet_aton("198.51.100.5"), 32, (), 1, True),
        Route(6, v6("2001:db8:99::"), 48, (), 1, True),
        Route(6, v6("2001:db8:98::7"), 128, (), 1, True),
    ]
    declared = protect.parse_declared("2001:db8:99:1::/64")
    network = NETWORK._replace(local=local)
    found = protect.compute(declared, auto, network, str(tmp_path))
    assert found.local - protect.compute(declared, auto, NETWORK, str(tmp_path)).local == {
        mapped("198.51.100.5"),
        v6("2001:db8:98::7"),
    }
    assert {net: flags for net, flags in found.nets.items() if flags & abi.NET_LOCAL} == {
        (121, mapped("198.51.100.128")): abi.NET_LOCAL,
        (48, v6("2001:db8:99::")): abi.NET_LOCAL,
        (64, v6("2001:db8:99:1::")): abi.NET_LOCAL | abi.NET_PROTECTED,
    }


@pytest.mark.parametrize("auto", [True, False])
def test_shared_prefixes_and_the_slash_64_around_longer_ones(tmp_path: Path, auto: bool) -> None:
    declared = protect.parse_shared("2001:db8:46::/96, 2001:db8:4000::/36")
    found = protect.compute([], auto, NETWORK, str(tmp_path), declared)
    assert {net for net, flags in found.nets.items() if flags & abi.NET_SHARED} == {
        (96, v6("64:ff9b::")),
        (64, v6("64:ff9b::")),
        (48, v6("64:ff9b:1::")),
        (96, v6("::ffff:0:0:0")),
        (64, v6("::")),
        (32, v6("2001::")),
        (16, v6("2002::")),
        (96, v6("2001:db8:46::")),
        (64, v6("2001:db8:46::")),
        (36, v6("2001:db8:4000::")),
    }
    # IPv4 addresses lie in ::/64 as the maps hold them.
    assert found.nets[96, mapped("0.0.0.0")] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("192.0.2.0/24", "'192.0.2.0/24' is IPv4"),
        ("2001:db8::/31", "'2001:db8::/31' .*from /32 to /127"),
        ("2000::/3", "from /32 to /127"),
        ("2001:db8::7", "'2001:db8::7' is not the prefix"),
        ("2001:db8::7/96", "write 2001:db8::/96"),
        ("nat64", "'nat64' is not an IP address"),
    ],
)
def test_what_is_not_a_shared_prefix(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^PW_SHARED_PREFIXES: .*{words}"):
        protect.parse_shared(f"2001:db8:46::/96 {text}")


def test_shared_prefixes_are_not_left_out(tmp_path: Path) -> None:
    declared = protect.parse_shared(" ".join(f"2001:db8:{n:x}::/96" for n in range(20)))
    found = protect.compute([], False, NETWORK, str(tmp_path), declared)
    with pytest.raises(TooLarge, match="protected and shared entries do not fit"):
        protect.check_room(found, run_maps(nets=40))
    maps = run_maps(nets=48)
    assert protect.write(found, maps).left_out > 0
    written = [int.from_bytes(value, sys.byteorder) for dummy, value in maps["nets"].items()]
    assert sum(flags & abi.NET_SHARED > 0 for flags in written) == 47


def test_without_auto_only_what_is_declared(tmp_path: Path) -> None:
    declared = protect.parse_declared("198.51.100.0/24, 203.0.113.9\n2001:db8:7::/48")
    found = protect.compute(declared, False, NETWORK, str(tmp_path))
    assert hosts(found) == {mapped("203.0.113.9"): "declared"}
    protected = {net for net, flags in found.nets.items() if flags & abi.NET_PROTECTED}
    assert protected == {(120, mapped("198.51.100.0")), (48, v6("2001:db8:7::"))}
    assert mapped("192.0.2.10") in found.local


def test_declared_is_the_first_origin(tmp_path: Path) -> None:
    declared = protect.parse_declared("192.0.2.1")
    found = protect.compute(declared, True, NETWORK, str(tmp_path))
    assert hosts(found)[mapped("192.0.2.1")] == "declared"


def test_declared_names_the_variable() -> None:
    with pytest.raises(InvalidInput, match=r"PW_PROTECT: '192\.0\.2\.1/24'"):
        protect.parse_declared("203.0.113.1 192.0.2.1/24")


def test_a_longer_net_has_the_flags_of_the_shorter() -> None:
    nets = {
        (32, v6("2001:db8::")): abi.NET_PROTECTED,
        (64, v6("2001:db8:1::")): abi.NET_SINGLE,
        (64, v6("2001:db9:1::")): abi.NET_SINGLE,
    }
    found = protect.inherit(nets)
    assert found[64, v6("2001:db8:1::")] == abi.NET_PROTECTED | abi.NET_SINGLE
    assert found[64, v6("2001:db9:1::")] == abi.NET_SINGLE


def test_all_of_ipv6_is_not_all_of_ipv4() -> None:
    found = protect.inherit({(0, bytes(16)): 1, (120, mapped("192.0.2.0")): 2})
    assert found[96, mapped("0.0.0.0")] == 0
    assert found[120, mapped("192.0.2.0")] == 2


def test_longest_match_answers_for_all_that_cover() -> None:
    rng = random.Random(1)
    for dummy in range(200):
        nets = {}
        for dummy in range(rng.randrange(1, 12)):
            plen = rng.randrange(129)
            number = rng.getrandbits(3) << 125 | rng.getrandbits(125)
            nets[plen, protect.masked(number.to_bytes(16, "big"), plen)] = rng.randrange(4)
        found = protect.inherit(nets)
        probe = rng.choice(list(nets))[1]
        want = 0
        for (plen, network), flags in nets.items():
            if protect.masked(probe, plen) == network:
                want |= flags
        longest = max(
            (net for net in found if protect.masked(probe, net[0]) == net[1]), default=None
        )
        assert longest is not None
        if not probe.startswith(bytes(10) + b"\xff\xff"):
            assert found[longest] == want


def test_write_by_difference_adding_first() -> None:
    maps = run_maps()
    first = protect.Protection({mapped("192.0.2.1"): 3}, {}, {mapped("192.0.2.10")}, [])
    assert protect.write(first, maps) == (2, 0)
    assert protect.write(first, maps) == (0, 0)
    second = protect.Protection({mapped("192.0.2.2"): 3}, {}, {mapped("192.0.2.10")}, [])
    maps["hosts"].log.clear()
    assert protect.write(second, maps) == (2, 0)
    assert maps["hosts"].log == [
        ("update", mapped("192.0.2.2")),
        ("delete", mapped("192.0.2.1")),
    ]


def test_ssh_clients_stay_until_they_expire() -> None:
    maps = run_maps()
    seen = protect.Protection({mapped("192.0.2.1"): protect.SSH_CLIENT}, {}, set(), [])
    gone = protect.Protection({}, {}, set(), [])
    assert protect.write(seen, maps) == (1, 0)
    assert protect.write(seen, maps) == (0, 0)
    assert protect.write(gone, maps) == (0, 0)
    (value,) = maps["hosts"].entries.values()
    left = abi.HOST.unpack(value)["expires"] - time.monotonic_ns()
    assert 590 * 10**9 < left <= 600 * 10**9
    # A client that is still connected after half of the time gets a new expiry.
    maps["hosts"].entries[mapped("192.0.2.1")] = abi.HOST.pack(
        origin=protect.SSH_CLIENT, expires=time.monotonic_ns() + 200 * 10**9
    )
    assert protect.write(seen, maps) == (1, 0)
    maps["hosts"].entries[mapped("192.0.2.1")] = abi.HOST.pack(
        origin=protect.SSH_CLIENT, expires=time.monotonic_ns() - 1
    )
    assert protect.write(gone, maps) == (1, 0)
    assert not maps["hosts"].entries


def test_an_ssh_client_may_become_something_else() -> None:
    maps = run_maps()
    for origin in (protect.SSH_CLIENT, protect.DECLARED):
        protect.write(protect.Protection({mapped("192.0.2.1"): origin}, {}, set(), []), maps)
    (value,) = maps["hosts"].entries.values()
    assert abi.HOST.unpack(value) == {"expires": 0, "origin": protect.DECLARED, "reserved": 0}


def test_write_into_a_full_map() -> None:
    maps = run_maps(hosts=1)
    protect.write(protect.Protection({mapped("192.0.2.1"): 3}, {}, set(), []), maps)
    protect.write(protect.Protection({mapped("192.0.2.2"): 3}, {}, set(), []), maps)
    assert list(maps["hosts"].entries) == [mapped("192.0.2.2")]


def test_nothing_goes_while_something_cannot_be_read() -> None:
    maps = run_maps()
    protect.write(protect.Protection({mapped("192.0.2.1"): 3}, {}, set(), []), maps)
    protect.write(protect.Protection({}, {}, set(), ["unreadable"]), maps)
    assert mapped("192.0.2.1") in maps["hosts"].entries


def test_too_many_are_refused_before_anything_changes() -> None:
    maps = run_maps(hosts=1)
    many = {mapped(f"192.0.2.{number}"): 1 for number in range(2)}
    with pytest.raises(TooLarge, match="hosts, which takes 1"):
        protect.write(protect.Protection(many, {}, {mapped("192.0.2.9")}, []), maps)
    assert not maps["local"].entries


def test_too_many_learned_ones_leave_the_least_telling_out() -> None:
    maps = run_maps(hosts=3)
    many = {mapped(f"192.0.2.{number}"): 6 for number in range(9)}
    many |= {mapped("198.51.100.1"): 3, mapped("203.0.113.1"): 1}
    done = protect.write(protect.Protection(many, {}, set(), []), maps)
    assert done == (3, 8)
    assert mapped("203.0.113.1") in maps["hosts"].entries
    assert mapped("198.51.100.1") in maps["hosts"].entries


def test_what_is_there_makes_room_for_what_is_declared() -> None:
    maps = run_maps(hosts=2)
    there = {mapped(f"192.0.2.{number}"): 6 for number in range(2)}
    protect.write(protect.Protection(there, {}, set(), []), maps)
    declared = protect.Protection({mapped("203.0.113.1"): 1}, {}, set(), ["unreadable"])
    assert protect.write(declared, maps).left_out == 1
    assert mapped("203.0.113.1") in maps["hosts"].entries
    assert len(maps["hosts"].entries) == 2


def test_resolvers(tmp_path: Path) -> None:
    write(tmp_path, "etc/resolv.conf", "# nameserver 192.0.2.9\nnameserver 127.0.0.53\nsearch x\n")
    write(
        tmp_path,
        "run/systemd/resolve/resolv.conf",
        "nameserver 192.0.2.53\nnameserver fe80::1%2\nnameserver broken\nnameserver 0.0.0.0\n",
    )
    assert peers.resolvers(str(tmp_path)) == {
        mapped("127.0.0.53"),
        mapped("192.0.2.53"),
        v6("fe80::1"),
    }


def test_time_servers(tmp_path: Path) -> None:
    write(tmp_path, "etc/systemd/timesyncd.conf", "[Time]\n#NTP=192.0.2.9\nNTP=192.0.2.123 name\n")
    write(tmp_path, "run/systemd/netif/links/2", "DNS=192.0.2.53\nNTP=192.0.2.124\n")
    write(tmp_path, "etc/chrony/chrony.conf", "pool 2.debian.pool.ntp.org iburst\n! no\n")
    write(tmp_path, "etc/chrony/sources.d/x.sources", "server 2001:db8::123 iburst\n")
    assert peers.time_servers(str(tmp_path)) == {
        mapped("192.0.2.123"),
        mapped("192.0.2.124"),
        v6("2001:db8::123"),
    }


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", {22}),
        ("#Port 2222\n", {22}),
        ("Port 2222\nport=2022\n", {2222, 2022}),
        ("ListenAddress 192.0.2.1:2222\nListenAddress [2001:db8::1]:2223\n", {2222, 2223}),
        ("ListenAddress 2001:db8::1\nListenAddress 0.0.0.0\n", {22}),
        ("Port many\nPort 99999\n", {22}),
    ],
)
def test_ssh_ports(tmp_path: Path, text: str, ports: set[int]) -> None:
    write(tmp_path, "etc/ssh/sshd_config", text)
    assert peers.ssh_ports(str(tmp_path)) == ports


def proc_address(raw: bytes) -> str:
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    return "".join((word[::-1] if sys.byteorder == "little" else word).hex() for word in words)


def proc_line(local: bytes, port: int, remote: bytes, remote_port: int, state: str) -> str:
    return (
        f"   0: {proc_address(local).upper()}:{port:04X} "
        f"{proc_address(remote).upper()}:{remote_port:04X} {state} 00000000:00000000\n"
    )


def test_ssh_clients(tmp_path: Path) -> None:
    own, other = socket.inet_aton("192.0.2.10"), socket.inet_aton("203.0.113.5")
    lines = [
        "  sl  local_address rem_address   st\n",
        proc_line(own, 22, other, 40000, "01"),
        proc_line(own, 22, socket.inet_aton("203.0.113.6"), 40000, "06"),
        proc_line(own, 40000, socket.inet_aton("203.0.113.7"), 22, "01"),
        proc_line(own, 22, bytes(4), 0, "0A"),
    ]
    write(tmp_path, "proc/self/net/tcp", "".join(lines))
    write(
        tmp_path,
        "proc/self/net/tcp6",
        proc_line(v6("2001:db8::1"), 2222, v6("2001:db8::5"), 40000, "01")
        + proc_line(v6("::ffff:192.0.2.10"), 22, v6("::ffff:203.0.113.9"), 40000, "01"),
    )
    assert peers.ssh_clients({22, 2222}, str(tmp_path)) == {
        mapped("203.0.113.5"),
        v6("2001:db8::5"),
        mapped("203.0.113.9"),
    }


def test_who_has_not_logged_in_is_no_ssh_client(tmp_path: Path) -> None:
    own = socket.inet_aton("192.0.2.10")
    remotes = [socket.inet_aton(f"203.0.113.{number}") for number in (5, 6)]
    lines = [proc_line(own, 22, remote, 40000, "01") for remote in remotes]
    write(tmp_path, "proc/self/net/tcp", "".join(lines))
    everybody = {mapped("203.0.113.5"), mapped("203.0.113.6")}
    assert peers.ssh_clients({22}, str(tmp_path)) == everybody
    write(tmp_path, "etc/pam.d/common-session", "session optional pam_systemd.so\n")
    for config in ("Port 22\n", "UsePAM no\n"):
        write(tmp_path, "etc/ssh/sshd_config", config)
        assert peers.ssh_clients({22}, str(tmp_path)) == everybody
    write(tmp_path, "etc/ssh/sshd_config", "Port 22\nUsePAM yes\n")
    assert peers.ssh_clients({22}, str(tmp_path)) == set()
    session = "# private\nUID=0\nREMOTE=1\nREMOTE_HOST={}\nSERVICE=sshd\n"
    write(tmp_path, "run/systemd/sessions/1", session.format("203.0.113.5"))
    write(tmp_path, "run/systemd/sessions/2", "UID=0\nREMOTE=0\nSERVICE=login\n")
    assert peers.ssh_clients({22}, str(tmp_path)) == {mapped("203.0.113.5")}
    # With UseDNS sshd reports a host name, which is not resolved.
    write(tmp_path, "run/systemd/sessions/3", session.format("admin.example.net"))
    assert peers.ssh_clients({22}, str(tmp_path)) == everybody


def test_a_live_connection_is_seen(tmp_path: Path) -> None:
    (tmp_path / "proc").symlink_to("/proc")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert peers.ssh_clients({port}, str(tmp_path)) == {mapped("127.0.0.1")}
            assert peers.ssh_clients({1}, str(tmp_path)) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_unreadable_is_a_problem_and_not_absent() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), "etc/resolv.conf", "nameserver 192.0.2.53\n")
        Path(folder).chmod(0o755)
        (Path(folder) / "etc/resolv.conf").chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(Unreadable, match=r"resolv\.conf"):
                peers.resolvers(folder)
        finally:
            os.seteuid(0)


def test_a_folder_in_place_of_a_file_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "etc/resolv.conf").mkdir(parents=True)
    assert peers.resolvers(str(tmp_path)) == set()


def test_problems_are_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: str) -> set[bytes]:
        raise Unreadable(f"{root} is unreadable")

    monkeypatch.setattr(peers, "resolvers", fail)
    found = protect.compute([], True, NOTHING, str(tmp_path))
    assert found.problems == [f"{tmp_path} is unreadable"]
