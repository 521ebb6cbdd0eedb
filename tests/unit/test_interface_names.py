# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every name that Linux allows for an interface is read back exactly where it is written, or refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetwatch_agent.metrics import GAUGE, render
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.interface import check_name, instance_of, text_of, unescape
from packetwatch_core._declared.edits import set_interfaces, set_policies
from packetwatch_core._declared.store import State, Store, check_interface
from packetwatch_core._kernel.pins import Pins, label_of
from packetwatch_core._preflight.interfaces import read_interfaces

# dev_valid_name in net/core/dev.c; the kernel's white space includes A0. Names with % are patterns for it.
FORBIDDEN = {0, *b"\t\n\v\f\r /:%", 0xA0}
LEGAL = st.one_of(
    st.binary(min_size=1, max_size=15),
    st.text(min_size=1, max_size=15).map(lambda text: text.encode(errors="replace")),
    st.text("#-.$~*?[]{}()<>|&;=,!+@^`é日aA0", min_size=1, max_size=15).map(str.encode),
).filter(lambda name: len(name) < 16 and name not in (b".", b"..") and not FORBIDDEN & set(name))


def is_supported(name: bytes) -> bool:
    try:
        check_interface(text_of(name))
    except InvalidInput:
        return False
    return True


SUPPORTED = LEGAL.filter(is_supported)


@pytest.mark.slow
@given(LEGAL)
@settings(max_examples=1000, deadline=None)
def test_each_legal_name_has_one_text(name: bytes) -> None:
    text = text_of(name)
    assert unescape(text).encode("utf-8", "surrogateescape") == name
    # It can be shown, logged and sent anywhere.
    assert text.isprintable() and text.encode()
    if is_supported(name):
        assert text.encode() == name
    else:
        assert "%" in text or text == "default"


@pytest.mark.slow
@given(st.lists(SUPPORTED, min_size=1, max_size=4, unique=True))
@settings(deadline=None)
def test_state_files_hold_names_exactly(
    tmp_path_factory: pytest.TempPathFactory, names: list[bytes]
) -> None:
    store = Store(str(tmp_path_factory.mktemp("etc")))
    texts = [text_of(name) for name in names]
    state = State(
        interfaces=dict.fromkeys(texts, "generic"),
        policy={text: {"PW_SCAN_PORTS": "9"} for text in texts},
    )
    with store.lock(0):
        store.declare(state)
    assert store.read_current() == (1, state)


@pytest.mark.slow
@given(SUPPORTED)
@settings(max_examples=1000, deadline=None)
def test_labels_units_and_formats_hold_names_exactly(name: bytes) -> None:
    text, pins = text_of(name), Pins("/nowhere")
    for number in (0, 1, 23):
        pin = pins.link(text, number)
        assert label_of(pin) == text
        assert "." not in os.path.basename(pin) and os.path.dirname(pin) == pins.links
    assert pins.link(text) != pins.link(text, 1)
    # What systemd makes of the instance in %I. Letters in it need no quotes.
    instance = instance_of(text)
    assert re.fullmatch(r"[a-zA-Z0-9:_.\\]+", instance)
    assert (
        re.sub(
            rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), instance.encode()
        )
        == name
    )
    assert json.loads(json.dumps({text: 1})) == {text: 1}
    rows = {"m": (GAUGE, "help")}
    assert f'm{{interface="{text}"}} 1\n' in render(rows, {"m": [({"interface": text}, 1)]})


@given(LEGAL, LEGAL)
def test_two_names_never_get_one_pin(one: bytes, other: bytes) -> None:
    pins = Pins("/nowhere")
    paths = {pins.link(text_of(name), number) for name in (one, other) for number in (0, 1)}
    assert len(paths) == 2 * len({one, other})


@pytest.mark.parametrize(
    "name", ["pw#1", "#pw", "-x", "$x", "${A}", "é", "a.b", ".a", "a~", "日本"]
)
def test_supported(name: str) -> None:
    check_interface(name)
    problems: list[str] = []
    assert read_interfaces([name], problems) == {0: {"name": name}} and not problems


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("é" * 8, "is not an interface name; allowed: 1 to 15 bytes"),
        ("à", "is not an interface name; allowed: 1 to 15 bytes"),
        ("a%b", "is not an interface name; allowed: 1 to 15 bytes"),
        ("a\u2028b", "cannot be filtered; allowed: printable characters"),
        ("\x1b[0m", "cannot be filtered; allowed: printable characters"),
        ("a\x85b", "cannot be filtered; allowed: printable characters"),
        ("pw\udcff", "cannot be filtered; allowed: printable characters"),
        ("\u202epw", "cannot be filtered; allowed: printable characters"),
        ('a"b', "cannot be filtered; allowed: printable characters"),
        ("a\\b", "cannot be filtered; allowed: printable characters"),
    ],
)
def test_refused(tmp_path: Path, name: str, why: str) -> None:
    for check in (check_name, check_interface):
        with pytest.raises(InvalidInput, match=re.escape(why)) as caught:
            check(name)
        assert str(caught.value).encode()
    problems: list[str] = []
    assert read_interfaces([{"name": name}], problems) == {}
    assert why in problems[0]
    with pytest.raises(InvalidInput):
        set_policies({name: {}}, False)
    store = Store(str(tmp_path))
    with store.lock(0), pytest.raises(InvalidInput):
        store.declare(set_interfaces({name: "auto"})(State()))
    assert store.numbers() == []


def test_a_hand_edit_with_a_comment_sign_in_a_name_is_explained(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with store.lock(0):
        store.declare(State(interfaces={"#pw": "auto", "pw#1": "native"}))
    path = tmp_path / "1/interfaces"
    assert path.read_text() == "%23pw auto\npw%231 native\n"
    path.write_text("pw#1 native # ours\n")
    with pytest.raises(InvalidInput, match="and # in a name as %23"):
        store.read_current()
    path.write_text("# ours\npw%231 native # ours\n%c3%a9 auto\n")
    assert store.read_current()[1].interfaces == {"pw#1": "native", "é": "auto"}
