# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens: who may do what, until when. Files have only their digests.

A token has 256 random bits, so its digest needs neither salt nor a costly hash, and finding it in a table needs no
comparison in constant time. The role writes the tokens of the inventory to one file, ``packetwatch-api token`` its own
to another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import secrets
import threading
import time
import typing as t

from packetwatch_core._base.errors import InvalidInput, Unreadable
from packetwatch_core._base.files import parse_json, replace_file
from packetwatch_core._base.number import MAX_TIME, is_number
from packetwatch_core._declared.entries import expires_at
from packetwatch_core._network.endpoints import is_label

ROLES = ("read", "ban", "lists", "admin")
DECLARED, MADE = "declared.json", "made.json"
_FORM = re.compile(r"pw_[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_READABLE = 0o640


@dataclasses.dataclass(frozen=True)
class Token:
    """expires: Unix seconds; None: never."""

    name: str
    role: str
    digest: str
    expires: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.expires is None or self.expires > now


def new_secret() -> str:
    return f"pw_{secrets.token_urlsafe(32)}"


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def read(path: str) -> list[Token]:
    """The tokens of a file; none if there is no file. Raises `Unreadable`."""
    try:
        with open(path, encoding="utf-8") as file:
            found = parse_json(file.read())
        rows = found["tokens"]
        return [_token(row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, InvalidInput, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path}: {error}: remove the file, and make its tokens again") from None


def write(path: str, tokens: t.Iterable[Token]) -> None:
    """Replace the tokens of a file, for root to write and the API to read."""
    rows = [dataclasses.asdict(token) for token in tokens]
    folder = os.stat(os.path.dirname(path))
    replace_file(path, json.dumps({"tokens": rows}, indent=1) + "\n", _READABLE)
    os.chown(path, -1, folder.st_gid)


def checked(name: str, role: str) -> None:
    """Raise `InvalidInput` unless a token can have this name and role."""
    if not is_label(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a token: use up to 64 of the characters a-z, 0-9, '.', '_' and '-', with a "
            "letter or a digit at both ends"
        )
    if role not in ROLES:
        raise InvalidInput(f"{role!r} is not a role: choose from {', '.join(ROLES)}")


def _token(row: t.Mapping[str, t.Any]) -> Token:
    expires = row.get("expires")
    # The inventory has it as a text.
    end = expires_at(expires) if isinstance(expires, str) else expires
    found = Token(row["name"], row["role"], row["digest"], end)
    is_good = is_label(found.name) and found.role in ROLES and _DIGEST.fullmatch(found.digest)
    if not is_good or not (found.expires is None or is_number(found.expires, MAX_TIME)):
        raise ValueError(f"the token {found.name!r} is damaged")
    return found


class Tokens:
    """All tokens of a folder, read again as soon as one of its files has changed."""

    def __init__(self, folder: str) -> None:
        self._paths = [os.path.join(folder, name) for name in (DECLARED, MADE)]
        self._lock = threading.Lock()
        self._seen: list[tuple[int, ...] | None] | None = None
        self._found: dict[str, Token] = {}

    def find(self, secret: str) -> Token | None:
        """The token of a secret, if it is valid now. Raises `Unreadable`."""
        if not _FORM.fullmatch(secret):
            return None
        with self._lock:
            seen = [_identity(path) for path in self._paths]
            if seen != self._seen:
                self._found = {one.digest: one for path in self._paths for one in read(path)}
                self._seen = seen
            found = self._found.get(digest_of(secret))
        return found if found and found.is_valid(time.time()) else None


def _identity(path: str) -> tuple[int, ...] | None:
    """What differs once a file was replaced."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
