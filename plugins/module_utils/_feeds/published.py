# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Feeds as they are published: fetched from a server or read from a file, checked, and unpacked."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import http.client
import json
import os
import time
import typing as t

from .._base.errors import InvalidInput, Unavailable
from .._base.files import parse_json
from .._base.number import MAX_TIME, is_number, read_whole
from .unpack import unpack

Options = t.Mapping[str, t.Any]
OpenUrl = t.Callable[..., t.Any]
"""Ansible's `open_url`."""

_PIECE = 1 << 16
_MAX_AHEAD = 600.0  # seconds by which a publisher's clock may be ahead
_MAX_LENGTH = 1 << 62
_MAX_LINE = 1 << 10


class Published(t.NamedTuple):
    """A feed as it was published, unpacked.

    modified: when it was changed, None if unknown. fetched: when it was fetched. Both are Unix times.
    """

    data: bytes
    modified: float | None
    fetched: float


def obtain(params: Options, open_url: OpenUrl) -> Published:
    """Get the feed by its url or its path; raises `Unavailable`, which names the feed."""
    try:
        found = _fetch(params, open_url) if params["url"] is not None else _read(params)
        _check_digest(found.data, params["checksum"])
        return found._replace(data=unpack(found.data, params["max_bytes"]))
    except (InvalidInput, Unavailable) as error:
        raise Unavailable(f"feed {params['name']}: {error}") from error


def check_age(modified: float | None, max_age: float | None, name: str) -> None:
    """Refuse a feed that is too old, or whose time of change (Unix time) is unknown."""
    if max_age is None:
        return
    if modified is None:
        raise Unavailable(
            f"feed {name}: the server sends no valid Last-Modified, so its age is unknown: leave out max_age"
        )
    age = time.time() - modified
    if age > max_age:
        raise Unavailable(
            f"feed {name}: it is {age:.0f} s old, but max_age is {max_age:g}: ask its publisher, or raise max_age"
        )
    if age < -_MAX_AHEAD:
        raise Unavailable(
            f"feed {name}: its time of change is {-age:.0f} s ahead of this clock, so its age is unknown: check "
            "the clock, or leave out max_age"
        )


def _fetch(params: Options, open_url: OpenUrl) -> Published:
    """Fetch the feed, or take the kept answer if the last fetch was less than `interval` seconds ago."""
    if not params["interval"] or params["cache"] is None:
        return _download(params, open_url)
    kept = _Kept(params)
    found = kept.read()
    if found is None:
        found = _download(params, open_url)
        kept.write(found)
    return found


class _Kept:
    """The last answer of a feed's server, in a file in the folder `cache`."""

    def __init__(self, params: Options) -> None:
        # The headers too: another token may get another list.
        key = json.dumps([params["url"], sorted(params["headers"].items())], default=str)
        self._path = os.path.join(params["cache"], hashlib.sha256(key.encode()).hexdigest())
        self._params = params

    def read(self) -> Published | None:
        """Return the answer; None if there is none, or if it is older than the interval."""
        try:
            with open(self._path, "rb") as file:
                modified, fetched = parse_json(file.readline(_MAX_LINE))
                if not is_number(fetched, MAX_TIME):
                    return None
                if modified is not None and not is_number(modified, MAX_TIME):
                    return None
                age = time.time() - fetched
                if not 0 <= age < self._params["interval"]:
                    return None
                data = file.read(self._params["max_bytes"] + 1)
        except (OSError, TypeError, ValueError):
            return None
        _check_size(len(data), self._params["max_bytes"])
        return Published(data, modified, fetched)

    def write(self, found: Published) -> None:
        """Keep an answer. Errors are ignored: the feed itself is there."""
        draft = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(draft), 0o700, exist_ok=True)
            # The list may be one that only paying users get.
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(json.dumps([found.modified, found.fetched]).encode() + b"\n")
                file.write(found.data)
            os.rename(draft, self._path)


def _download(params: Options, open_url: OpenUrl) -> Published:
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
            _check_length(size, answer.headers)
            modified = answer.headers.get("Last-Modified")
    # Servers, proxies and networks fail in more ways than share an exception class.
    except (OSError, ValueError, EOFError, http.client.HTTPException) as error:
        raise Unavailable(f"cannot fetch {url}: {error}") from error
    return Published(b"".join(pieces), _read_time(modified), time.time())


def _check_length(size: int, headers: t.Mapping[str, str]) -> None:
    """Refuse an answer that is shorter than announced: the connection broke, and half a list may read well."""
    announced = read_whole(headers.get("Content-Length") or "", _MAX_LENGTH) or 0
    if size < announced and not headers.get("Content-Encoding"):
        raise Unavailable(
            f"the server announced {announced} bytes and sent {size}: fetch it again later"
        )


def _read_time(text: str | None) -> float | None:
    """Unix time of a date in HTTP's format."""
    if not text:
        return None
    try:
        found = email.utils.parsedate_to_datetime(text)
        # Without a zone, HTTP's dates are in UTC.
        return found.timestamp() if found.tzinfo else found.replace(tzinfo=datetime.UTC).timestamp()
    except (IndexError, OverflowError, TypeError, ValueError):
        return None


def _read(params: Options) -> Published:
    """Read the feed from a file."""
    path = params["path"]
    try:
        with open(path, "rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, params["max_bytes"])
            data = file.read(params["max_bytes"] + 1)
            _check_size(len(data), params["max_bytes"])
            return Published(data, os.fstat(file.fileno()).st_mtime, time.time())
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def _check_size(size: int, maximum: int) -> None:
    """Refuse a feed that is too large."""
    if size > maximum:
        raise Unavailable(f"it has more than {maximum} bytes: check it, or raise max_bytes")


def _check_digest(data: bytes, checksum: str | None) -> None:
    """Refuse a feed that has another digest."""
    digest = hashlib.sha256(data).hexdigest()
    if checksum is not None and checksum.partition(":")[2].lower() != digest:
        raise Unavailable(
            f"its digest is sha256:{digest}, but checksum is {checksum}: check the feed, then correct "
            "checksum"
        )
