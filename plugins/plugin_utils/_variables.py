# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The variables of the role as hosts have them: their names, their values, and what is wrong with both."""

from __future__ import annotations

import difflib
import functools
import pathlib
import re
import typing as t

import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.convert import read_options
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.values import LISTS
from ansible_collections.packetwatch.xdp.plugins.modules import feed as feed_module

if t.TYPE_CHECKING:
    from ansible.template import Templar

FEEDS = "packetwatch_feeds"

_ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "packetwatch"
_PREFIX = "packetwatch_"
_ONE_UNDERSCORE = re.compile(r"(packetwatch_(?:allow|deny))_([a-z0-9][a-z0-9_]*)")
# Variables of the playbooks.
_OTHERS = ("address", "batches", "force", "hosts", "panic", "report")
# Options of the role's feeds that the module feed does not have.
# Where the run keeps copies.
_OF_THE_RUN: t.Final = ("dest", "cache")
_MORE: t.Final[dict[str, dict[str, t.Any]]] = {
    "max_change": {"type": "float"},
    "allow_empty": {"type": "bool"},
    "expire_after": {"type": "str"},
}


class Values(t.NamedTuple):
    """Evaluated variables. problems: those that have none. unknown: those that depend on the host."""

    found: dict[str, t.Any]
    problems: list[str]
    unknown: list[str]


_PASSWORDS = tuple(f"{_PREFIX}{of}_password" for of in ("fleet", "bus"))
_KEYS = tuple(f"{_PREFIX}{of}_certificate" for of in ("fleet", "bus"))


@functools.cache
def known_variables() -> tuple[str, ...]:
    """The names of the role's variables."""
    text = (_ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    names = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return (*names, *(_PREFIX + name for name in _OTHERS))


def without_secrets(found: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Variables for a module that only needs to know whether secrets are given, and that a key is in PEM."""
    hidden = dict(found)
    for name in _PASSWORDS:
        if hidden.get(name):
            hidden[name] = "given"
    for name in _KEYS:
        if key := str(hidden.get(name) or ""):
            hidden[name] = "-----BEGIN " if key.lstrip().startswith("-----BEGIN ") else "not in PEM"
    return hidden


def unknown_variables(names: t.Iterable[str], known: t.Collection[str]) -> t.Iterator[str]:
    """Explain each variable that begins as ours and is unknown: what was perhaps meant."""
    for name in sorted(names):
        if not name.startswith(_PREFIX) or name in known or LISTS.fullmatch(name):
            continue
        kind, lists, _suffix = name.partition("__")
        near = difflib.get_close_matches(kind, known, 1)
        one = _ONE_UNDERSCORE.fullmatch(name)
        if lists and LISTS.fullmatch(kind):
            hint = "what follows the two underscores may hold only a-z, 0-9 and _"
        elif one:
            hint = f"did you mean {one[1]}__{one[2]}, with two underscores?"
        elif near:
            hint = f"did you mean {near[0]}{lists and '__NAME'}?"
        else:
            hint = "the variables of the role are in the README of the collection"
        yield f"the variable {name} is unknown: {hint}"


def of_host(host: str, hostvars: t.Any, templar: Templar) -> tuple[dict[str, t.Any], Templar]:
    """Another host's variables before evaluation, and what evaluates them.

    With ansible-core 2.16 to 2.18, `hostvars[host]` returns a template that fails as if it were the value.
    """
    # What a play adds itself: variables may be made of those of other hosts.
    variables = {**hostvars.raw_get(host), "hostvars": hostvars}
    return variables, templar.copy_with_new_env(available_variables=variables)


def evaluate(variables: t.Mapping[str, t.Any], templar: Templar) -> Values:
    """Evaluate the variables of the role, each by itself."""
    known = known_variables()
    values = Values({}, [], [])
    for name in sorted(variables):
        if name in known or LISTS.fullmatch(name):
            try:
                values.found[name] = _decrypted(templar.template(variables[name]))
            except AnsibleUndefinedVariable as error:
                values.unknown.append(
                    f"{name} cannot be evaluated: {_text(error)}; define that variable for the host"
                )
            except AnsibleError as error:
                values.problems.append(f"{name} cannot be evaluated: {_text(error)}")
    return values


def _decrypted(value: t.Any) -> t.Any:
    """A value with all its texts. ansible-core 2.16 to 2.18 decrypt a text of a vault only when it is used."""
    if isinstance(value, t.Mapping):
        return {key: _decrypted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decrypted(item) for item in value]
    return str(value) if getattr(value, "__ENCRYPTED__", False) else value


def check_feeds(feeds: t.Any) -> t.Iterator[str]:
    """What is wrong with the variable of the feeds. Values of headers are secrets, and never shown."""
    if not isinstance(feeds, list):
        yield f"{FEEDS} is of type {type(feeds).__name__}: write a list of dictionaries"
        return
    names: set[str] = set()
    for index, feed in enumerate(feeds):
        for problem in _check_feed(feed, names):
            yield f"{FEEDS}[{index}]: {problem}"


def _check_feed(feed: t.Any, names: set[str]) -> t.Iterator[str]:
    if not isinstance(feed, dict) or not isinstance(feed.get("name"), str):
        yield "it has no name: write a dictionary with name and url or path"
        return
    if feed["name"] in names:
        yield f"{feed['name']} is listed twice; keep one of them"
    names.add(feed["name"])
    options = {
        key: value for key, value in feed_module.OPTIONS.items() if key not in _OF_THE_RUN
    } | _MORE
    for key in feed.keys() - options:
        near = difflib.get_close_matches(str(key), options, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(options))}"
        yield f"{feed['name']} has the unknown option {key}: {hint}"
    validator = ArgumentSpecValidator(options, **feed_module.RULES)
    done = validator.validate({key: value for key, value in feed.items() if key in options})
    yield from (f"{feed['name']}: {message}" for message in done.error_messages)
    if not done.error_messages:
        try:
            read_options(done.validated_parameters)
        except PacketwatchError as error:
            yield f"{feed['name']}: {error}"


def _text(error: BaseException) -> str:
    """The first cause of an error in one line, and the remedy for a vault without a password."""
    causes = [error]
    # ansible-core 2.16 to 2.18 keep the cause in `orig_exc`.
    while cause := causes[-1].__cause__ or getattr(causes[-1], "orig_exc", None):
        causes.append(cause)
    text = " ".join(str(getattr(causes[-1], "message", causes[-1])).split())
    if "vault" in text.lower():
        text = text.rpartition(": ")[2].rstrip(".")
        return f"{text}; give the password with --ask-vault-pass or --vault-password-file"
    return text
