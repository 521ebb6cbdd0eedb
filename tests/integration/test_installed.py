# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's life with the collection. The gates of releases run this from a tarball that they have installed."""

from __future__ import annotations

from pathlib import Path

from tests.integration.fleet import make_fleet

DENIED = "198.51.100.7"
# Everything of ours on a host, but the notes of the stand-in for systemd.
FOLDERS = "/etc /run /usr/lib /usr/local /var/lib /sys/fs/bpf"
FILES = f"find {FOLDERS} -path /run/units -prune -o -name '*packetwatch*' -print"


def test_a_host_is_set_up_reported_and_cleaned(tmp_path: Path) -> None:
    with make_fleet(1, tmp_path, attach=False) as fleet:
        fleet.variables["packetwatch_deny"] = [DENIED]
        host = fleet.hosts["h01"]
        done = fleet.play("packetwatch.xdp.site")
        assert done.status == 0, done.output
        assert (host.mode("pw0"), fleet.denied("h01")) == ("xdp", f"{DENIED}\n")
        assert host.command("sh", "-c", FILES) != ""
        done = fleet.play("packetwatch.xdp.report")
        assert done.status == 0, done.output
        assert "all 1 hosts are as they should be" in done.output
        done = fleet.play("packetwatch.xdp.remove")
        assert done.status == 0, done.output
        assert (host.mode("pw0"), host.command("sh", "-c", FILES)) == ("", "")
