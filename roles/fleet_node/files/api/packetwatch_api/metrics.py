# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics for Prometheus, which shows a token as people do."""

from __future__ import annotations

import collections
import contextlib
import threading
import typing as t

import flask

from packetwatch_agent.metrics import COUNTER, GAUGE, Rows, Values, by_label, render

from .problem import Away
from .tokens import ROLES

if t.TYPE_CHECKING:
    from .access import Access
    from .fleet import Fleet

METRICS: Rows = {
    "packetwatch_api_requests_total": (COUNTER, "Answers of the API and its page, by status."),
    "packetwatch_api_never_total": (
        COUNTER,
        "Changes that were refused because nobody bans or denies the address.",
    ),
    "packetwatch_api_store_answers": (GAUGE, "Whether the API reaches the store of its node."),
}
_CLASSES = ("2xx", "3xx", "4xx", "5xx")
# Of the contract: nobody bans or denies the address.
_NEVER = 409
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts all answers of the application."""

    def __init__(self, fleet: Fleet, access: Access) -> None:
        self._fleet = fleet
        self._access = access
        self._lock = threading.Lock()
        self._never = 0
        self._answers = collections.Counter(dict.fromkeys(_CLASSES, 0))

    def add_to(self, app: flask.Flask) -> None:
        app.add_url_rule("/metrics", "metrics", self._page, methods=["GET"])
        app.after_request(self._count)

    def _count(self, response: flask.Response) -> flask.Response:
        with self._lock:
            self._answers[f"{response.status_code // 100}xx"] += 1
            self._never += response.status_code == _NEVER
        return response

    def _page(self) -> flask.Response:
        self._access.token(flask.request.headers.get("Authorization", ""), ROLES, by_browser=True)
        answers = False
        with contextlib.suppress(Away), self._fleet.view():
            answers = True
        with self._lock:
            counts, never = dict(self._answers), self._never
        values: Values = {
            "packetwatch_api_requests_total": by_label("status", counts),
            "packetwatch_api_never_total": [({}, never)],
            "packetwatch_api_store_answers": [({}, int(answers))],
        }
        response = flask.Response(render(METRICS, values), content_type=_TYPE)
        response.headers["Cache-Control"] = "no-store"
        return response
