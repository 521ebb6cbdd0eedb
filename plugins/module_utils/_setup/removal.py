# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Removing everything of Packetwatch from a host, whatever part of it is there."""

from __future__ import annotations

import glob
import os
import shutil
import typing as t

from .._change.panic import leave
from .._declared.store import Store
from .._kernel.pins import Pins
from . import accounts, places
from .commands import has_systemd, must, reload_systemd

if t.TYPE_CHECKING:
    from .._base.types import Result, Run

_LOCK_SECONDS = 60.0


def remove(run: Run, check: bool) -> Result:
    """Remove everything. A second attempt finds what the first one left."""
    units = _unit_files()
    data = [path for path in (*places.PINS, *places.DATA) if os.path.lexists(path)]
    commands = accounts.removals()
    found = units + data + [f"{command[0][:-3]} {command[1]}" for command in commands]
    if found and not check:
        _remove_files(run, units)
        for command in commands:
            must(run, *command)
        if units:
            _forget_units(run)
    return {
        "changed": bool(found),
        "diff": {"before": "".join(f"{path}\n" for path in found), "after": ""},
    }


def delete(path: str) -> None:
    """Delete what is at a path, if anything."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def remove_empty(folders: t.Iterable[str]) -> None:
    """Remove those folders that are there and empty."""
    for folder in folders:
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)


def _unit_files() -> list[str]:
    """The role's units and the links that enable them."""
    folders = (places.UNITS, f"{places.UNITS}/*.wants")
    return [
        path
        for folder in folders
        for name in places.UNIT_PATTERNS
        for path in glob.glob(f"{folder}/{name}")
    ]


def _remove_files(run: Run, units: t.Sequence[str]) -> None:
    if has_systemd():
        # Stopping a unit detaches nothing; but no unit may attach again from here on.
        run(("systemctl", "stop", *places.UNIT_PATTERNS), None)
    with Store().lock(_LOCK_SECONDS):
        # The other programs of dispatchers go on.
        for mark in Pins().member_marks():
            leave(Pins(), mark)
        for path in (*units, *places.PINS, *places.DATA):
            delete(path)
    remove_empty(places.FOLDERS)


def _forget_units(run: Run) -> None:
    # systemctl enable made these folders for the links of units that attach.
    remove_empty(glob.glob(f"{places.UNITS}/sys-subsystem-net-devices-*.device.wants"))
    reload_systemd(run)
    if has_systemd():
        run(("systemctl", "reset-failed", "packetwatch*"), None)
