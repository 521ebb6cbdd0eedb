# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nobody can exhaust a limit of systemd's and so stop what root's units have to do."""

from __future__ import annotations

import datetime
import json
from typing import Any

from lab.scenario import HOSTS, wait_for

testinfra_hosts = HOSTS

EXPIRING = "198.51.100.99"
SECONDS = 10
# The pause of packetwatch-request@.service.
PAUSE = 5
SERVICES = ("packetwatch-apply.service", "packetwatch-heal.service")
ADMIN = (
    "setpriv --reuid=60001 --regid=60001 --groups=$(getent group packetwatch-admin | cut -d: -f3)"
)
# More often than any limit of a unit allows.
ASK = (
    "setpriv --reuid=packetwatch-agent --regid=packetwatch --clear-groups timeout {seconds} sh -c '"
    "cd /run/packetwatch; while :; do touch apply-request heal-request; sleep 0.05; done'"
)
CONNECT = (
    "import socket\n"
    "for each in range(400):\n"
    "    with socket.socket(socket.AF_UNIX) as client:\n"
    "        client.connect('/run/packetwatch-edit.sock')\n"
)


def starts(host: Any, since: str) -> list[int]:
    """How often each of the services was started."""
    rows = host.check_output(
        f"journalctl -u '{SERVICES[0]}' -u '{SERVICES[1]}' --since @{since} -o json --no-pager"
    ).splitlines()
    units = [row["UNIT"] for row in map(json.loads, rows) if row["MESSAGE"].startswith("Starting ")]
    return [units.count(service) for service in SERVICES]


def because(host: Any) -> str:
    return str(json.loads(host.check_output(f"packetwatchctl why {EXPIRING} --json"))["because"])


def test_an_agent_that_asks_for_ever_stops_nobody_else(host: Any) -> None:
    since = host.check_output("date +%s")
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=SECONDS - 2)
    host.check_output(f"packetwatchctl deny {EXPIRING} --expires {ends:%Y-%m-%dT%H:%M:%SZ}")
    host.run(ASK.format(seconds=SECONDS))
    # The timer of entries that expire starts packetwatch-apply.service too.
    wait_for(lambda: because(host) == "unlisted", 10)
    host.check_output(f"systemctl start {' '.join(SERVICES)}")
    host.check_output("systemctl is-active packetwatch-apply.path packetwatch-heal.path")
    asked = starts(host, since)
    # The timer and root start one each, and what was left from before the test may do so.
    assert all(1 < each <= SECONDS / PAUSE + 5 for each in asked), asked
    # Requests are still served.
    host.check_output("touch /run/packetwatch/apply-request /run/packetwatch/heal-request")
    wait_for(lambda: all(map(int.__gt__, starts(host, since), asked)), 4 * PAUSE)
    host.check_output(f"packetwatchctl remove {EXPIRING}")


def test_an_administrator_who_connects_for_ever_stops_nobody_else(host: Any) -> None:
    host.check_output(f'{ADMIN} python3 -c "{CONNECT}"')
    # The connections that were accepted must end first.
    edit = f"{ADMIN} packetwatchctl deny {EXPIRING}"
    wait_for(lambda: host.run(edit).rc == 0)
    host.check_output("systemctl is-active packetwatch-edit.socket")
    host.check_output(f"packetwatchctl remove {EXPIRING}")
