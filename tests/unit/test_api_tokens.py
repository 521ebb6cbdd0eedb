# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens of the fleet's API: the command for root, and what the API makes of the files."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from packetwatch_api import __main__ as command
from packetwatch_api import tokens
from packetwatch_api.tokens import Token, Tokens
from packetwatch_core._base.errors import Unreadable


def run(folder: Path, *words: str) -> int:
    return command.main(["token", *words], str(folder))


def test_a_token_is_shown_once_and_valid_until_it_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Tokens(str(tmp_path))
    assert run(tmp_path, "add", "ann", "--role", "ban", "--for", "30d") == 0
    secret = capsys.readouterr().out.strip()
    assert re.fullmatch(r"pw_[A-Za-z0-9_-]{43}", secret)
    text = (tmp_path / "made.json").read_text()
    assert secret not in text and secret[3:] not in text
    assert (tmp_path / "made.json").stat().st_mode & 0o777 == 0o640
    found = known.find(secret)
    assert found and (found.name, found.role) == ("ann", "ban")
    assert found.expires == pytest.approx(time.time() + 30 * 86400, abs=5)
    assert run(tmp_path, "list") == 0
    assert capsys.readouterr().out.split()[:3] == ["ann", "ban", "valid"]
    assert run(tmp_path, "add", "bob", "--role", "read") == 0
    assert run(tmp_path, "revoke", "ann") == 0
    assert known.find(secret) is None
    assert known.find(capsys.readouterr().out.strip())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("add", "ann", "--role", "ban"), "there is a token ann"),
        (("add", "Ann", "--role", "ban"), "'Ann' cannot be the name of a token"),
        (("add", "bob", "--role", "ban", "--for", "never"), "--for is 'never'"),
        (("add", "siem", "--role", "ban"), "there is a token siem"),
        (("revoke", "bob"), "there is no token bob"),
        (("revoke", "siem"), "siem is of the inventory"),
    ],
)
def test_what_is_wrong_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    declared = [{"name": "siem", "role": "read", "digest": "0" * 64, "expires": None}]
    (tmp_path / "declared.json").write_text(json.dumps({"tokens": declared}))
    run(tmp_path, "add", "ann", "--role", "read")
    before = (tmp_path / "made.json").read_bytes()
    assert run(tmp_path, *words) == 2
    assert reason in capsys.readouterr().err
    assert (tmp_path / "made.json").read_bytes() == before


def test_a_token_of_the_inventory_may_end_at_a_time_in_words(tmp_path: Path) -> None:
    secrets = {end: tokens.new_secret() for end in ("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z")}
    rows = [
        {"name": "ann", "role": "ban", "digest": tokens.digest_of(secret), "expires": end}
        for end, secret in secrets.items()
    ]
    (tmp_path / "declared.json").write_text(json.dumps({"tokens": rows}))
    known = Tokens(str(tmp_path))
    assert [known.find(secret) is not None for secret in secrets.values()] == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"tokens": [{}]}',
        '{"tokens": [{"name": "ann", "role": "root", "digest": "' + "0" * 64 + '"}]}',
        '{"tokens": [{"name": "ann", "role": "read", "digest": "0", "expires": null}]}',
        '{"tokens": [{"name": "ann", "role": "read", "digest": "'
        + "0" * 64
        + '", "expires": "x"}]}',
    ],
)
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    (tmp_path / "made.json").write_text(text)
    with pytest.raises(Unreadable, match="remove the file"):
        Tokens(str(tmp_path)).find(tokens.new_secret())


@pytest.mark.parametrize("secret", ["", "pw_", "x" * 46, f"pw_{'A' * 42}", f"pw_{'A' * 43}\n"])
def test_what_has_not_the_form_of_a_token_is_not_looked_up(tmp_path: Path, secret: str) -> None:
    token = Token("ann", "admin", tokens.digest_of(secret))
    tokens.write(str(tmp_path / "made.json"), [token])
    assert Tokens(str(tmp_path)).find(secret) is None
