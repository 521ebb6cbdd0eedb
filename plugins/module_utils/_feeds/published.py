# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Feeds as they are published: fetched from a server or read from a file, and checked."""

from __future__ import annotations

import email.utils
import hashlib
import os
import time
import typing as t

from .._base.errors import Unavailable

Options = t.Mapping[str, t.Any]
OpenUrl = t.Callable[..., t.Any]
"""Ansible's `open_url`."""

_PIECE = 1 << 16


class Published(t.NamedTuple):
    """A feed as it was published. modified: Unix time, None if unknown."""

    data: bytes
    modified: float | None


def obtain(params: Options, open_url: OpenUrl) -> Published:
    """Get the feed by its url or its path; raises `Unavailable`, which names the feed."""
    try:
        found = _fetch(params, open_url) if params["url"] is not None else _read(params)
        _check(found, params["checksum"], params["max_age"])
    except Unavailable as error:
        raise Unavailable(f"feed {params['name']}: {error}") from error
    return found


def _fetch(params: Options, open_url: OpenUrl) -> Published:
    """Download the feed, within `timeout` seconds in all."""
    url, end = params["url"], time.monotonic() + params["timeout"]
    headers = {str(name): str(value) for name, value in params["headers"].items()}
    try:
        with open_url(
            url,
            headers=headers,
            unredirected_headers=list(headers),
            timeout=params["timeout"],
            http_agent="packetwatch",
            use_netrc=False,
        ) as answer:
            pieces, size = [], 0
            while piece := answer.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                _check_size(size, params["max_bytes"])
                if time.monotonic() > end:
                    raise Unavailable(f"{url} takes more than {params['timeout']:g} s")
            modified = answer.headers.get("Last-Modified")
    # Servers, proxies and networks fail in more ways than share an exception class.
    except (OSError, ValueError, EOFError) as error:
        raise Unavailable(f"cannot fetch {url}: {error}") from error
    return Published(b"".join(pieces), _read_time(modified))


def _read_time(text: str | None) -> float | None:
    """Unix time of a date in HTTP's format."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


def _read(params: Options) -> Published:
    """Read the feed from a file."""
    path = params["path"]
    try:
        with open(path, "rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, params["max_bytes"])
            data = file.read(params["max_bytes"] + 1)
            _check_size(len(data), params["max_bytes"])
            return Published(data, os.fstat(file.fileno()).st_mtime)
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def _check_size(size: int, maximum: int) -> None:
    """Refuse a feed that is too large."""
    if size > maximum:
        raise Unavailable(f"it has more than {maximum} bytes: check it, or raise max_bytes")


def _check(found: Published, checksum: str | None, max_age: float | None) -> None:
    """Refuse a feed that has another digest, or is too old."""
    digest = hashlib.sha256(found.data).hexdigest()
    if checksum is not None and checksum.partition(":")[2].lower() != digest:
        raise Unavailable(
            f"its digest is sha256:{digest}, but checksum is {checksum}: check the feed, then correct "
            "checksum"
        )
    if max_age is None:
        return
    if found.modified is None:
        raise Unavailable(
            "the server sends no valid Last-Modified, so its age is unknown: leave out max_age"
        )
    age = time.time() - found.modified
    if age > max_age:
        raise Unavailable(
            f"it is {age:.0f} s old, but max_age is {max_age:g}: ask its publisher, or raise max_age"
        )
