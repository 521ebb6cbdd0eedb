# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract, `openapi.json`: which operations there are, who may use them, and whether a request has their form."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
import typing as t

import jsonschema

from .paging import is_token
from .problem import Problem

PATH = os.path.join(os.path.dirname(__file__), "openapi.json")
_METHODS = ("get", "put", "delete")
_MAX_SHOWN = 200
_TAG = re.compile(r'"[0-9]{1,19}"')

Json = dict[str, t.Any]
Values = dict[str, t.Any]


class Parameter(t.NamedTuple):
    """A value in the path, the query or a header."""

    name: str
    where: str
    is_number: bool
    default: t.Any
    schema: Json


class Operation(t.NamedTuple):
    """What one method of one path does."""

    name: str
    method: str
    path: str
    roles: frozenset[str]
    """Roles that may use it; none: everybody may."""
    is_browsable: bool
    """Whether a browser may show the token as a password."""
    parameters: tuple[Parameter, ...]
    body: Json | None

    @property
    def is_change(self) -> bool:
        return self.method != "GET"


class Spec:
    """The contract, and checks against it."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._formats = _formats()
        self.operations = [
            self._operation(path, method.upper(), item)
            for path, item in document["paths"].items()
            for method in _METHODS
            if method in item
        ]

    @classmethod
    def read(cls) -> Spec:
        with open(PATH, encoding="utf-8") as file:
            return cls(json.load(file))

    def values(
        self,
        operation: Operation,
        path: t.Mapping[str, str],
        query: t.Mapping[str, list[str]],
        headers: t.Mapping[str, str],
    ) -> Values:
        """All parameters of a request, by name; raises `Problem`."""
        known = {one.name for one in operation.parameters if one.where == "query"}
        for name in query:
            if name not in known:
                raise Problem(
                    400, f"the parameter {name[:_MAX_SHOWN]!r} is not known here: remove it"
                )
        found: Values = {}
        for one in operation.parameters:
            given = {"path": [path.get(one.name)], "query": query.get(one.name, [None])}.get(
                one.where, [headers.get(one.name)]
            )
            if len(given) > 1:
                raise Problem(400, f"{one.name} is there {len(given)} times: write it once")
            text = given[0]
            found[one.name] = one.default if text is None else self._parsed(one, text)
        return found

    def check_body(self, operation: Operation, value: t.Any) -> None:
        """Raise `Problem` unless the body has the form that the operation wants."""
        self._check("the body", operation.body or {}, value)

    def _parsed(self, parameter: Parameter, text: str) -> t.Any:
        value: t.Any = text
        if parameter.is_number:
            if not (text.isascii() and text.isdigit() and len(text) <= 12):
                raise Problem(
                    400, f"{parameter.name} is {text[:_MAX_SHOWN]!r}: write a whole number"
                )
            value = int(text)
        self._check(parameter.name, parameter.schema, value)
        return value

    def _check(self, what: str, schema: Json, value: t.Any) -> None:
        validator = jsonschema.Draft202012Validator(schema, format_checker=self._formats)
        for error in validator.iter_errors(value):
            where = "".join(f"[{part!r}]" for part in error.absolute_path)
            wanted = _wanted(error)
            shown = repr(error.instance)[:_MAX_SHOWN]
            raise Problem(400, f"{what}{where} is {shown}: {wanted}")

    def _operation(self, path: str, method: str, item: Json) -> Operation:
        found = item[method.lower()]
        parameters = tuple(
            self._parameter(self._resolved(one))
            for one in (*item.get("parameters", ()), *found.get("parameters", ()))
        )
        security = found.get("security", ())
        body = found.get("requestBody")
        return Operation(
            found["operationId"],
            method,
            path,
            frozenset(role for one in security for roles in one.values() for role in roles),
            any("browser" in one for one in security),
            parameters,
            self._whole(body["content"]["application/json"]["schema"]) if body else None,
        )

    def _parameter(self, found: Json) -> Parameter:
        schema = self._whole(found["schema"])
        is_number = schema.get("type") == "integer"
        return Parameter(found["name"], found["in"], is_number, schema.get("default"), schema)

    def _resolved(self, found: Json) -> Json:
        reference = found.get("$ref")
        if reference is None:
            return found
        target: t.Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        return t.cast("Json", target)

    def _whole(self, schema: t.Any) -> t.Any:
        """A schema with all that it refers to."""
        if isinstance(schema, list):
            return [self._whole(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        return {name: self._whole(value) for name, value in self._resolved(schema).items()}


def _wanted(error: t.Any) -> str:
    """What a value should be, in words."""
    if error.validator == "additionalProperties":
        return f"known are only {', '.join(error.schema.get('properties', ()))}"
    if error.validator == "anyOf":
        forms = [one.get("format") or repr(one.get("const")) for one in error.validator_value]
        return f"write one of {', '.join(forms)}"
    return str(
        error.message
        if error.validator == "required"
        else f"{error.validator} is {error.validator_value}"
    )


def _formats() -> t.Any:
    """Formats that values are checked against."""
    found = jsonschema.FormatChecker(formats=("ipv4", "ipv6"))
    for number, kind in ((4, ipaddress.IPv4Network), (6, ipaddress.IPv6Network)):
        found.checks(f"ipv{number}-network")(functools.partial(_is_network, kind))
    found.checks("etag")(lambda value: not isinstance(value, str) or bool(_TAG.fullmatch(value)))
    found.checks("page-token")(lambda value: not isinstance(value, str) or is_token(value))
    return found


def _is_network(kind: t.Callable[[str], object], value: object) -> bool:
    if not isinstance(value, str):
        return True
    address, slash, length = value.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or str(int(length[:4])) != length:
        return False
    try:
        kind(value)
    except ValueError:
        return False
    return "%" not in address
