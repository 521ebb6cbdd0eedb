# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host's network stack says about clients and protocols, read from files of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetwatch_core._base.errors import Unreadable
from packetwatch_core._kernel import abi
from packetwatch_core._network.stack import read_stack

RANGE, FORWARDING4 = "sys/ipv4/ip_local_port_range", "sys/ipv4/ip_forward"
FORWARDING6 = "sys/ipv6/conf/all/forwarding"
RAW = "  sl  local_address rem_address   st\n"
ENDPOINTS = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"


def stack(folder: Path, **files: str) -> int:
    """Read a host without SCTP, raw sockets and forwarding, except for the files that are given."""
    for name, text in {
        RANGE: "32768\t60999\n",
        FORWARDING4: "0\n",
        FORWARDING6: "0\n",
        "net/raw": RAW,
        "net/raw6": RAW,
        **files,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_stack(str(folder / "sys"), str(folder / "net"))


def row(protocol: int) -> str:
    return f"  {protocol}: 00000000:{protocol:04X} 00000000:0000 07 00000000:00000000\n"


@pytest.mark.parametrize(
    ("ports", "first"),
    [("32768\t60999\n", 32768), ("10000\t20000\n", 10000), ("49152\t65535\n", 32768)],
)
def test_clients_have_the_ports_that_the_kernel_gives_out(
    tmp_path: Path, ports: str, first: int
) -> None:
    assert stack(tmp_path, **{RANGE: ports}) == first


@pytest.mark.parametrize("name", [FORWARDING4, FORWARDING6])
def test_a_host_that_forwards_may_translate_addresses(tmp_path: Path, name: str) -> None:
    assert stack(tmp_path, **{name: "1\n"}) == 1024


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        ({"net/raw": RAW + row(1) + row(255)}, 0),
        ({"net/raw6": RAW + row(58)}, 0),
        ({"net/raw": RAW + row(89) + row(200)}, abi.STACK_PROTOCOLS),
        ({"net/raw6": RAW + row(200)}, abi.STACK_PROTOCOLS),
        ({"net/raw": RAW + row(132)}, abi.STACK_SCTP),
        ({"net/sctp/eps": ENDPOINTS}, 0),
        ({"net/sctp/eps": ENDPOINTS + " 0 0 2 10 2 36412 0 7 0.0.0.0\n"}, abi.STACK_SCTP),
    ],
)
def test_protocols_that_somebody_uses(tmp_path: Path, files: dict[str, str], flags: int) -> None:
    assert stack(tmp_path, **files) == 32768 | flags


@pytest.mark.parametrize("files", [{RANGE: "many\n"}, {RANGE: ""}, {"net/raw": RAW + "odd\n"}])
def test_what_cannot_be_read_is_named(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(Unreadable, match=str(tmp_path)):
        stack(tmp_path, **files)


def test_a_host_without_ipv6_and_raw_sockets(tmp_path: Path) -> None:
    stack(tmp_path)
    for name in (FORWARDING6, "net/raw", "net/raw6"):
        (tmp_path / name).unlink()
    assert read_stack(str(tmp_path / "sys"), str(tmp_path / "net")) == 32768
    (tmp_path / RANGE).unlink()
    with pytest.raises(Unreadable, match="ip_local_port_range: No such file"):
        read_stack(str(tmp_path / "sys"), str(tmp_path / "net"))


def test_this_host_can_be_read() -> None:
    assert 0 < read_stack() & 0xFFFFFFFF <= 32768
