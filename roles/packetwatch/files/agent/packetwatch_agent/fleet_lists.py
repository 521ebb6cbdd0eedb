# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one-shot that takes the lists of the fleet, until their file does not change any more.

systemd starts it when the file has changed, and does not see changes while it runs.
"""

from __future__ import annotations

import os
import time
import typing as t

from packetwatch_core._base.errors import Locked, PacketwatchError, Pending
from packetwatch_core._host.fleet import take_lists

from .control.words import count

if t.TYPE_CHECKING:
    from packetwatch_core._host.fleet import Taken
    from packetwatch_core._host.host import Host

# The fleet process may write as often as it likes. So one-shots must take turns with pauses, and end.
PAUSE, MAX_TURNS = 5.0, 20

Say = t.Callable[[str], None]


def follow(
    host: Host,
    path: str,
    kinds: t.Collection[str],
    say: Say,
    complain: Say,
    pause: float = PAUSE,
) -> None:
    """Take the lists; after a pause, take them again if the file has changed, or if a change was pending.

    Raises the error of the last turn.
    """
    for dummy in range(MAX_TURNS):
        seen = _version(path)
        trouble: PacketwatchError | None = None
        try:
            taken = take_lists(host, path, kinds)
            _report(taken, say, complain)
        except PacketwatchError as error:
            trouble = error
        time.sleep(pause)
        waits = isinstance(trouble, (Locked, Pending))
        if not waits and _version(path) == seen:
            break
    if trouble:
        raise trouble


def _report(taken: Taken | None, say: Say, complain: Say) -> None:
    if taken is None:
        say("the fleet has no lists yet")
        return
    counts = ", ".join(f"{number} {kind}" for kind, number in taken.counts.items())
    say(
        f"lists of the fleet {'are active now' if taken.changed else 'have not changed'}: {counts or 'none'}"
    )
    if taken.ignored:
        entries = count(taken.ignored, "entry", "entries")
        complain(f"{entries} of the fleet ignored (packetwatch_fleet_lists)")
    if taken.left_out:
        complain(
            f"entries of the fleet are left out, because they match protected addresses or networks of this "
            f"host: {', '.join(taken.left_out)}"
        )
    for problem in taken.problems:
        complain(problem)


def _version(path: str) -> tuple[int, ...] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
