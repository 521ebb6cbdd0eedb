# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The XDP program's C source as one text, because bcc rewrites map accesses only in its main file."""

from __future__ import annotations

import os
import re

from .._base.errors import InvalidInput
from .._base.number import read_whole
from . import abi

BODY = "packetwatch.bpf.c"
PREFACE = "maps_bcc.h"

_FORMAT = re.compile(r"^#define PW_FORMAT (\d+)", re.MULTILINE)
_INCLUDE = re.compile(r'#include "([A-Za-z0-9_./-]+)"\s*')


def flatten(directory: str, body: str = BODY) -> str:
    """Return ``maps_bcc.h`` and ``body`` as one text, with every ``#include "..."`` replaced by its file.

    directory: where the files are; each is included once. A custom body must define
    ``int packetwatch(struct xdp_md *)`` and use the maps of ``maps_bcc.h``; it need not include other
    files of Packetwatch. Raises InvalidInput if a file cannot be read.
    """
    seen: set[str] = set()
    parts: list[str] = []
    for name in (PREFACE, body):
        _append(directory, name, seen, parts)
    return "".join(parts)


def flatten_alone(path: str) -> str:
    """Return a C file as one text, without anything of Packetwatch: its quoted headers are beside it."""
    parts: list[str] = []
    _append(*os.path.split(path), set(), parts)
    return "".join(parts)


def reads_ours(source: str) -> bool:
    """Return whether a program reads tables of the format that this library writes.

    A custom program with its own headers should define `PW_FORMAT`. If it does not, its author must keep
    it up to date.
    """
    found = _FORMAT.search(source)
    return (
        read_whole(found.group(1), abi.FORMAT) == abi.FORMAT
        if found
        else "#define PW_ABI " not in source
    )


def check_format(source: str) -> None:
    """Raise InvalidInput if a program reads tables of another format."""
    if not reads_ours(source):
        raise InvalidInput(
            f"the program reads tables of another version (its PW_FORMAT is not {abi.FORMAT}): attach the "
            "program of this version; run the role, or the module packetwatch.xdp.program with src"
        )


def read_source(path: str) -> str:
    """Return the text of a C file; raises InvalidInput if it cannot be read."""
    return "".join(_read(path))


def _append(directory: str, name: str, seen: set[str], parts: list[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    for line in _read(os.path.join(directory, name)):
        match = _INCLUDE.fullmatch(line)
        if match:
            _append(directory, match.group(1), seen, parts)
        else:
            parts.append(line)


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the C source {path}: {error}") from error
