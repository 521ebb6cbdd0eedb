# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Names of network interfaces: as text, as part of a file or of a unit's name, and which are supported.

For the kernel a name is bytes (`dev_valid_name` in net/core/dev.c). Everywhere else it is the text that
`text_of` returns: the name itself if it is supported. No name in the kernel has a percent sign, so the text
of a name that is not supported is never that of another name.
"""

from __future__ import annotations

import os
import re
import typing as t

from .errors import InvalidInput

MAX_BYTES = 15

# The kernel's white space includes the byte A0, which is part of letters such as à in UTF-8.
_REFUSED = re.compile(rb"[/:%\s\xa0\0]")
# udev and systemd lose these on the way from a device to its unit.
_QUOTES = "\"'\\"
_PLAIN = re.compile(rb"[a-zA-Z0-9:_.]")
_ESCAPED = re.compile("(?:%[0-9a-f]{2})+")


def check_name(name: str) -> None:
    """Raise InvalidInput unless the kernel accepts the name and Packetwatch supports it."""
    written = unescape(name)
    is_known = _is_legal(written) and (written == name or not _is_supported(written))
    if not is_known:
        raise InvalidInput(
            f"{name!r} is not an interface name; allowed: 1 to {MAX_BYTES} bytes without white space, "
            "/, : and %"
        )
    if not _is_supported(written):
        raise InvalidInput(
            f"an interface named {name!r} cannot be filtered; allowed: printable characters in UTF-8, "
            "except quotes and backslashes: rename the device (ip link set dev NAME name NEW)"
        )


def text_of(name: bytes) -> str:
    """The text of a name; bytes of characters that are not supported are escaped, as in ``%ff``."""
    text = name.decode("utf-8", "surrogateescape")
    return text if _is_supported(text) else escape(text, lambda letter: not _is_supported(letter))


def text_from_system(name: str) -> str:
    """The text of a name as Python reads it from the command line or the kernel."""
    return text_of(os.fsencode(name))


def escape(text: str, is_special: t.Callable[[str], bool]) -> str:
    """Write percent signs and special characters as ``%XX``, byte by byte."""
    return "".join(
        "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
        if letter == "%" or is_special(letter)
        else letter
        for letter in text
    )


def unescape(text: str) -> str:
    """Read what `escape` has written."""
    return _ESCAPED.sub(
        lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogateescape"),
        text,
    )


def instance_of(name: str) -> str:
    """The name in a unit's name, escaped as systemd-escape does it."""
    return "".join(
        f"\\x{byte:02x}"
        if not _PLAIN.match(bytes([byte])) or (byte == ord(".") and at == 0)
        else chr(byte)
        for at, byte in enumerate(name.encode("utf-8", "surrogateescape"))
    )


def attach_command(name: str) -> str:
    """The command with which an operator attaches the filter to an interface again."""
    unit = f"packetwatch-xdp@{instance_of(name)}"
    return "systemctl restart " + (f"'{unit}'" if "\\" in unit else unit)


def _is_legal(name: str) -> bool:
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    is_short = 1 <= len(data) <= MAX_BYTES
    return is_short and name not in (".", "..") and not _REFUSED.search(data)


def _is_supported(text: str) -> bool:
    return text.isprintable() and not any(letter in _QUOTES for letter in text)
