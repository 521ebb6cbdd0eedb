# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes of operators: the message of each, and a host that stays as it was.

One run of the site playbook has a host for each mistake. All of them are the same simulated host, which
writes its files to memory, so that every changed file can be found.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.integration.conftest import COLLECTIONS, PYTHON, ModuleHost, make_host

pytestmark = pytest.mark.slow

FAILED = re.compile(r"^fatal: \[(\S+)\]: FAILED! => (.*)$", re.MULTILINE)
REFUSED = "Packetwatch refuses this run, and nothing was changed: "
VAULT = """\
packetwatch_deny: !vault |
  $ANSIBLE_VAULT;1.1;AES256
  66386439653236336462626566653063336164663966303231363934653561363964363833313662
  6431626536303530376336343832656537303632313433360a626438346336353331386135323734
  62656334386135666463383230623466613434663766633662376231623131656630326437303139
  3265386134633433320a333963666334646530313235373338396539353037666462663963643837
  3463
"""
# What a host needs to pass, except for its packages.
DEBIAN = """
mkdir -p /run/systemd/system
printf 'ID=debian\\nVERSION_ID="12"\\n' >/run/os-release
mount --bind /run/os-release "$(readlink -f /etc/os-release)"
"""
# All files that were made, changed or removed since the host was made; pins; attached programs.
DIGEST = """
find /mnt/etc/upper /mnt/var/lib/upper /mnt/usr/lib/upper /mnt/usr/local/upper /sys/fs/bpf \\
    -printf '%p %y %m %u %g %l\\n' | sort
find /mnt -path '*/upper/*' -type f -exec sha256sum {} + | sort
ip -o link show
"""

DURATION = "up to 6 decimals, or a time such as 30s, 10m, 2h, 7d"
"""End of the messages about durations."""

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a list inside a list": (
        {"packetwatch_deny": [["192.0.2.7"]]},
        "packetwatch_deny[0]: ['192.0.2.7'] is a list inside a list: write its entries one level up, or "
        "join the lists with +",
    ),
    "an empty entry": (
        {"packetwatch_deny": ["198.51.100.7", None]},
        "packetwatch_deny[1]: the entry is empty: write an address after its dash, or remove it",
    ),
    "a number as entry": (
        {"packetwatch_deny": [10.1]},
        "packetwatch_deny[0]: 10.1 is a number, not the text of an address: put the address in quotes",
    ),
    "bits after the prefix length": (
        {"packetwatch_deny": ["198.51.100.7/24"]},
        "packetwatch_deny[0]: '198.51.100.7/24' has bits set after its prefix length: write "
        "198.51.100.0/24 for the network or 198.51.100.7 for the single address",
    ),
    "a colon after an address": (
        {"packetwatch_deny": [{"198.51.100.0/24": "scrapers"}]},
        "packetwatch_deny[0]: 198.51.100.0/24: scrapers is a dictionary, because of the colon: write "
        "address: 198.51.100.0/24 and, on a line below it, comment: TEXT",
    ),
    "a date as expiry": (
        {"packetwatch_deny": [{"address": "198.51.100.7", "expires": "2027-01-01"}]},
        "packetwatch_deny[0]: expires=2027-01-01 is not a time with a zone: write it in the format of RFC "
        "3339, such as 2026-12-01T00:00:00Z or 2026-12-01T00:00:00+01:00",
    ),
    "a dictionary as list": (
        {"packetwatch_deny": {"192.0.2.7": None}},
        "packetwatch_deny is {'192.0.2.7': None}, a dictionary: write a list of addresses and prefixes, "
        "or [] for none",
    ),
    "null as list": (
        {"packetwatch_deny": None},
        "packetwatch_deny is empty: write a list of addresses and prefixes, or [] for none",
    ),
    "a text as list": (
        {"packetwatch_allow__ops": "192.0.2.7"},
        "packetwatch_allow__ops is '192.0.2.7', a text: write a list of addresses and prefixes, or [] for "
        "none",
    ),
    "an undefined variable": (
        {"packetwatch_deny": "{{ denied_sources }}"},
        "packetwatch_deny cannot be evaluated: 'denied_sources' is undefined; define that variable for "
        "the host",
    ),
    "one underscore": (
        {"packetwatch_deny_web": ["198.51.100.7"]},
        "the variable packetwatch_deny_web is unknown: did you mean packetwatch_deny__web, with two "
        "underscores?",
    ),
    "a misspelt name": (
        {"packetwatch_dney": ["198.51.100.7"]},
        "the variable packetwatch_dney is unknown: did you mean packetwatch_deny?",
    ),
    "minutes in words": (
        {"packetwatch_ban_time": "10 minutes"},
        f"packetwatch_ban_time is '10 minutes'; allowed: seconds from 1 to 31536000, {DURATION}",
    ),
    "a maximum below the minimum": (
        {"packetwatch_ban_time": "2h", "packetwatch_ban_time_max": "1h"},
        "packetwatch_ban_time_max is 3600, less than ban_time, which is 7200; raise ban_time_max or leave "
        "it out",
    ),
    "a fraction": (
        {"packetwatch_scan_ports": 5.5},
        "packetwatch_scan_ports is '5.5'; allowed: a whole number from 1 to 64",
    ),
    "a misspelt choice": (
        {"packetwatch_action": "enfroce"},
        "packetwatch_action is 'enfroce'; allowed: enforce, monitor, off",
    ),
    "a misspelt state": (
        {"packetwatch_state": "presnt"},  # codespell:ignore
        "packetwatch_state is 'presnt'; allowed: present, absent",
    ),
    "neither yes nor no": (
        {"packetwatch_self_heal": "maybe"},
        "packetwatch_self_heal is 'maybe', a text: write true or false",
    ),
    "protected sources as text": (
        {"packetwatch_protect": "192.0.2.9"},
        "packetwatch_protect is '192.0.2.9', a text: write a list, or [] for none",
    ),
    "a number of MiB with a fraction": (
        {"packetwatch_list_memory": "128.0"},
        "packetwatch_list_memory is '128.0': write MiB, from 1 to 65536, as a whole number",
    ),
    "ports as text": (
        {"packetwatch_published_ports": "8080"},
        "packetwatch_published_ports is '8080', a text: write a list, or [] for none",
    ),
    "interfaces as text": (
        {"packetwatch_interfaces": "pw0"},
        "packetwatch_interfaces is 'pw0', a text: write a list, or [] for none",
    ),
    "an interface that is not there": (
        {"packetwatch_interfaces": ["pw9"]},
        "packetwatch_interfaces[0]: there is no interface 'pw9'; there are: lo, pw0",
    ),
    "a user that is not there": (
        {"packetwatch_admins": ["nobody-here"]},
        "packetwatch_admins[0] is 'nobody-here', which is not a user of this host: make the user first, or "
        "take the name off the list",
    ),
    "a port alone": (
        {"packetwatch_metrics_listen": 9477},
        "packetwatch_metrics_listen is '9477': write ADDRESS:PORT, such as 127.0.0.1:9477 or [::1]:9477, "
        "or leave it empty for no metrics",
    ),
    "little time to confirm": (
        {"packetwatch_confirm_timeout": 5},
        "packetwatch_confirm_timeout is 5; allowed: seconds, or a time such as 90s or 2m, from 10 to 3600 "
        "seconds, or 0 to confirm everything at once",
    ),
    "a feed without source": (
        {"packetwatch_feeds": [{"name": "a"}]},
        "packetwatch_feeds[0]: a: one of the following is required: url, path, preset",
    ),
    "a misspelt option of a feed": (
        {"packetwatch_feeds": [{"name": "a", "url": "https://x.example/", "maxage": "1d"}]},
        "packetwatch_feeds[0]: a has the unknown option maxage: did you mean max_age?",
    ),
    "a feed's age in words": (
        {"packetwatch_feeds": [{"name": "a", "url": "https://x.example/", "max_age": "soon"}]},
        f"packetwatch_feeds[0]: a: max_age is 'soon'; allowed: seconds from 0 to 31536000, {DURATION}",
    ),
    # Of a run, all mistakes are named at once; those of other cases would be too.
    "no become, and two more": (
        {
            "ansible_become_user": "nobody",
            "ansible_become_method": "su",
            "ansible_become_flags": "-s /bin/sh",
            "packetwatch_heartbeat_interval": "1s",
            "packetwatch_allow": ["x"],
        },
        "the role needs root, but runs as the user 65534: set become: true for the play; "
        "packetwatch_allow[0]: 'x' is not an IP address or prefix (host names are not resolved): write an "
        "address or a prefix such as 192.0.2.7, 203.0.113.0/24 or 2001:db8::/32; "
        f"packetwatch_heartbeat_interval is '1s'; allowed: seconds from 10 to 86400, {DURATION}",
    ),
}
# Its message depends on the resolvers of this machine.
DENY_ALL = re.compile(
    r"the lists would deny protected addresses: .*192\.0\.2\.1 \(own address\).*, "
    r"by 0\.0\.0\.0/0 \(packetwatch_deny__all\[0\]\); allow them with entries that do not expire, or remove "
    r"the deny entries"
)
VAULTED = (
    "packetwatch_deny cannot be evaluated: Attempting to decrypt but no vault secrets found; give the "
    "password with --ask-vault-pass or --vault-password-file"
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleHost]:
    with make_host(tmp_path_factory.mktemp("host")) as found:
        found.command("sh", "-euc", DEBIAN)
        yield found


def play(host: ModuleHost, *arguments: str) -> tuple[int, str]:
    """Run a playbook on the simulated host; return its status and output."""
    done = subprocess.run(
        [*host.enter, "ansible-playbook", *arguments],
        env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def refusals(
    host: ModuleHost, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], str, str]:
    """The message for each mistake, and the digests of the host before and after the run."""
    folder = tmp_path_factory.mktemp("inventory")
    names = {f"m{index:02}": name for index, name in enumerate((*MISTAKES, "deny all", "vaulted"))}
    hosts = {key: MISTAKES.get(name, ({}, ""))[0] for key, name in names.items()}
    keys = {name: key for key, name in names.items()}
    hosts[keys["deny all"]] = {"packetwatch_deny__all": ["0.0.0.0/0"]}
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": PYTHON,
        "packetwatch_interfaces": ["pw0"],
    }
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"packetwatch": {"hosts": hosts, "vars": variables}}))
    (folder / "host_vars").mkdir()
    (folder / "host_vars" / f"{keys['vaulted']}.yml").write_text(VAULT)
    before = host.command("sh", "-euc", DIGEST)
    status, output = play(host, "-i", str(inventory), "-f", "4", "packetwatch.xdp.site")
    assert status == 2, output
    messages = {names[key]: json.loads(text)["msg"] for key, text in FAILED.findall(output)}
    return messages, before, host.command("sh", "-euc", DIGEST)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name: str, refusals: tuple[dict[str, str], str, str]) -> None:
    assert refusals[0][name] == REFUSED + MISTAKES[name][1]


def test_list_without_the_password_of_its_vault(
    refusals: tuple[dict[str, str], str, str],
) -> None:
    assert refusals[0]["vaulted"] == REFUSED + VAULTED


def test_deny_of_everything_names_the_entry(refusals: tuple[dict[str, str], str, str]) -> None:
    found = refusals[0]["deny all"].removeprefix(REFUSED)
    assert DENY_ALL.fullmatch(found), found


def test_the_host_stays_as_it_was(
    host: ModuleHost, refusals: tuple[dict[str, str], str, str]
) -> None:
    dummy, before, after = refusals
    assert len(refusals[0]) == len(MISTAKES) + 2
    assert after == before
    host.command("touch", "/etc/default/packetwatch")
    assert host.command("sh", "-euc", DIGEST) != after, "the digest shows a file"


def test_null_as_option_of_the_module(host: ModuleHost) -> None:
    done = host.ansible("access_lists", allow=["192.0.2.7"], deny=None)
    assert done["failed"]
    assert done["msg"].startswith(
        "deny is empty (null), and nothing was changed: write a list of entries, or [] for none, or leave "
        "deny out to keep the list as it is"
    )


@pytest.mark.parametrize("playbook", ["site", "panic", "remove", "report", "rollback", "unban"])
def test_inventory_without_the_group(host: ModuleHost, playbook: str) -> None:
    options = ["-i", "web1,", "-c", "local", f"packetwatch.xdp.{playbook}"]
    status, output = play(host, *options)
    assert status == 2, output
    (message,) = [json.loads(text)["msg"] for dummy, text in FAILED.findall(output)]
    assert message == (
        "the inventory has no host that matches packetwatch, so nothing was done: put the hosts into the "
        "group packetwatch, or name them with -e packetwatch_hosts=PATTERN"
    )
