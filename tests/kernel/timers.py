# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replaces systemd: it records timers; the tests decide when a timer fires."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernel import hosting
from kernel.hosting import Site

from packetwatch_core._host.host import Host

UNIT = "packetwatch-rollback"


class Timers:
    """Makes the folders that the library reads, and replaces systemd-run and systemctl."""

    def __init__(self, site: Site) -> None:
        self.timer = Path(site.paths.runtime) / "transient" / f"{UNIT}.timer"
        self.timer.parent.mkdir(parents=True)
        (Path(site.paths.runtime) / "system").mkdir()
        units = Path(site.paths.units)
        units.mkdir()
        (units / f"{UNIT}.service").touch()
        self.compilers = 0
        self.refuse = False
        self.host = Host(self.run, site.paths)

    @property
    def armed(self) -> bool:
        return self.timer.exists()

    def run(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        if argv[0] == "systemd-run":
            if self.refuse:
                return 1, "", "no such luck"
            assert f"--unit={UNIT}.service" in argv
            assert not self.armed
            self.timer.write_text(" ".join(argv))
            return 0, "", ""
        if argv[0] == "systemctl":
            self.timer.unlink()
            return 0, "", ""
        self.compilers += 1
        return hosting.run(argv, stdin)
