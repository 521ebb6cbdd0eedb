# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``top`` and ``watch``: what happens now."""

from __future__ import annotations

import argparse
import shutil
import sys

from .. import screen, show, wire
from .session import Command, Options, Outcome, Parser, Session, canonical, write


def _top_arguments(parser: Parser) -> None:
    parser.add_argument("--once", action="store_true", help="one page, without control characters")
    parser.add_argument("--interval", type=_interval, default=2.0, metavar="SECONDS")
    parser.add_argument("--most", type=int, default=10, metavar="COUNT", help="rows of each part")


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds from 0.2 to 3600")
    return seconds


def _top(session: Session, options: Options) -> Outcome | None:
    with session.agent() as agent:

        def ask() -> wire.Result:
            return agent.ask("top", most=options.most)

        if options.json or options.once or not sys.stdout.isatty():
            result = ask()
            return Outcome(result, screen.page(result))
        try:
            screen.run(ask, write, options.interval, lambda: shutil.get_terminal_size().lines)
        except KeyboardInterrupt:
            pass
    return None


def _watch_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--action", action="append", default=[], type=_action, metavar="ACTION", help="as ban, scan"
    )
    parser.add_argument("--source", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--count", type=int, metavar="LINES", help="end after so many")


def _action(text: str) -> str:
    if not (text.isascii() and text.replace("_", "").isalpha()):
        raise argparse.ArgumentTypeError(f"{text!r}: write an event.action, such as ban")
    return text


def _watch(session: Session, options: Options) -> Outcome | None:
    sources = [canonical(address) for address in options.source]
    with session.agent() as agent:
        agent.send("watch", actions=options.action, sources=sources)
        left = options.count
        try:
            while left is None or left > 0:
                answer = agent.receive()
                agent.wait(None)
                if answer.get("ok") is False:
                    raise wire.error_of(answer)
                if "missed" in answer:
                    sys.stderr.write(f"packetwatchctl: {answer['missed']} lines were missed\n")
                line = answer.get("item")
                if isinstance(line, dict):
                    write((wire.encode(line) if options.json else show.event(line)) + "\n")
                    left = None if left is None else left - 1
        except KeyboardInterrupt:
            pass
    return None


COMMANDS = {
    "top": Command("talkers, scanners and drops, live", _top_arguments, _top),
    "watch": Command("events as they come", _watch_arguments, _watch),
}
