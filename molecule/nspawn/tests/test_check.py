# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run does what check mode has predicted."""

from __future__ import annotations

import json
from typing import Any

from lab.scenario import HOSTS, info, play, recap

LATE_DENY = "198.51.100.0/24"

testinfra_hosts = HOSTS


def test_check_predicts_what_the_run_does(host: Any) -> None:
    lists = ["-e", json.dumps({"packetwatch_deny__late": [LATE_DENY]})]
    before = info(host, "lists")["lists"]
    predicted = play("site.yml", host, "--check", "--diff", *lists)
    assert f"+deny ansible: {LATE_DENY}" in predicted
    assert recap(predicted)["changed"] == 1
    assert info(host, "lists")["lists"] == before
    done = play("site.yml", host, "--diff", *lists)
    assert f"+deny ansible: {LATE_DENY}" in done
    assert recap(done)["changed"] == 1
    assert info(host, "lists")["lists"]["deny"]["ansible"] == before["deny"]["ansible"] + 1
    assert recap(play("site.yml", host, "--check", "--diff", *lists))["changed"] == 0
    assert recap(play("site.yml", host))["changed"] == 1
    assert info(host, "lists")["lists"] == before
