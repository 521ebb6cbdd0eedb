# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Places in a dispatcher, as text and as options; the types that the kernel gets of our program."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.store import check_mode
from packetwatch_core._dispatcher.extension import types_of
from packetwatch_core._dispatcher.member import Member
from packetwatch_core._dispatcher.membership import explain_frags
from packetwatch_core._dispatcher.place import (
    Place,
    actions_of,
    is_dispatcher,
    mode_from_options,
    read_place,
)


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "auto"),
        ({"mode": None}, "auto"),
        ({"mode": "native"}, "native"),
        ({"mode": "dispatcher"}, "dispatcher:10:pass"),
        ({"mode": "dispatcher", "priority": 0}, "dispatcher:0:pass"),
        ({"mode": "dispatcher", "priority": "70"}, "dispatcher:70:pass"),
        ({"mode": "dispatcher", "chain_call_actions": []}, "dispatcher:10:none"),
        ({"mode": "dispatcher", "chain_call_actions": ["tx", "pass"]}, "dispatcher:10:pass,tx"),
    ],
)
def test_options_become_one_text(options: dict[str, Any], mode: str) -> None:
    assert mode_from_options(options) == mode
    check_mode(mode)
    if is_dispatcher(mode):
        assert read_place(mode).mode() == mode


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 5}, "priority is 5, but mode is auto: set it only with mode dispatcher"),
        ({"mode": "native", "chain_call_actions": []}, "chain_call_actions is .*mode is native"),
        ({"mode": "dispatcher", "priority": -1}, "priority is -1: write a whole number from 0"),
        ({"mode": "dispatcher", "priority": True}, "priority is True"),
        ({"mode": "dispatcher", "priority": 2**31}, "priority is 2147483648"),
        ({"mode": "dispatcher", "chain_call_actions": "pass"}, "'pass': write a list"),
        ({"mode": "dispatcher", "chain_call_actions": ["drop"]}, "set action to monitor"),
        ({"mode": "dispatcher", "chain_call_actions": ["accept"]}, "'accept': choose from abor"),
    ],
)
def test_a_wrong_place_is_refused_with_its_remedy(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        mode_from_options(options)


@pytest.mark.parametrize(
    "mode", ["dispatcher:5", "dispatcher:x:pass", "dispatcher:5:drop", "joined"]
)
def test_a_wrong_text_is_refused(mode: str) -> None:
    with pytest.raises(InvalidInput, match=r"mode is|priority is|chain_call_actions contains"):
        check_mode(mode)


def test_the_word_alone_is_the_default_place() -> None:
    assert read_place("dispatcher") == Place()


@pytest.mark.parametrize("actions", [(), ("pass",), ("aborted", "tx", "redirect")])
def test_actions_are_bits_as_libxdp_has_them(actions: tuple[str, ...]) -> None:
    place = Place(1, actions)
    assert actions_of(place.bits) == actions
    assert Place(1, ("pass",)).bits == 1 << 2  # XDP_PASS


def test_only_members_without_support_are_named_for_a_large_mtu() -> None:
    able, unable = (
        Member(number, name, "00" * 8, 0, 10, 4, has_frags)
        for number, name, has_frags in ((7, "packetwatch", True), (8, "xdpfilt_alw_ip", False))
    )
    assert explain_frags([able]) == ""
    said = explain_frags([able, unable])
    assert "xdpfilt_alw_ip (id 8) does not: remove it, or lower the MTU" in said
    assert "packetwatch" not in said


def test_types_name_the_function_and_the_context() -> None:
    types = types_of("some_filter")
    magic, version, flags, head, at, size, names_at, names_size = struct.unpack_from(
        "=HBBIIIII", types
    )
    assert (magic, version, flags, head, at) == (0xEB9F, 1, 0, 24, 0)
    assert len(types) == head + names_at + names_size
    assert size == names_at
    names = types[head + names_at :].split(b"\0")
    assert {b"xdp_md", b"ctx", b"some_filter"} <= set(names)
