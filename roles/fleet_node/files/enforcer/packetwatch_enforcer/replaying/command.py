# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line. It needs neither root nor the store."""

from __future__ import annotations

import argparse
import json
import os
import sys
import typing as t

from packetwatch_core._bans.recorded import Recording
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.duration import parse_duration
from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._network.protect import parse_shared
from packetwatch_core._node.rules import read_rules

from ..rules.plugins import FOLDER
from . import report
from .player import Player

_FAILED, _INPUT = 1, 2
_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="packetwatch-enforcer",
        description="Rules of a fleet.",
        epilog="exit status: 0 done; 1 failed, or the recording cannot tell; 2 wrong input",
    )
    commands = found.add_subparsers(dest="name", metavar="replay", required=True)
    summary = "whom rules would have banned, from recorded events of many hosts"
    one = commands.add_parser("replay", help=summary, description=summary, epilog=found.epilog)
    one.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="lines of agents, also compressed by gzip; - is standard input. Lines without a host are of the host that "
        "the file's name begins with, as in web1.jsonl.gz",
    )
    one.add_argument(
        "--rules",
        required=True,
        metavar="FILE",
        help="rules and thresholds, as the role writes them",
    )
    one.add_argument("--rules-folder", default=FOLDER, metavar="FOLDER", help="rules of your own")
    one.add_argument(
        "--never", action="append", default=[], metavar="PREFIX", help="never ban these sources"
    )
    one.add_argument(
        "--shared", default="", metavar="PREFIXES", help="as packetwatch_shared_prefixes"
    )
    one.add_argument(
        "--batch", default="1", metavar="TIME", help="time between two reports of a host"
    )
    one.add_argument("--json", action="store_true", help="for programs")
    return found


def main(arguments: t.Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return _replay(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (PacketwatchError, OSError) as error:
        sys.stderr.write(f"packetwatch-enforcer: {error}\n")
        return _INPUT if isinstance(error, InvalidInput) else _FAILED


def _replay(options: argparse.Namespace) -> int:
    player = Player(
        read_rules(options.rules),
        options.rules_folder,
        [parse_prefix(text) for text in options.never],
        parse_shared(options.shared, "--shared"),
        parse_duration(options.batch, "--batch", 1, 60),
    )
    for line in Recording(options.files):
        player.feed(line)
    player.end()
    found = report.result(player)
    text = json.dumps(found) if options.json else "\n".join(report.lines(found))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return _FAILED if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
