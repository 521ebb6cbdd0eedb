# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run does what check mode has predicted, also on a host that cannot compile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lab.scenario import HOSTS, info, play, recap

LATE_DENY = "198.51.100.0/24"

testinfra_hosts = HOSTS


@pytest.fixture
def without_compiler(host: Any) -> Iterator[None]:
    """Hide compiler and headers from the host, and from dpkg that they are installed."""
    hidden = "/usr/lib/python3/dist-packages/bcc", "/lib/modules"
    for folder in hidden:
        host.check_output(f"mount -t tmpfs none {folder}")
    host.check_output(
        "sed '/^Package: python3-bpfcc$/,/^$/d' /var/lib/dpkg/status >/run/dpkg-status"
        " && mount --bind /run/dpkg-status /var/lib/dpkg/status"
    )
    assert host.run("python3 -c 'from bcc import BPF'").rc != 0
    yield
    for path in (*hidden, "/var/lib/dpkg/status"):
        host.check_output(f"umount {path}")


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


def test_a_filtered_host_needs_no_compiler(host: Any, without_compiler: None) -> None:
    before = info(host, "lists")["lists"]["deny"]["ansible"]
    done = play("site.yml", host, "-e", json.dumps({"packetwatch_deny__late": [LATE_DENY]}))
    assert "the package python3-bpfcc is not in apt's lists" in done
    assert "the program is compiled already" in done
    assert info(host, "lists")["lists"]["deny"]["ansible"] == before + 1
    assert recap(play("site.yml", host))["changed"] == 1
