# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput, Unreadable
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


@pytest.mark.parametrize("text", ["", "# PW_LIST_MEMORY=1\n", "OTHER=1\n\n", "PW_PROTECT=\n"])
def test_everything_has_a_default(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == HostSettings(LIST_MEMORY, [], True)


def test_missing_file_is_as_good_as_an_empty_one(tmp_path: Path) -> None:
    assert read_settings(str(tmp_path / "none")) == HostSettings(LIST_MEMORY, [], True)


@pytest.mark.parametrize("value", ["{} {}", '"{} {}"', "'{},{}'", '{}," {}"', " {}\t{} "])
def test_quotes_are_as_in_a_unit(tmp_path: Path, value: str) -> None:
    names = ("192.0.2.1", "2001:db8::/32")
    found = read(tmp_path, f"PW_PROTECT={value.format(*names)}\nPW_LIST_MEMORY='128'\n")
    assert found == HostSettings(128, [parse_prefix(name) for name in names], True)


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
    with pytest.raises(InvalidInput, match=f"{tmp_path}/packetwatch: {message}"):
        read(tmp_path, f"{line}\n")


def test_unreadable_file_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=str(tmp_path)):
        read_settings(str(tmp_path))


@pytest.mark.parametrize(
    "value", ["", "192.0.2.1,2001:db8::1", "a b", 'say "hi"', "\\", "$HOME", "'"]
)
def test_written_values_are_read_as_they_are(value: str) -> None:
    text = format_values({"PW_ONE": value, "PW_TWO": "2"})
    assert parse_values(f"# head\n{text}", "a file") == {"PW_ONE": value, "PW_TWO": "2"}


def test_a_value_with_a_line_break_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"PW_ONE is 'a.nb': write it without line breaks"):
        format_values({"PW_ONE": "a\nb"})
