# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands on the hosts when the role has run."""

from __future__ import annotations

import os

from testinfra.utils.ansible_runner import AnsibleRunner

testinfra_hosts = AnsibleRunner(os.environ["MOLECULE_INVENTORY_FILE"]).get_hosts("packetwatch")


def test_x(host):
    assert host.file("/etc/lab-seeded").exists
