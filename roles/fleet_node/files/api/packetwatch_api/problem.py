# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of the API, as RFC 9457 has them."""

from __future__ import annotations

import http
import typing as t

TYPE = "application/problem+json"
RETRY_AFTER = "2"


class Problem(Exception):
    """A request that is not carried out: its status, and what the client can do."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Away(Problem):
    """The store does not answer: the same request may be sent again."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, detail, Retry_After=RETRY_AFTER)


def body_of(status: int, detail: str) -> dict[str, t.Any]:
    """The object that describes a problem."""
    title = http.HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}
