# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Settings of a host in ``/etc/default/packetwatch``.

If the role has declared them, that file is a link to the settings of confirmed state. So they are confirmed,
reverted and rolled back together with everything else.
"""

from __future__ import annotations

import os
import re
import shlex
import typing as t

from .._base.errors import InvalidInput, Unreadable
from .._base.files import open_regular
from .._base.number import read_whole
from .protect import parse_declared, parse_shared

if t.TYPE_CHECKING:
    from .._base.address import Prefix

LIST_MEMORY = 64
MAX_LIST_MEMORY = 65536
MAX_PROTECTED = 4096
# Each may take two of the 4096 entries of the map "nets".
MAX_SHARED = 1024
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN = 80
_SWITCH = {"1": True, "0": False}

_T = t.TypeVar("_T")


class HostSettings(t.NamedTuple):
    """Settings of root's one-shots.

    list_memory: maximum size of a generation, in MiB. protect: declared protected sources.
    protect_auto: whether the host's own addresses, gateways, resolvers and so on are protected too.
    shared: declared IPv6 prefixes whose sources are banned singly.
    texts: the values in force, by key. problems: what is wrong with values that are not in force, by key;
    key "": the file cannot be read.
    """

    list_memory: int
    protect: list[Prefix]
    protect_auto: bool
    shared: list[Prefix]
    texts: dict[str, str]
    problems: dict[str, str]


def read_settings(
    path: str, last: t.Mapping[str, str] | None = None, text: str | None = None
) -> HostSettings:
    """The settings in a file of ``KEY=value`` lines, which may be missing.

    No wrong value is an error, because a host must filter whatever the file says: the last good value is
    in force instead, or the default. last: the values that were in force before, by key. text: instead of
    the file's.
    """
    try:
        values, wrong = read_values(path) if text is None else parse_values(text, path)
    except Unreadable as error:
        values, wrong = {}, {"": str(error)}
    reader = _Reader(path, values, last or {}, wrong)
    return HostSettings(
        list_memory=reader.value("PW_LIST_MEMORY", str(LIST_MEMORY), parse_list_memory),
        protect=reader.value("PW_PROTECT", "", parse_declared),
        protect_auto=reader.value("PW_PROTECT_AUTO", "1", parse_switch),
        shared=reader.value("PW_SHARED_PREFIXES", "", parse_shared),
        texts=reader.texts,
        problems=wrong,
    )


def unknown_protection(problems: t.Mapping[str, str]) -> list[str]:
    """Those problems because of which nobody knows all addresses that should be protected or shared."""
    keys = ("", "PW_PROTECT", "PW_PROTECT_AUTO", "PW_SHARED_PREFIXES")
    return [problems[key] for key in keys if key in problems]


class _Reader:
    """Parses values one by one. texts: those in force. wrong: what is wrong with a key's value."""

    def __init__(
        self,
        path: str,
        values: t.Mapping[str, str],
        last: t.Mapping[str, str],
        wrong: dict[str, str],
    ) -> None:
        self.texts: dict[str, str] = {}
        self._path = path
        self._values = values
        self._last = last
        self._wrong = wrong

    def value(self, key: str, default: str, parse: t.Callable[[str, str], _T]) -> _T:
        """The value of a key, else the last good one, else the default; a missing key has the default."""
        text = self._values.get(key, default)
        try:
            value = parse(text, f"{self._path}: {key}")
        except InvalidInput as error:
            self._wrong[key] = str(error)
        if key in self._wrong or (key not in self._values and "" in self._wrong):
            text = self._last.get(key, default)
            value = parse(text, key)
        self.texts[key] = text
        return value


def parse_switch(text: str, name: str) -> bool:
    """Parse a switch. name: the setting, for the error."""
    try:
        return _SWITCH[text]
    except KeyError:
        raise InvalidInput(f"{name} is {text!r}: write 1 or 0") from None


def parse_list_memory(text: str, name: str) -> int:
    """Parse the maximum size of a generation, in MiB. name: the setting, for the error."""
    value = read_whole(text, MAX_LIST_MEMORY)
    if not value:
        raise InvalidInput(
            f"{name} is {text!r}: write MiB, from 1 to {MAX_LIST_MEMORY}, as a whole number"
        )
    return value


def read_values(path: str) -> tuple[dict[str, str], dict[str, str]]:
    """All ``KEY=value`` lines of the file, unquoted, and what is wrong with other keys' lines; key "" for
    lines without one.

    Raises `Unreadable`.
    """
    try:
        with open(open_regular(path), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        if os.path.islink(path):
            raise Unreadable(f"{path} is a link to nothing: run the role again") from None
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(
            f"cannot read {path}: {error}; it must be UTF-8 text that root can read"
        ) from error
    return parse_values(text, path)


def parse_values(text: str, path: str) -> tuple[dict[str, str], dict[str, str]]:
    """As `read_values`, from a text. path: of its file, for errors."""
    values, wrong = {}, {}
    for number, line in enumerate(text.splitlines(), 1):
        key, separator, value = line.strip().partition("=")
        if not key or key.startswith(("#", ";")):
            continue
        if not _KEY.fullmatch(key) or not separator:
            shown = line[:_SHOWN]
            wrong[""] = (
                f"{path}:{number}: {shown!r} is not of the form KEY=value: correct or remove it"
            )
            continue
        try:
            values[key] = " ".join(shlex.split(value))
        except ValueError as error:
            wrong[key] = f"{path}: {key} is {value!r}: {error}; correct its quotes and backslashes"
    return values, wrong


def format_values(values: t.Mapping[str, str]) -> str:
    """The text of a file that systemd and `read_values` read as these values."""
    lines = []
    for key, value in values.items():
        if "\n" in value:
            raise InvalidInput(f"{key} is {value!r}: write it without line breaks")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{key}="{quoted}"\n')
    return "".join(lines)
