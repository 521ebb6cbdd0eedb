# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long answers in pages. A page's token is where the next one begins; clients must not read it."""

from __future__ import annotations

import base64
import bisect
import json
import typing as t

from .problem import Problem

Key = tuple[str | float, ...]
T = t.TypeVar("T")


def page_of(
    items: t.Iterable[T], key: t.Callable[[T], Key], limit: int, token: str | None
) -> tuple[list[T], str | None]:
    """The items of a page in their order, and the token of the next page; None: this is the last one."""
    ordered = sorted(items, key=key)
    start = 0
    if token is not None:
        after = _read(token)
        if ordered and [type(part) for part in after] != [type(part) for part in key(ordered[0])]:
            raise Problem(422, "page is of another list: begin again without it")
        start = bisect.bisect_right(ordered, after, key=key)
    found = ordered[start : start + limit]
    is_last = start + limit >= len(ordered)
    return found, None if is_last or not found else _write(key(found[-1]))


def is_token(text: str) -> bool:
    """Whether a text is a token of some page."""
    try:
        _read(text)
    except Problem:
        return False
    return True


def _write(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode()


def _read(token: str) -> Key:
    try:
        found = json.loads(base64.b64decode(token.encode("ascii"), b"-_", validate=True))
    except (ValueError, RecursionError):
        found = None
    # A number is compared with floats.
    if isinstance(found, list) and found and all(isinstance(one, str | float) for one in found):
        return tuple(found)
    raise Problem(400, "page is not a token of this API: use the next of the page before")
