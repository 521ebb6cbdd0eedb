# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's refusals: the real playbook, in check mode, on this machine.

Each run has its own mount and network namespaces, in which this machine looks like a Debian host with
systemd. Each case breaks something there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Makes a host that passes preflight, except for its packages.
HOST = """
set -eu
mount -t tmpfs none /run
mkdir -p /run/systemd/system
umount /sys/fs/bpf 2>/dev/null || true
# sysfs must show the devices of this network namespace.
mount -t sysfs none /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs none /etc/packetwatch 2>/dev/null || true
printf 'ID=debian\\nVERSION_ID="12"\\n' >/run/os-release
mount --bind /run/os-release "$(readlink -f /etc/os-release)"
ip link set lo up
ip link add ether0 type veth peer name ether1
ip tuntap add mode tun name tunnel0
ip link set ether0 up
ip address add 192.0.2.2/24 dev ether0
ip route add default via 192.0.2.1
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def play(variables: dict[str, object], spoil: str = "", wrapper: str = "") -> str:
    """Run the site playbook in check mode and return what it printed; it must fail."""
    playbook = shutil.which("ansible-playbook")
    assert playbook
    arguments = ["-i", "localhost,", "-c", "local", "--check", "packetwatch.xdp.site"]
    extra = {"packetwatch_hosts": "localhost", "ansible_python_interpreter": "/usr/bin/python3"}
    script = f'{HOST}\n{spoil}\nexec {wrapper} "$@"'
    arguments += ["-e", json.dumps(extra | variables)]
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", script, "sh", playbook, *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert "Install Debian's packages" not in done.stdout, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param(
            {"packetwatch_dney": ["192.0.2.7"]},
            "the variable packetwatch_dney is unknown: did you mean packetwatch_deny?",
            id="misspelt variable",
        ),
        pytest.param(
            {"packetwatch_deny__Web": []},
            "the variable packetwatch_deny__Web is unknown: what follows the two underscores",
            id="bad name of a list",
        ),
        pytest.param(
            {"packetwatch_color": "red"},
            "the variable packetwatch_color is unknown",
            id="unknown variable",
        ),
        pytest.param(
            {"packetwatch_action": "enfroce"},
            "packetwatch_action is 'enfroce'; allowed: enforce, monitor, off",
            id="bad choice",
        ),
        pytest.param(
            {"packetwatch_interfaces": ["ether9"]},
            "packetwatch_interfaces[0]: there is no interface 'ether9'; there are: ether0, ether1, lo",
            id="no such interface",
        ),
        pytest.param(
            {"packetwatch_interfaces": ["ether0", "tunnel0"]},
            "packetwatch_interfaces[1]: tunnel0 has no Ethernet header",
            id="tun device",
        ),
        pytest.param(
            {"packetwatch_interfaces": [{"name": "ether0", "scan_port": 3}]},
            "ether0 has the unknown key scan_port: did you mean scan_ports?",
            id="misspelt policy of an interface",
        ),
        pytest.param(
            {"packetwatch_interfaces": [{"name": "ether0", "mode": "fast"}]},
            "ether0 has the mode 'fast': choose one of auto, native, generic",
            id="bad mode",
        ),
    ],
)
def test_bad_variables(variables: dict[str, object], words: str) -> None:
    assert words in play(variables)


@pytest.mark.parametrize(
    ("spoil", "wrapper", "words"),
    [
        pytest.param("", "setarch --uname-2.6", "6.1 or newer is needed", id="old kernel"),
        pytest.param(
            "printf 'ID=fedora\\nPRETTY_NAME=Fedora\\n' >/run/os-release",
            "",
            "the system is Fedora: Debian 12 or 13 is needed",
            id="not Debian",
        ),
        pytest.param(
            "rmdir /run/systemd/system", "", "systemd does not run as PID 1", id="no systemd"
        ),
        pytest.param("umount /sys/fs/bpf", "", "bpffs is not mounted", id="no bpffs"),
        pytest.param(
            "ip route del default",
            "",
            "the host has no default route, whose interface would be filtered",
            id="no default route",
        ),
    ],
)
def test_bad_hosts(spoil: str, wrapper: str, words: str) -> None:
    assert words in play({}, spoil, wrapper)


def test_all_reasons_at_once() -> None:
    text = play(
        {"packetwatch_interfaces": ["tunnel0"]}, "rmdir /run/systemd/system; umount /sys/fs/bpf"
    )
    assert "and nothing was changed: systemd does not run" in text
    assert "; bpffs is not mounted" in text
    assert "; packetwatch_interfaces[0]: tunnel0" in text
