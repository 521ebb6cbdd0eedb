# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""examples/import_lists.py on what other tools print: ipset and nft here and now, the others when it was noted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from packetwatch_core._declared.entries import entries_from_input

SCRIPT = Path(__file__).resolve().parents[2] / "examples/import_lists.py"
FOR_EVER = "203.0.113.9 \t2026-11-29 15:12:01 + -1 = 9999-12-31 23:59:59\n"
# fail2ban 1.0.2: `fail2ban-client get sshd banip --with-time`, and `get sshd ignoreip`.
FAIL2BAN = """203.0.113.9 \t2096-11-29 15:12:01 + 600 = 2096-11-29 15:22:01
2001:db8::7 \t2016-11-29 15:12:01 + 600 = 2016-11-29 15:22:01
198.51.100.4 \t2026-11-29 15:12:01 + -1 = 9999-12-31 23:59:59
"""
IGNORED = """These IP addresses/networks are ignored:
|- 127.0.0.0/8
`- 192.0.2.0/24
"""
# CrowdSec 1.4.6: `cscli decisions list -o json`, of each alert only what differs.
CROWDSEC = [
    ("Ip", "203.0.113.9", "ban", "3h59m58.417112396s", "crowdsecurity/ssh-bf"),
    ("Range", "198.51.100.0/24", "ban", "1h29m58.417114869s", "manual 'ban' from 'x'"),
    ("Ip", "192.0.2.7", "captcha", "3h59m58s", "manual"),
    ("Country", "XX", "ban", "3h59m58s", "manual"),
    ("Ip", "2001:db8::7", "ban", "-3h0m58.1s", "expired"),
]
NFT = """
add table inet filter
add set inet filter blocked { type ipv4_addr; flags interval; }
add element inet filter blocked { 203.0.113.0/24, 198.51.100.7, 192.0.2.1-192.0.2.5 comment "part ner" }
add set inet filter blocked6 { type ipv6_addr; flags interval; }
add element inet filter blocked6 { 2001:db8::/48 }
add set inet filter banned { type ipv4_addr; flags timeout; }
add element inet filter banned { 198.51.100.9 timeout 10m comment "ssh" }
add set inet filter ports { type inet_service; }
add element inet filter ports { 22 }
"""
IPSET = """create bad hash:net comment timeout 0
add bad 203.0.113.0/24 comment "scan ners" timeout 600
add bad 198.51.100.4
add bad 192.0.2.9 nomatch
create bad6 hash:ip family inet6
add bad6 2001:db8::7
create pairs hash:ip,port
add pairs 192.0.2.1,tcp:80
"""


class Done(NamedTuple):
    status: int
    variables: dict[str, list[dict[str, str]]]
    complaints: list[str]


def convert(text: str, *options: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *options],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    variables: dict[str, Any] = yaml.safe_load(done.stdout) or {}
    for name, entries in variables.items():
        # The role takes them.
        assert len(entries_from_input(entries, name)) == len(entries)
    return Done(done.returncode, variables, done.stderr.splitlines())


def addresses(done: Done) -> dict[str, str]:
    """Address and comment of each entry of the only variable."""
    assert done.status == 0, done.complaints
    (entries,) = done.variables.values()
    return {entry["address"]: entry["comment"] for entry in entries}


def printed(script: str) -> str:
    """What a tool prints in a network namespace of its own."""
    argv = ["unshare", "--net", "sh", "-euc", script]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_nft() -> None:
    done = convert(printed(f"nft -f - <<'END'\n{NFT}END\nnft -j list ruleset"), "nft")
    assert addresses(done) == {
        "203.0.113.0/24": "blocked",
        "198.51.100.7/32": "blocked",
        "192.0.2.1/32": "blocked: part ner",
        "192.0.2.2/31": "blocked: part ner",
        "192.0.2.4/31": "blocked: part ner",
        "2001:db8::/48": "blocked6",
        "198.51.100.9/32": "banned: ssh",
    }
    (entries,) = done.variables.values()
    assert [entry["address"] for entry in entries if "expires" in entry] == ["198.51.100.9/32"]


@needs_root
def test_ipset() -> None:
    done = convert(printed(f"ipset restore <<'END'\n{IPSET}END\nipset save"), "ipset")
    assert addresses(done) == {
        "203.0.113.0/24": "bad: scan ners",
        "198.51.100.4/32": "bad",
        "2001:db8::7/128": "bad6",
    }
    assert [line.split(": ")[1] for line in sorted(done.complaints)] == [
        "192.0.2.1,tcp:80",
        "192.0.2.9",
    ]


def test_fail2ban() -> None:
    done = convert(FAIL2BAN, "fail2ban", "--name", "old")
    assert list(done.variables) == ["packetwatch_deny__old"]
    assert addresses(done) == {"203.0.113.9/32": "fail2ban", "198.51.100.4/32": "fail2ban"}
    first, second = done.variables["packetwatch_deny__old"]
    assert first["expires"].startswith("2096-11-29T") or first["expires"].startswith("2096-11-30T")
    assert "expires" not in second
    assert done.complaints == ["left out: 2001:db8::7: expired"]


def test_what_fail2ban_ignores_is_allowed() -> None:
    done = convert(IGNORED, "fail2ban", "--allow")
    assert list(done.variables) == ["packetwatch_allow__imported"]
    assert list(addresses(done)) == ["192.0.2.0/24"]
    assert "127.0.0.0/8" in done.complaints[0]


def test_crowdsec() -> None:
    names = ("scope", "value", "type", "duration", "scenario")
    alerts = [{"decisions": [dict(zip(names, row, strict=True))]} for row in CROWDSEC]
    done = convert(json.dumps(alerts), "crowdsec")
    assert addresses(done) == {
        "203.0.113.9/32": "crowdsec: crowdsecurity/ssh-bf",
        "198.51.100.0/24": "crowdsec: manual 'ban' from 'x'",
    }
    assert all("expires" in entry for entry in done.variables["packetwatch_deny__imported"])
    assert [line.split(": ")[1] for line in done.complaints] == ["192.0.2.7", "XX", "2001:db8::7"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "ipset"),
        ("hello\n", "ipset"),
        ("hello\n", "nft"),
        ("[3]", "crowdsec"),
        ("a b\n", "fail2ban"),
    ],
)
def test_what_another_tool_prints_is_refused(text: str, name: str) -> None:
    done = convert(text, name)
    assert (done.status, done.variables) == (1, {})
    assert "standard input is" in done.complaints[0]


def test_a_name_that_no_variable_may_have_is_refused() -> None:
    done = convert(FOR_EVER, "fail2ban", "--name", "My List")
    assert done.status == 2
    assert "--name 'My List'" in done.complaints[-1]
