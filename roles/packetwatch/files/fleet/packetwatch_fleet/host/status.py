# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``packetwatchctl fleet`` and ``why`` ask: commands on the fleet process's own control socket."""

from __future__ import annotations

import os
import typing as t

from packetwatch_agent.control import wire
from packetwatch_agent.control.requests import Command
from packetwatch_agent.control.rights import CHANGE, READ
from packetwatch_agent.metrics import GAUGE, Rows, Values
from packetwatch_agent.part import Part

from ..fold import Board
from ..sources import Sources
from .applier import Applier
from .picture import Picture
from .witness import Witness


class Status(Part):
    """Answers for all parts."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_fleet_resident_memory_bytes": (GAUGE, "Memory of the fleet process."),
    }

    def __init__(
        self,
        picture: Picture,
        applier: Applier,
        witness: Witness,
        board: Board,
        sources: Sources,
    ) -> None:
        self._picture = picture
        self._applier = applier
        self._witness = witness
        self._board = board
        self._sources = sources

    def values(self) -> Values:
        return {"packetwatch_fleet_resident_memory_bytes": [({}, resident())]}

    def commands(self) -> t.Mapping[str, Command]:
        return {
            "fleet": Command(READ, self._fleet),
            "fleet_why": Command(READ, self._why),
            "fleet_release": Command(CHANGE, self._release),
        }

    def _fleet(self, dummy: wire.Request) -> wire.Result:
        applier = self._applier
        return {
            "store": self._picture.summary(),
            "agent": {
                "bans": applier.in_kernel,
                "missing": applier.missing,
                "refused": dict(applier.refused),
                "problem": applier.problem,
            },
            "reports": self._witness.summary(),
        }

    def _why(self, request: wire.Request) -> wire.Result:
        """What the fleet says about one address."""
        source = self._sources.of(wire.text_of(request, "address"))
        ban = self._picture.ban(source)
        lift = self._board.lift(source)
        skew = self._picture.skew() or 0.0
        found: dict[str, t.Any] | None = None
        if ban:
            found = {
                "enforcer": ban.enforcer,
                "rule": ban.rule,
                "evidence": ban.evidence,
                "hosts": ban.seen,
                "since": round(ban.made + skew, 3),
                "until": round(ban.until + skew, 3),
            }
            explained = self._picture.explanation(source, ban.enforcer, ban.rule)
            if explained:
                found |= {"why": explained.why, "at": explained.hosts, "ports": explained.ports}
        return {
            "source": source,
            "ban": found,
            "decisions": len(self._board.rows(source)),
            "lifted": round(lift.before + skew, 3) if lift else None,
        }

    def _release(self, dummy: wire.Request) -> wire.Result:
        count = self._picture.release()
        return {"changed": bool(count), "message": f"{count} bans that were kept are lifted"}


def resident() -> int:
    """The memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
