# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boots of a host whose files were damaged. tests/kernel/test_boot.py has each kind for each file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab.scenario import HOSTS, SSH
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fleet import Fleet
    from lab.machine import Machine

testinfra_hosts = HOSTS

STATE = "/etc/packetwatch"
IMAGE = "/var/lib/packetwatch/boot/confirmed"
SETTINGS = "/etc/default/packetwatch"
# Truncated, binary, a folder, a FIFO, and wrong values.
DAMAGE = f"""
cd {STATE}/current
truncate -s 5 deny.d/ansible.list
head -c 4096 /dev/urandom > policy.d/default.conf
rm interfaces && mkdir interfaces
rm program.c && mkfifo program.c
echo 'PW_PROTECT="1,9,2,.,0"' >> {SETTINGS}
echo 'PW_LIST_MEMORY=big' >> {SETTINGS}
echo 'PW_SELF_HEAL=perhaps' >> {SETTINGS}
"""
LOST_LINK = f"""
rm {STATE}/current && ln -s nowhere {STATE}/current
"""
# Of a newer version, and of another user.
DAMAGED_IMAGE = f"""
sed -i '1s/boot image 1 /boot image 2 /' {IMAGE}
chown nobody {IMAGE}
"""


@contextmanager
def damaged(machine: Machine, script: str) -> Iterator[None]:
    """Damage files and boot; afterwards the files are as they were."""
    keep = f"rm -rf /root/kept; mkdir /root/kept; cp -a {STATE} /root/kept/state; cp -a {SETTINGS} /root/kept/settings\n"
    machine.ssh(["sh", "-e"], stdin=keep + script)
    machine.reboot()
    try:
        yield
    finally:
        restore = f"rm -rf {STATE} {SETTINGS}\ncp -a /root/kept/state {STATE}\ncp -a /root/kept/settings {SETTINGS}\n"
        machine.ssh(["sh", "-e"], stdin=restore)


def assert_filters(fleet: Fleet, machine: Machine) -> None:
    assert connect(fleet.station("denied"), machine.ipv4, SSH, timeout=4.0) is Answer.NONE
    assert connect(fleet.station("client"), machine.ipv4, SSH) is Answer.OPEN


def journal(machine: Machine) -> str:
    return machine.ssh(["journalctl", "-b", "-o", "cat", "-u", "packetwatch*"]).stdout


def status(machine: Machine) -> str:
    done = machine.ssh(["packetwatchctl", "status"], check=False)
    return done.stdout + done.stderr


def test_damaged_texts_open_nothing(host: Any, fleet: Fleet, machine: Machine) -> None:
    with damaged(machine, DAMAGE):
        assert_filters(fleet, machine)
        assert host.service("packetwatch-xdp@eth0.service").is_running
        assert host.service("packetwatch.service").is_running
        said = journal(machine)
        for setting in ("PW_PROTECT", "PW_SELF_HEAL"):
            assert f"a setting is not in force: {setting}" in said
        machine.ssh(["systemctl", "start", "packetwatch-verify.service"], check=False)
        assert "policy.d/default.conf" in status(machine)
    machine.ssh(["systemctl", "restart", "packetwatch.service"])
    machine.ssh(["packetwatchctl", "apply"])


def test_a_lost_link_opens_nothing(fleet: Fleet, machine: Machine) -> None:
    with damaged(machine, LOST_LINK):
        assert_filters(fleet, machine)
        assert f"{STATE}/current points to 'nowhere'" in journal(machine)


def test_a_damaged_image_leaves_it_to_the_files(fleet: Fleet, machine: Machine) -> None:
    with damaged(machine, DAMAGED_IMAGE):
        assert_filters(fleet, machine)
        assert f"cannot use the boot image {IMAGE}" in journal(machine)
        # What was activated is kept anew.
        assert machine.ssh(["stat", "-c", "%U", IMAGE]).stdout == "root\n"
