# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application: routes of the contract, and what happens to every request."""

from __future__ import annotations

import functools
import json
import traceback
import typing as t

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from packetwatch_agent.output import Output
from packetwatch_core._node.never import Never
from packetwatch_fleet.sources import Sources

from .access import Access, Forbidden
from .audit import Audit
from .changes import Changes
from .fleet import Fleet
from .metrics import Metrics
from .operations import Answer, Call, Operations, Perform
from .page.web import Page
from .problem import TYPE, Problem, body_of
from .settings import Settings
from .spec import Operation, Spec
from .store import Store
from .tokens import Tokens

MAX_BODY = 16384


def create_app(settings: Settings, output: Output) -> flask.Flask:
    """Make the application. It reads the store when it is asked."""
    store = Store(settings.connect)
    sources = Sources(settings.shared)
    fleet = Fleet(store, sources, Never(settings.always))
    changes = Changes(store, fleet)
    operations = Operations(fleet, changes, sources)
    access = Access(Tokens(settings.tokens))
    app = flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    # A path with two slashes is unknown, not a redirection.
    app.url_map = Map(merge_slashes=False)
    server = Server(Spec.read(), access, Audit(output), output)
    server.add_to(app, operations)
    Page(fleet, access).add_to(app)
    Metrics(fleet, access).add_to(app)
    return app


class Server:
    """Serves the operations of a contract."""

    def __init__(self, spec: Spec, access: Access, audit: Audit, output: Output) -> None:
        self._spec = spec
        self._access = access
        self._audit = audit
        self._output = output

    def add_to(self, app: flask.Flask, operations: Operations) -> None:
        for operation in self._spec.operations:
            # A prefix has a slash, which servers decode before they look for the route.
            rule = operation.path.replace("{prefix}", "<path:prefix>")
            app.add_url_rule(
                rule.replace("{", "<").replace("}", ">"),
                operation.name,
                functools.partial(self._serve, operation, operations.find(operation.name)),
                methods=[operation.method],
                provide_automatic_options=False,
            )
        app.register_error_handler(Problem, _problem)
        app.register_error_handler(HTTPException, _http_error)
        app.register_error_handler(Exception, self._failure)

    def _serve(self, operation: Operation, perform: Perform, **path: str) -> flask.Response:
        request = flask.request
        name, arguments = "", dict(path)
        status, message, revision = 500, "failed", 0
        try:
            if operation.roles:
                shown = request.headers.get("Authorization", "")
                token = self._access.token(shown, operation.roles, operation.is_browsable)
                name = token.name
            query = request.args.to_dict(flat=False)
            values = self._spec.values(operation, path, query, request.headers)
            body = self._body(operation)
            arguments = {key: value for key, value in (values | body).items() if value is not None}
            answer = perform(Call(values, body, name))
            status, message, revision = answer.status, "", answer.tag or 0
            return _response(answer)
        except Forbidden as problem:
            name, status, message = problem.token.name, problem.status, problem.detail
            raise
        except Problem as problem:
            status, message = problem.status, problem.detail
            raise
        except HTTPException as error:
            status, message = error.code or 500, str(error.description)
            raise
        finally:
            if operation.is_change:
                self._audit.write(
                    operation.name,
                    arguments,
                    user=name,
                    address=request.headers.get("X-Real-IP", ""),
                    status=status,
                    message=message,
                    revision=revision,
                )

    def _body(self, operation: Operation) -> dict[str, t.Any]:
        request = flask.request
        if operation.body is None:
            return {}
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Problem(415, "the body is compressed: send it as it is")
        if request.mimetype != "application/json":
            raise Problem(415, f"the body is {request.mimetype[:80]!r}: send application/json")
        try:
            # NaN is not JSON, and of two equal names one would vanish.
            value = json.loads(
                request.get_data(), parse_constant=_refuse, object_pairs_hook=_object
            )
        except (ValueError, RecursionError) as error:
            raise Problem(400, f"the body is not JSON: {str(error)[:80]}") from None
        self._spec.check_body(operation, value)
        return t.cast("dict[str, t.Any]", value)

    def _failure(self, error: Exception) -> flask.Response:
        lines = "".join(traceback.format_exception(error))
        self._output.say(
            "error", f"a request has failed: {error!r}", error__stack_trace=lines[-4000:]
        )
        return _problem(Problem(500, "the API has failed: its journal says why"))


def _response(answer: Answer) -> flask.Response:
    response = flask.Response(status=answer.status)
    if answer.body is None:
        response.headers.pop("Content-Type", None)
    else:
        response.data = json.dumps(answer.body) + "\n"
        response.mimetype = "application/json"
    if answer.tag is not None:
        response.headers["ETag"] = f'"{answer.tag}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _problem(problem: Problem) -> flask.Response:
    text = json.dumps(body_of(problem.status, problem.detail)) + "\n"
    response = flask.Response(text, problem.status, mimetype=TYPE)
    response.headers.update(problem.headers)
    response.headers["Cache-Control"] = "no-store"
    return response


def _http_error(error: HTTPException) -> flask.Response:
    """What Flask itself refuses: unknown paths, methods, large bodies."""
    response = _problem(Problem(error.code or 500, str(error.description)))
    allowed = error.get_response().headers.get("Allow")
    if allowed:
        response.headers["Allow"] = allowed
    return response


def _object(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _refuse(name: str) -> t.NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
