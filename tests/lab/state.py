# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The record of a lab. It is written before anything of the lab exists, so that any process can remove it.

A run directory holds `lab.json`. The registry in /run holds a directory for each running lab, with a link
`run` to its run directory. All other names follow from the lab's id.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paths import REGISTRY
from lab.process import start_time
from lab.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = "lab.json"
_ID = re.compile(r"[0-9a-f]{6}")


@dataclass(frozen=True)
class State:
    """A lab: its id, its plan, and its owner as (pid, start time), or None if it is kept."""

    lab_id: str
    topology: Topology
    owner: tuple[int, int] | None

    @classmethod
    def new(cls, topology: Topology) -> State:
        """A lab owned by this process."""
        return cls(secrets.token_hex(3), topology, (os.getpid(), start_time(os.getpid())))

    @classmethod
    def read(cls, run_dir: Path) -> State:
        """Read the record in `run_dir`; raises LabError if there is none or it is damaged."""
        path = run_dir / _FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            owner = (
                None if data["owner"] is None else (int(data["owner"][0]), int(data["owner"][1]))
            )
            lab_id = str(data["id"])
            topology = Topology.parse(data["topology"])
        except FileNotFoundError:
            raise LabError(f"no lab in {run_dir}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} is damaged: {error!r}") from error
        # The id becomes part of names that are deleted by pattern.
        if not _ID.fullmatch(lab_id):
            raise LabError(f"{path}: {lab_id!r} is not the id of a lab (six hex digits)")
        return cls(lab_id, topology, owner)

    def write(self, run_dir: Path) -> None:
        """Write the record, as a whole or not at all."""
        data = {"id": self.lab_id, "owner": self.owner, "topology": self.topology.dump()}
        fresh = run_dir / f"{_FILE}.new"
        fresh.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        fresh.replace(run_dir / _FILE)

    def kept(self) -> State:
        """The same lab without an owner: it stays until a user takes it down."""
        return replace(self, owner=None)

    def abandoned(self) -> bool:
        """Whether the lab has an owner whose process has ended."""
        return self.owner is not None and start_time(self.owner[0]) != self.owner[1]


def forget(run_dir: Path) -> None:
    """Delete the record of a lab."""
    (run_dir / _FILE).unlink(missing_ok=True)


def registered(lab_id: str) -> Path:
    """The registry's directory for a lab; also where its Unix sockets are."""
    return REGISTRY / lab_id


def register(lab_id: str, run_dir: Path) -> None:
    """Add a lab to the registry."""
    entry = registered(lab_id)
    entry.mkdir(parents=True, mode=0o700)
    (entry / "run").symlink_to(run_dir)


def unregister(lab_id: str) -> None:
    """Remove a lab from the registry."""
    shutil.rmtree(registered(lab_id), ignore_errors=True)


def labs() -> Iterator[tuple[str, Path | None]]:
    """The id of each registered lab, and its run directory, or None if that has disappeared."""
    for entry in sorted(REGISTRY.glob("*")):
        if _ID.fullmatch(entry.name):
            run_dir = (entry / "run").resolve()
            yield entry.name, run_dir if (run_dir / _FILE).is_file() else None
