# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packetwatch_core._base.address import Prefix, parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.settings import (
    LIST_MEMORY,
    HostSettings,
    format_values,
    parse_values,
    read_settings,
)


def read(folder: Path, text: str) -> HostSettings:
    path = folder / "packetwatch"
    path.write_text(text)
    return read_settings(str(path))


def in_force(found: HostSettings) -> tuple[int, list[Prefix], bool]:
    return found.list_memory, found.protect, found.protect_auto


@pytest.mark.parametrize("text", ["", "# PW_LIST_MEMORY=1\n", "OTHER=1\n\n", "PW_PROTECT=\n"])
def test_everything_has_a_default(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert in_force(found) == (LIST_MEMORY, [], True)
    assert not found.problems


def test_missing_file_is_as_good_as_an_empty_one(tmp_path: Path) -> None:
    found = read_settings(str(tmp_path / "none"), {"PW_PROTECT_AUTO": "0"})
    assert in_force(found) == (LIST_MEMORY, [], True)
    assert not found.problems


@pytest.mark.parametrize("value", ["{} {}", '"{} {}"', "'{},{}'", '{}," {}"', " {}\t{} "])
def test_quotes_are_as_in_a_unit(tmp_path: Path, value: str) -> None:
    names = ("192.0.2.1", "2001:db8::/32")
    found = read(tmp_path, f"PW_PROTECT={value.format(*names)}\nPW_LIST_MEMORY='128'\n")
    assert in_force(found) == (128, [parse_prefix(name) for name in names], True)


def test_last_line_of_a_key_holds(tmp_path: Path) -> None:
    assert not read(tmp_path, "PW_PROTECT_AUTO=1\n  PW_PROTECT_AUTO=0\n").protect_auto


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PW_LIST_MEMORY=0", "PW_LIST_MEMORY is '0': write MiB, from 1 to 65536"),
        ("PW_LIST_MEMORY=65537", "PW_LIST_MEMORY is '65537'"),
        ("PW_LIST_MEMORY=64M", "PW_LIST_MEMORY is '64M'"),
        ("PW_LIST_MEMORY=\u0662", "PW_LIST_MEMORY is '\u0662'"),
        ("PW_PROTECT_AUTO=yes", "PW_PROTECT_AUTO is 'yes': write 1 or 0"),
        ("PW_PROTECT=192.0.2.1/24", "PW_PROTECT: .*192.0.2.1/24"),
        ('PW_PROTECT="192.0.2.1', "PW_PROTECT is .*: No closing quotation"),
    ],
)
def test_wrong_value_is_named_with_its_file(tmp_path: Path, line: str, message: str) -> None:
    found = read(tmp_path, f"{line}\n")
    assert re.match(f"{tmp_path}/packetwatch: {message}", "; ".join(found.problems.values()))
    assert in_force(found) == (LIST_MEMORY, [], True)


LAST = {"PW_LIST_MEMORY": "96", "PW_PROTECT": "192.0.2.1", "PW_PROTECT_AUTO": "0"}
LAST_IN_FORCE = (96, [parse_prefix("192.0.2.1")], False)


def test_the_last_good_value_is_in_force_instead_of_a_wrong_one(tmp_path: Path) -> None:
    path = tmp_path / "packetwatch"
    path.write_text('PW_LIST_MEMORY=big\nPW_PROTECT="1,9,2\nPW_PROTECT_AUTO=1\n')
    found = read_settings(str(path), LAST)
    assert in_force(found) == (*LAST_IN_FORCE[:2], True)
    assert len(found.problems) == 2
    assert found.texts == LAST | {"PW_PROTECT_AUTO": "1", "PW_SHARED_PREFIXES": ""}


def test_the_last_values_are_in_force_if_the_file_cannot_be_read(tmp_path: Path) -> None:
    found = read_settings(str(tmp_path), LAST)
    assert in_force(found) == LAST_IN_FORCE
    assert str(tmp_path) in "; ".join(found.problems.values())


@pytest.mark.parametrize(
    "value", ["", "192.0.2.1,2001:db8::1", "a b", 'say "hi"', "\\", "$HOME", "'"]
)
def test_written_values_are_read_as_they_are(value: str) -> None:
    text = format_values({"PW_ONE": value, "PW_TWO": "2"})
    assert parse_values(f"# head\n{text}", "a file") == (
        {"PW_ONE": value, "PW_TWO": "2"},
        {},
    )


def test_a_value_with_a_line_break_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"PW_ONE is 'a.nb': write it without line breaks"):
        format_values({"PW_ONE": "a\nb"})
