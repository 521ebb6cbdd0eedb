# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Conversion of a published feed to a list of ours, in a file that its digest names."""

from __future__ import annotations

import os
import re
import typing as t

from .._base.address import BITS
from .._base.errors import InvalidInput, PacketwatchError, Unavailable
from .._base.files import replace_file
from .._declared.store import FEED, check_name
from .parse import JSON, Format, Rules, read_feed
from .presets import DEFAULTS, fill_in
from .published import check_age, obtain
from .records import parse_paths
from .width import BOUNDS, FAMILIES, Bounds

if t.TYPE_CHECKING:
    from .._base.types import Result
    from .parse import Copy
    from .published import OpenUrl, Options, Published

_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)


def convert(given: Options, open_url: OpenUrl, check: bool) -> Result:
    """Fetch, check and read a feed, and write the list; check: write nothing.

    given: options of the module; None is an option that is not set.
    """
    params = read_options(given)
    found = obtain(params, open_url)
    copy = _copy(params, found)
    published = found.modified if copy.published is None else copy.published
    check_age(published, params["max_age"], params["name"])
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
        "bad": copy.bad._asdict(),
        "published": published,
        "fetched": found.fetched,
    }


def read_options(given: Options) -> Options:
    """All options of a feed; raises InvalidInput for those that are wrong for any feed."""
    params = fill_in(given)
    check_name(FEED + params["name"])
    url, checksum, column = params["url"], params["checksum"], params["column"]
    if url is None and params["path"] is None:
        raise InvalidInput(f"the preset {params['preset']} has no address: add url or path")
    if url is not None and not url.startswith(("https://", "http://")):
        raise InvalidInput(f"url is {url!r}: write https://... or http://..., or use path")
    if checksum is not None and not _CHECKSUM.fullmatch(checksum):
        raise InvalidInput(f"checksum is {checksum!r}: write sha256: and 64 hexadecimal digits")
    if column == "0":
        raise InvalidInput("column is 0: columns count from 1")
    if params["format"] == JSON:
        if column == DEFAULTS["column"]:
            raise InvalidInput("column is not set: for json, write the path of the addresses")
        parse_paths(column)
    if len(params["delimiter"]) != 1 or params["delimiter"] in '\n\r"':
        raise InvalidInput(f"delimiter is {params['delimiter']!r}: write one character")
    for option in ("timeout", "max_bytes", "max_age"):
        if params[option] is not None and params[option] <= 0:
            raise InvalidInput(f"{option} is {params[option]:g}: write a number above 0")
    for option in ("interval", "max_bad"):
        if params[option] < 0:
            raise InvalidInput(f"{option} is {params[option]:g}: write 0 or more")
    _bounds(params)
    return params


def _bounds(params: Options) -> Bounds:
    """Return the bounds of the feed's list, with its own in their place; raises InvalidInput."""
    bounds = BOUNDS[params["list"]]
    found: dict[str, dict[int, int]] = {}
    for option, usual in (("widest", bounds.widest), ("widest_sum", bounds.sum)):
        own = params[option] or {}
        found[option] = {}
        for family, name in FAMILIES.items():
            length = usual[family] if own.get(name) is None else own[name]
            if not 0 <= length <= BITS[family]:
                raise InvalidInput(
                    f"{option}.{name} is {length}: write a prefix length from 0 to {BITS[family]}"
                )
            found[option][family] = length
    return Bounds(found["widest"], found["widest_sum"])


def _copy(params: Options, found: Published) -> Copy:
    kind = Format(params["format"], params["column"], params["delimiter"], params["header"])
    rules = Rules(params["bogons"], params["max_bad"], _bounds(params))
    try:
        return read_feed(found.data, kind, params["name"], rules)
    except InvalidInput as error:
        raise Unavailable(str(error)) from error


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        replace_file(path, text, 0o644)
    except OSError as error:
        raise PacketwatchError(f"cannot write {path}: {error.strerror}") from error
