# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Settings of a host in ``/etc/default/packetwatch``.

If the role has declared them, that file is a link to the settings of confirmed state. So they are confirmed,
reverted and rolled back together with everything else.
"""

from __future__ import annotations

import shlex
import typing as t

from .._base.errors import InvalidInput, Unreadable
from .protect import parse_declared

if t.TYPE_CHECKING:
    from .._base.address import Prefix

LIST_MEMORY = 64
MAX_LIST_MEMORY = 65536
MAX_PROTECTED = 4096


class HostSettings(t.NamedTuple):
    """Settings of root's one-shots.

    list_memory: maximum size of a generation, in MiB. protect: declared protected sources.
    protect_auto: whether the host's own addresses, gateways, resolvers and so on are protected too.
    """

    list_memory: int
    protect: list[Prefix]
    protect_auto: bool


def read_settings(path: str, text: str | None = None) -> HostSettings:
    """The settings in a file of ``KEY=value`` lines, which may be missing. text: instead of the file's."""
    values = read_values(path) if text is None else parse_values(text, path)
    memory = values.get("PW_LIST_MEMORY", str(LIST_MEMORY))
    list_memory = parse_list_memory(memory, f"{path}: PW_LIST_MEMORY")
    auto = values.get("PW_PROTECT_AUTO", "1")
    if auto not in ("0", "1"):
        raise InvalidInput(f"{path}: PW_PROTECT_AUTO is {auto!r}: write 1 or 0")
    protect = parse_declared(values.get("PW_PROTECT", ""), f"{path}: PW_PROTECT")
    return HostSettings(list_memory, protect, auto == "1")


def parse_list_memory(text: str, name: str) -> int:
    """Parse the maximum size of a generation, in MiB. name: the setting, for the error."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_LIST_MEMORY:
        raise InvalidInput(f"{name} is {text!r}: write MiB, from 1 to {MAX_LIST_MEMORY}")
    return int(text)


def read_values(path: str) -> dict[str, str]:
    """All ``KEY=value`` lines of the file, unquoted; empty if it is missing."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(
            f"cannot read {path}: {error}; it must be UTF-8 text that root can read"
        ) from error
    return parse_values(text, path)


def parse_values(text: str, path: str) -> dict[str, str]:
    """All ``KEY=value`` lines of a text, unquoted. path: of its file, for errors."""
    values = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            try:
                values[key] = " ".join(shlex.split(value))
            except ValueError as error:
                raise InvalidInput(
                    f"{path}: {key} is {value!r}: {error}; correct its quotes and backslashes"
                ) from None
    return values


def format_values(values: t.Mapping[str, str]) -> str:
    """The text of a file that systemd and `read_values` read as these values."""
    lines = []
    for key, value in values.items():
        if "\n" in value:
            raise InvalidInput(f"{key} is {value!r}: write it without line breaks")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{key}="{quoted}"\n')
    return "".join(lines)
