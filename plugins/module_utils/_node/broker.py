# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What a fleet's RabbitMQ knows: who may publish, consume and bind what, and where messages go.

It is a virtual host of its own, so the server may serve others too.
"""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t

from .._base.errors import InvalidInput

VHOST = "packetwatch"
EVENTS, COMMANDS = "packetwatch.events", "packetwatch.commands"
QUEUE = "packetwatch-commands"
BUS = "packetwatch-bus"
"""The account that takes commands."""
VERBS = ("ban", "allow", "deny", "remove", "explain")
_VERBS_OF = {
    "read": ("explain",),
    "ban": ("ban", "explain"),
    "lists": ("allow", "deny", "explain"),
    "admin": VERBS,
}
# Milliseconds and numbers. A command that is older is refused anyway.
_COMMAND_AGE, _MAX_COMMANDS = 30_000, 1000
_EVENTS_AGE, _QUEUE_UNUSED = 3_600_000, 86_400_000
_MAX_EVENTS, _MAX_EVENT_BYTES = 20_000, 64 << 20
_NOTHING = "^$"

Json = dict[str, t.Any]


class Passwords(t.NamedTuple):
    """Passwords by account. operators: also the verbs that each may send."""

    bus: str
    hosts: t.Mapping[str, str]
    subscribers: t.Mapping[str, str]
    operators: t.Mapping[str, tuple[str, t.Sequence[str]]]


def definitions(passwords: Passwords) -> Json:
    """What RabbitMQ imports; raises `InvalidInput`."""
    _check(passwords)
    users = {BUS: passwords.bus, **passwords.hosts, **passwords.subscribers}
    users.update({name: password for name, (password, dummy) in passwords.operators.items()})
    permissions = [_permission(BUS, write=r"^amq\.default$", read=f"^{QUEUE}$")]
    topics = []
    for name in passwords.hosts:
        permissions.append(_permission(name, write=_exactly(EVENTS)))
        # Names of actions have no dot, so web1 has no events of web1.example.
        topics.append(_topic(name, EVENTS, rf"^{re.escape(name)}\.[a-z_]+$"))
    for name in passwords.subscribers:
        own = rf"^events\.{re.escape(name)}(\..*)?$"
        read = rf"^(packetwatch\.events|events\.{re.escape(name)}(\..*)?)$"
        permissions.append(_permission(name, configure=own, write=own, read=read))
    for name, (dummy, verbs) in passwords.operators.items():
        permissions.append(_permission(name, write=_exactly(COMMANDS)))
        topics.append(_topic(name, COMMANDS, f"^({'|'.join(verbs)})$"))
    return {
        "users": [_user(name, password) for name, password in users.items()],
        "vhosts": [{"name": VHOST}],
        "permissions": permissions,
        "topic_permissions": topics,
        "exchanges": [_exchange(name) for name in (EVENTS, COMMANDS)],
        "queues": [_queue()],
        "bindings": [_binding()],
        "policies": [_policy()],
    }


def verbs_of(role: str, name: str) -> t.Sequence[str]:
    """What an operator with a role at the API may send; raises `InvalidInput`."""
    if role not in _VERBS_OF:
        raise InvalidInput(
            f"the operator {name!r} has the role {role!r}: write one of {', '.join(_VERBS_OF)}"
        )
    return _VERBS_OF[role]


def _check(passwords: Passwords) -> None:
    kinds = {
        "a host": passwords.hosts,
        "a subscriber": passwords.subscribers,
        "an operator": passwords.operators,
    }
    known = {BUS: "the account of the fleet"}
    for kind, names in kinds.items():
        for name in names:
            if name in known:
                raise InvalidInput(
                    f"{name!r} is the name of {known[name]} and of {kind}: choose another name for one of them"
                )
            known[name] = kind
    for name, (dummy, verbs) in passwords.operators.items():
        wrong = [verb for verb in verbs if verb not in VERBS]
        if wrong or not verbs:
            raise InvalidInput(
                f"the operator {name!r} may send {', '.join(wrong) or 'nothing'}: write some of {', '.join(VERBS)}"
            )


def _user(name: str, password: str) -> Json:
    # A password has 256 random bits: the salt need not be random, and the same password has the same hash.
    salt = hashlib.sha256(b"salt" + password.encode()).digest()[:4]
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
    }


def _permission(
    user: str, *, configure: str = _NOTHING, write: str = _NOTHING, read: str = _NOTHING
) -> Json:
    return {"user": user, "vhost": VHOST, "configure": configure, "write": write, "read": read}


def _topic(user: str, exchange: str, write: str) -> Json:
    return {"user": user, "vhost": VHOST, "exchange": exchange, "write": write, "read": _NOTHING}


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


def _exchange(name: str) -> Json:
    return {
        "name": name,
        "vhost": VHOST,
        "type": "topic",
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue() -> Json:
    limits = {
        "x-max-length": _MAX_COMMANDS,
        "x-message-ttl": _COMMAND_AGE,
        "x-overflow": "reject-publish",
        # Nodes may share a server, but only one that gets all commands knows which have come twice.
        "x-single-active-consumer": True,
    }
    return {
        "name": QUEUE,
        "vhost": VHOST,
        "durable": True,
        "auto_delete": False,
        "arguments": limits,
    }


def _binding() -> Json:
    return {
        "source": COMMANDS,
        "vhost": VHOST,
        "destination": QUEUE,
        "destination_type": "queue",
        "routing_key": "#",
        "arguments": {},
    }


def _policy() -> Json:
    """A subscriber that does not read loses the oldest messages, and the others none."""
    limits = {
        "max-length": _MAX_EVENTS,
        "max-length-bytes": _MAX_EVENT_BYTES,
        "message-ttl": _EVENTS_AGE,
        "expires": _QUEUE_UNUSED,
        "overflow": "drop-head",
    }
    return {
        "vhost": VHOST,
        "name": "packetwatch-events",
        "pattern": r"^events\.",
        "apply-to": "queues",
        "priority": 0,
        "definition": limits,
    }
