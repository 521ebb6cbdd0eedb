# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An event source for ansible-rulebook: events of hosts, as they happen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import typing as t

DOCUMENTATION = r"""
---
short_description: Events of hosts that Packetwatch filters
description:
  - Follows the events of hosts with C(packetwatchctl watch), over ssh. The user there must be root or a member of the group
    C(packetwatch).
  - Events have the fields of docs/events.md, as nested objects, such as C(event.event.action) and C(event.source.ip).
    C(event.host.name) is the entry of O(hosts), whatever the host says about itself.
  - Hosts are not trusted. An event that contains the beginning of a template is left out, because rulebooks hand events on
    to playbooks. Each host gives at most 100 events a second.
  - A connection that ends is made again. Events of the time between are lost.
options:
  hosts:
    description: Hosts to follow, as ssh knows them. It must find keys without asking.
    type: list
    elements: str
    required: true
  actions:
    description: Values of C(event.action) that are wanted.
    type: list
    elements: str
    default: [ban]
"""

EXAMPLES = r"""
- packetwatch.xdp.watch:
    hosts: [web1.example.net, web2.example.net]
    actions: [ban, scan]
"""

SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "--")
WATCH = ("packetwatchctl", "watch", "--json")
# Seconds between two events of a host, and before a connection is made again.
PACE = 0.01
PAUSE = 5.0
MAX_LINE = 1 << 16
TEMPLATE = re.compile(rb"\{[{%#]")
NAME = re.compile(r"\w[\w.@:-]*")

Event = dict[str, t.Any]

logger = logging.getLogger("packetwatch.xdp.watch")


async def main(queue: asyncio.Queue[Event], args: dict[str, t.Any]) -> None:
    """Put the events of all hosts into the queue, until it is cancelled."""
    hosts = _names(args, "hosts", [])
    wanted = [word for action in _names(args, "actions", ["ban"]) for word in ("--action", action)]
    if not hosts:
        raise ValueError("packetwatch.xdp.watch: hosts is missing or empty: write a list of hosts")
    await asyncio.gather(*(_follow(queue, host, (*WATCH, *wanted)) for host in hosts))


def _names(args: dict[str, t.Any], option: str, default: list[str]) -> list[str]:
    """An option that is a list of names. ssh hands them to a shell on the host."""
    names = args.get(option, default)
    if not isinstance(names, list):
        raise ValueError(f"packetwatch.xdp.watch: {option} is {names!r}: write a list of names")
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"packetwatch.xdp.watch: {option} has {name!r}, which is not a name")
    return names


async def _follow(queue: asyncio.Queue[Event], host: str, command: t.Sequence[str]) -> None:
    """Follow one host for good."""
    while True:
        why = await _stream(queue, host, command)
        logger.warning("%s: %s; connecting again in %g s", host, why, PAUSE)
        await asyncio.sleep(PAUSE)


async def _stream(queue: asyncio.Queue[Event], host: str, command: t.Sequence[str]) -> str:
    """Pass on what a host emits; return why that has ended."""
    process = await asyncio.create_subprocess_exec(
        *SSH,
        host,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE,
    )
    output = t.cast(asyncio.StreamReader, process.stdout)
    try:
        async for line in output:
            event = event_in(line, host)
            if event:
                await queue.put(event)
                await asyncio.sleep(PACE)
        return f"the connection has ended with the status {await process.wait()}"
    except ValueError:
        return f"a line is longer than {MAX_LINE} bytes"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # asyncio sees the end only when all that was written is read.
        while await output.read(MAX_LINE):
            pass
        await process.wait()


def event_in(line: bytes, host: str) -> Event | None:
    """The event in a line of a host; None if there is none."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or "event.action" not in fields:
            return None
        # What neither the rule engine nor a file of variables can hold raises ValueError here.
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
        if TEMPLATE.search(text):
            logger.warning(
                "%s: an event that contains the beginning of a template is left out", host
            )
            return None
        return _nested(fields | {"host.name": host})
    except (ValueError, TypeError, RecursionError):
        logger.warning("%s: a line that is not an event is left out", host)
        return None


def _nested(fields: Event) -> Event:
    """Turn dotted names into nested objects. Raises `TypeError` if a name stands for a value and for a group."""
    found: Event = {}
    for name, value in fields.items():
        *groups, last = name.split(".")
        place = found
        for group in groups:
            inner = place.setdefault(group, {})
            if not isinstance(inner, dict):
                raise TypeError(name)
            place = inner
        if last in place:
            raise TypeError(name)
        place[last] = value
    # ansible-rulebook has its own object of this name, which may choose the hosts of a playbook.
    found.pop("meta", None)
    return found
