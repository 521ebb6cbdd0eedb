# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``top`` and ``watch``: what happens now."""

from __future__ import annotations

import argparse
import shutil
import sys

from .. import screen, show, wire
from ..words import printable
from .session import Command, Options, Outcome, Parser, Session, canonical, write


def _top_arguments(parser: Parser) -> None:
    parser.add_argument("--once", action="store_true", help="one page, without control characters")
    parser.add_argument("--interval", type=_interval, default=2.0, metavar="SECONDS")
    parser.add_argument("--most", type=_most, default=10, metavar="COUNT", help="rows of each part")


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds from 0.2 to 3600")
    return seconds


def _most(text: str) -> int:
    count = int(text)
    if not 1 <= count <= wire.MAX_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number from 1 to {wire.MAX_ROWS}")
    return count


def _top(session: Session, options: Options) -> Outcome | None:
    if options.json or options.once or not sys.stdout.isatty():
        result, status = _busiest(session, options.most)
        for note in result.get("notes", []):
            sys.stderr.write(f"packetwatchctl: {printable(note)}\n")
        return Outcome(result, screen.page(result), status)
    try:
        screen.run(
            lambda: _busiest(session, options.most)[0],
            write,
            options.interval,
            lambda: shutil.get_terminal_size().lines,
        )
    except KeyboardInterrupt:
        pass
    return None


def _busiest(session: Session, most: int) -> tuple[wire.Result, int]:
    """What the agent has counted, and the exit status. Root reads from the kernel what the kernel knows."""
    if not session.is_root:
        return session.ask("top", most=most), wire.DONE
    from .. import truth

    known = truth.top(session.host, most)
    try:
        return session.ask("top", most=most) | known, wire.DONE
    except wire.ControlError as error:
        note = f"only what the kernel counts is here, without the agent: {error}"
        return {"sources": [], "ports": [], "scans": [], "notes": [note]} | known, error.status


def _watch_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--action", action="append", default=[], type=_action, metavar="ACTION", help="as ban, scan"
    )
    parser.add_argument("--source", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--count", type=int, metavar="LINES", help="end after so many")


def _action(text: str) -> str:
    if text not in wire.ACTIONS:
        raise argparse.ArgumentTypeError(f"{text!r}: write one of {', '.join(wire.ACTIONS)}")
    return text


def _watch(session: Session, options: Options) -> Outcome | None:
    sources = [canonical(address) for address in options.source]
    with session.agent() as agent:
        left = options.count
        try:
            for found in agent.follow("watch", actions=options.action, sources=sources):
                if isinstance(found, int):
                    sys.stderr.write(f"packetwatchctl: {found} lines were missed\n")
                elif found:
                    write((wire.encode(found) if options.json else show.event(found)) + "\n")
                    left = None if left is None else left - 1
                if left is not None and left <= 0:
                    break
        except KeyboardInterrupt:
            pass
    return None


COMMANDS = {
    "top": Command("talkers, scanners and drops, live", _top_arguments, _top),
    "watch": Command("events as they come", _watch_arguments, _watch),
}
