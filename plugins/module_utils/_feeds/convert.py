# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Conversion of a published feed to a list of ours, in a file that its digest names."""

from __future__ import annotations

import os
import re
import typing as t

from .._base.errors import InvalidInput, PacketwatchError, Unavailable
from .._base.files import replace_file
from .._declared.store import FEED, check_name
from .parse import Format, read_feed
from .published import obtain

if t.TYPE_CHECKING:
    from .._base.types import Result
    from .parse import Copy
    from .published import OpenUrl, Options

_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)


def convert(params: Options, open_url: OpenUrl, check: bool) -> Result:
    """Fetch, check and read a feed, and write the list; check: write nothing.

    params: options of the module.
    """
    _check_options(params)
    copy = _copy(params, open_url)
    path = os.path.join(params["dest"], f"{copy.digest}.list")
    changed = not os.path.exists(path)
    if changed and not check:
        _write(path, copy.text)
    return {
        "changed": changed,
        "name": params["name"],
        "list": params["list"],
        "path": path,
        "digest": copy.digest,
        "entries": copy.entries,
        "left_out": copy.left_out._asdict(),
    }


def _check_options(params: Options) -> None:
    """Refuse options that are wrong for any feed."""
    check_name(FEED + params["name"])
    url, checksum = params["url"], params["checksum"]
    if url is not None and not url.startswith(("https://", "http://")):
        raise InvalidInput(f"url is {url!r}: write https://... or http://..., or use path")
    if checksum is not None and not _CHECKSUM.fullmatch(checksum):
        raise InvalidInput(f"checksum is {checksum!r}: write sha256: and 64 hexadecimal digits")
    if params["column"] == "0":
        raise InvalidInput("column is 0: columns count from 1")
    if len(params["delimiter"]) != 1 or params["delimiter"] in '\n\r"':
        raise InvalidInput(f"delimiter is {params['delimiter']!r}: write one character")
    for option in ("timeout", "max_bytes", "max_age"):
        if params[option] is not None and params[option] <= 0:
            raise InvalidInput(f"{option} is {params[option]:g}: write a number above 0")


def _copy(params: Options, open_url: OpenUrl) -> Copy:
    found = obtain(params, open_url)
    kind = Format(params["format"], params["column"], params["delimiter"])
    try:
        return read_feed(found.data, kind, params["name"], params["bogons"])
    except InvalidInput as error:
        raise Unavailable(str(error)) from error


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        replace_file(path, text, 0o644)
    except OSError as error:
        raise PacketwatchError(f"cannot write {path}: {error.strerror}") from error
