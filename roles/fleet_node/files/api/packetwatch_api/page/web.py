# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Routes of the page: the page itself, which needs a token, and its assets, which do not."""

from __future__ import annotations

import functools
import os
import time
import typing as t

import flask
import jinja2

from packetwatch_core._base.address import format_prefix, parse_address
from packetwatch_core._base.errors import InvalidInput

from ..problem import Away
from ..tokens import ROLES
from .tables import Table, answer, tables

if t.TYPE_CHECKING:
    from ..access import Access
    from ..fleet import Fleet

_FOLDER = os.path.dirname(__file__)
ASSETS = {
    "style.css": "text/css",
    "refresh.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MAX_ADDRESS = 64


class Page:
    """The page over the state of a fleet."""

    def __init__(self, fleet: Fleet, access: Access) -> None:
        self._fleet = fleet
        self._access = access
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        self._template = environment.get_template("index.html")

    def add_to(self, app: flask.Flask) -> None:
        app.add_url_rule("/", "page", self._page, methods=["GET"])
        for name, kind in ASSETS.items():
            with open(os.path.join(_FOLDER, name), "rb") as file:
                serve = functools.partial(_asset, file.read(), kind)
            app.add_url_rule(f"/assets/{name}", name, serve, methods=["GET"])

    def _page(self) -> flask.Response:
        authorization = flask.request.headers.get("Authorization", "")
        self._access.token(authorization, ROLES, by_browser=True, ask="Basic")
        address = flask.request.args.get("address", "").strip()[:_MAX_ADDRESS]
        problem, status = "", 200
        found: list[Table] = []
        revision = 0
        try:
            with self._fleet.view(with_own=True) as view:
                revision = view.revision
                if address:
                    prefix = parse_address(address)
                    source = self._fleet.sources.of(format_prefix(prefix))
                    found.append(answer(address, *view.explain(source, prefix)))
                found += tables(view)
        except InvalidInput as error:
            problem, status = str(error), 422
        except Away as error:
            problem, status = error.detail, error.status
        text = self._template.render(
            tables=found,
            address=address,
            problem=problem,
            revision=revision,
            now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        response = flask.Response(text, status, mimetype="text/html")
        response.headers.update(HEADERS | {"Cache-Control": "no-store"})
        return response


def _asset(data: bytes, kind: str) -> flask.Response:
    response = flask.Response(data, mimetype=kind)
    response.headers.update(HEADERS | {"Cache-Control": "no-cache"})
    response.add_etag()
    return response.make_conditional(flask.request)
