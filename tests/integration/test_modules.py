# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules on the running kernel: check, apply, again, again in check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import ModuleHost

SOURCES = Path(__file__).parents[2] / "roles" / "packetwatch" / "files" / "bpf"
PEER = "192.0.2.7"
PEER6 = "2001:db8:1::7"
HOST = "192.0.2.1"
HOST6 = "2001:db8:1::1"


def test_lists_before_anything_is_attached(host: ModuleHost) -> None:
    predicted, done, dummy, dummy = host.four_times(
        "access_lists", allow=[PEER], deny=["192.0.2.0/28", "198.51.100.0/24"], force=True
    )
    assert predicted["counts"] == done["counts"]
    assert predicted["digest_after"] == done["digest_after"]
    assert done["digest_before"] == ""
    assert done["live"] is False
    assert "198.51.100.0/24" in predicted["diff"]["after"]
    files = host.files()
    assert files["allow.d/ansible.list"] == f"{PEER}\n"
    assert files["deny.d/ansible.list"] == "192.0.2.0/28\n198.51.100.0/24\n"


def test_check_mode_touches_nothing(host: ModuleHost) -> None:
    assert host.module("access_lists", check=True, deny=["198.51.100.7"])["changed"] is True
    assert host.module("policy", check=True, scan_ports=3)["changed"] is True
    attached = host.module("program", check=True, interface="pw0")
    assert attached["changed"] is True
    assert attached["mode"] == "unknown until attached"
    detached = host.module("program", check=True, interface="pw0", state="detached")
    assert detached["changed"] is False
    assert host.mode("pw0") == ""
    assert host.command("ls", "/sys/fs/bpf").split() == ["maps.debug", "progs.debug"]
    for path in ("/etc/packetwatch", "/var/lib/packetwatch"):
        assert host.command("find", path, check=False) == ""


def test_policy(host: ModuleHost) -> None:
    host.four_times("policy", scan_ports=3, scan_counts="any", published_ports=[8080, "9000-9010"])
    host.four_times("policy", interface="pw0", action="monitor")
    files = host.files()
    assert files["policy.d/pw0.conf"] == "PW_ACTION=monitor\n"
    assert files["policy.d/default.conf"] == (
        "PW_SCAN_PORTS=3\nPW_SCAN_COUNTS=any\nPW_PUBLISHED_PORTS=8080,9000-9010\n"
    )
    host.four_times("policy", interface="pw0", replace=True)
    assert "policy.d/pw0.conf" not in host.files()


def test_attach_and_detach(host: ModuleHost) -> None:
    dummy, attached, again, predicted = host.four_times("program", interface="pw0")
    assert attached["mode"] in ("native", "generic")
    assert host.mode("pw0") == {"native": "xdp", "generic": "xdpgeneric"}[attached["mode"]]
    assert again["program_id"] == predicted["program_id"] == attached["program_id"]
    assert again["mode"] == predicted["mode"] == attached["mode"]
    assert host.files()["interfaces"] == "pw0 auto\n"
    host.four_times("program", interface="pw0", state="detached")
    assert host.mode("pw0") == ""
    assert host.files()["interfaces"] == ""


def test_attach_in_generic_mode(host: ModuleHost) -> None:
    results = host.four_times("program", interface="pw0", mode="generic")
    assert {result["mode"] for result in results} == {"generic"}
    assert host.mode("pw0") == "xdpgeneric"


def test_lists_and_policy_are_obeyed_live(host: ModuleHost) -> None:
    host.module("program", interface="pw0")
    assert host.peer_reaches(HOST)
    assert host.peer_reaches(HOST6)
    done = host.four_times("access_lists", deny=[PEER, f"{PEER6}/128"], force=True)[1]
    assert done["live"] is True
    assert done["digest_before"] != done["digest_after"]
    assert not host.peer_reaches(HOST)
    assert not host.peer_reaches(HOST6)
    host.four_times("access_lists", allow=["192.0.2.0/29"])
    assert host.peer_reaches(HOST)
    assert not host.peer_reaches(HOST6)
    host.four_times("policy", interface="pw0", action="monitor")
    assert host.peer_reaches(HOST6)
    host.four_times("policy", interface="pw0", replace=True)
    assert not host.peer_reaches(HOST6)
    host.four_times("access_lists", state="absent")
    assert host.peer_reaches(HOST6)


def test_a_changed_source_replaces_the_program(host: ModuleHost, text_file: Any) -> None:
    before = host.module("program", interface="pw0")
    host.module("access_lists", deny=[PEER], force=True)
    own = Path(host.source).read_text()
    other = own.replace("#define PW_EXT_MAX 8", "#define PW_EXT_MAX 7")
    assert other != own
    changed = text_file("ours.c", other)
    after = host.four_times("program", interface="pw0", src=changed)[1]
    assert after["program_id"] != before["program_id"]
    assert not host.peer_reaches(HOST)


def test_the_action_plugin_brings_the_collections_source(host: ModuleHost) -> None:
    predicted = host.ansible("program", check=True, interface="pw0")
    assert (predicted["changed"], predicted["mode"]) == (True, "unknown until attached")
    attached = host.ansible("program", interface="pw0")
    assert attached["changed"] is True
    again = host.module("program", interface="pw0")
    assert again["changed"] is False
    assert again["program_id"] == attached["program_id"]


def test_the_action_plugin_brings_a_users_source(host: ModuleHost, text_file: Any) -> None:
    body = (SOURCES / "packetwatch.bpf.c").read_text()
    ours = text_file("ours.bpf.c", f"#undef PW_EXT_MAX\n#define PW_EXT_MAX 7\n{body}")
    host.module("program", interface="pw0")
    assert host.ansible("program", interface="pw0", src=ours)["changed"] is True
    assert host.ansible("program", check=True, interface="pw0", src=ours)["changed"] is False
    bad = text_file("bad.bpf.c", '#include "no_such.h"\n')
    result = host.ansible("program", interface="pw0", src=bad)
    assert result["failed"] is True
    assert "no_such.h" in result["msg"]


def test_the_action_plugin_brings_a_next_program(host: ModuleHost, text_file: Any) -> None:
    header = text_file("verdict.h", "static int verdict(void) { return XDP_PASS; }\n")
    text = '#include <uapi/linux/bpf.h>\n#include "verdict.h"\n'
    source = text_file("next.c", f"{text}int next(struct xdp_md *c) {{ return verdict(); }}\n")
    assert Path(header).parent == Path(source).parent
    predicted = host.ansible("program", check=True, interface="pw0", next_src=source)
    assert predicted["changed"] is True
    assert host.ansible("program", interface="pw0", next_src=source)["changed"] is True
    assert host.ansible("program", interface="pw0", next_src=source)["changed"] is False
    chain = host.module("host_info")["interfaces"]["pw0"]["chain"]
    assert [(member["kind"], member["problem"]) for member in chain] == [
        ("packetwatch", ""),
        ("next", ""),
    ]
    result = host.module("program", interface="pw0", next="/sys/fs/bpf/nowhere")
    (warning,) = result["warnings"]
    assert "nothing is pinned at /sys/fs/bpf/nowhere" in str(warning)
    assert host.ansible("program", interface="pw0")["changed"] is True
    assert "next.d/pw0.path" not in host.files()


def test_the_action_plugin_brings_lists(host: ModuleHost, text_file: Any) -> None:
    path = text_file("feed.list", "# theirs\n198.51.100.0/24\n203.0.113.9 # one\n")
    options = {"name": "feed-theirs", "deny_src": path}
    assert host.ansible("access_lists", check=True, **options)["changed"] is True
    assert host.files() == {}
    assert host.ansible("access_lists", **options)["changed"] is True
    assert host.ansible("access_lists", check=True, **options)["changed"] is False
    assert host.files()["deny.d/feed-theirs.list"] == Path(path).read_text()
    bad = text_file("bad.list", "198.51.100.0/24\n203.0.113.9/24\n")
    result = host.ansible("access_lists", name="feed-theirs", deny_src=bad)
    assert result["failed"] is True
    assert f"{bad}, line 2: '203.0.113.9/24' has bits set" in result["msg"]
    assert host.files()["deny.d/feed-theirs.list"] == Path(path).read_text()


def test_bans(host: ModuleHost) -> None:
    host.module("program", interface="pw0")
    host.module("policy", ban_scope="all")
    host.four_times("ban", address="198.51.100.9", duration=600, reason="test")
    bans = host.module("host_info", gather_subset=["bans"])["bans"]
    assert [(ban["source"], ban["origin"]) for ban in bans] == [("198.51.100.9", "manual")]
    assert 0 < bans[0]["remaining"] <= 600
    assert "198.51.100.0/24" in host.module("ban", address="198.51.100.0/24")["msg"]
    refused = host.module("ban", address=["198.51.100.10", HOST])
    assert "protected" in refused["msg"]
    assert "protected" in host.module("ban", address=HOST)["msg"]
    assert len(host.module("host_info", gather_subset=["bans"])["bans"]) == 1
    host.four_times("ban", address=["198.51.100.9", "198.51.100.11"])
    found = host.module("ban", address=["198.51.100.9", "198.51.100.11"])
    assert found["sources"] == ["198.51.100.9", "198.51.100.11"]
    host.four_times("ban", address=["198.51.100.11", "198.51.100.9"], state="absent")
    assert host.module("host_info", gather_subset=["bans"])["bans"] == []


def test_host_info(host: ModuleHost) -> None:
    nothing = host.module("host_info", gather_subset=["all"])
    assert "failed" not in nothing
    assert nothing["interfaces"] == {}
    assert nothing["lists"]["live"] is False
    host.module("program", interface="pw0", mode="generic")
    host.module("access_lists", deny=["198.51.100.0/24"])
    facts = host.module("host_info", gather_subset=["all"])
    assert facts["interfaces"]["pw0"]["mode"] == "generic"
    assert facts["interfaces"]["pw0"]["wanted"] == "generic"
    assert facts["lists"]["live"] is True
    assert facts["lists"]["deny"] == {"ansible": 1}
    assert facts["policy"]["default"]["scan_ports"] == 5
    assert facts["protected"][HOST] == "own address"
    assert facts["entries"]["deny"] == {"ansible": "198.51.100.0/24\n"}
    assert facts["ranges"] == {"allow": "", "deny": "198.51.100.0-198.51.100.255\n"}
    assert facts["changed"] is False


# Bad input: a clear error, and nothing changed


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("program", {"interface": "nosuch0"}, "nosuch0"),
        ("program", {"interface": "pwtun"}, "Ethernet"),
        ("program", {"interface": "pw0", "mode": "fast"}, "one of: auto, native, generic"),
        ("program", {"interface": "pw0", "src": "/no/such.c"}, "/no/such.c"),
        ("policy", {"interface": "nosuch0", "scan_ports": 3}, "no interface 'nosuch0'"),
        ("policy", {"scan_ports": 65}, "scan_ports is '65'; allowed: a whole number from 1 to 64"),
        ("access_lists", {"deny": {"team_a": ["192.0.2.300"]}}, "team_a[0]: '192.0.2.300'"),
        ("access_lists", {"deny": ["192.0.2.7/24"]}, "deny[0]: '192.0.2.7/24' has bits set"),
        ("access_lists", {"deny": ["192.0.2.0/24"]}, HOST),
        ("ban", {"address": "198.51.100.9"}, "attach"),
    ],
)
def test_bad_input(host: ModuleHost, name: str, options: dict[str, Any], message: str) -> None:
    for check in (True, False):
        result = host.module(name, check=check, **options)
        assert result["failed"] is True
        assert message in result["msg"]
    assert host.files() == {}
    assert host.mode("pw0") == ""


def test_no_bpf_file_system(host: ModuleHost) -> None:
    host.command("umount", "/sys/fs/bpf")
    host.command("mount", "-t", "tmpfs", "tmpfs", "/sys/fs/bpf")
    result = host.module("program", interface="pw0")
    assert result["failed"] is True
    assert "/sys/fs/bpf" in result["msg"]
    assert host.mode("pw0") == ""


def test_no_headers(host: ModuleHost) -> None:
    release = host.command("uname", "-r").strip()
    host.command("mount", "-t", "tmpfs", "tmpfs", f"/lib/modules/{release}")
    result = host.module("program", interface="pw0")
    assert result["failed"] is True
    assert "headers" in result["msg"]
    assert host.mode("pw0") == ""
    assert host.files() == {}


def test_lists_of_several_variables_reach_the_host_as_one(host: ModuleHost) -> None:
    scraper = {"address": "198.51.100.7", "comment": "scraper", "expires": "2099-01-01T00:00:00Z"}
    again = {"address": "198.51.100.7/32", "expires": "2099-01-01T01:00:00+01:00"}
    done = host.module(
        "access_lists",
        deny={"packetwatch_deny": ["203.0.113.0/24", again], "packetwatch_deny__web": [scraper]},
    )
    assert (done["changed"], done["repeated"]) == (True, {"allow": 0, "deny": 1}), done
    assert done["counts"]["deny"] == 2
    assert host.files()["deny.d/ansible.list"] == (
        "198.51.100.7 expires=2099-01-01T00:00:00Z # scraper (packetwatch_deny[1])\n"
        "203.0.113.0/24 # (packetwatch_deny[0])\n"
    )
    before = host.files()
    for deny, words in (
        (
            {"packetwatch_deny": ["203.0.113.0/24"], "packetwatch_deny__web": ["10.0.0.0/8", "x"]},
            "packetwatch_deny__web[1]: ",
        ),
        (
            {"packetwatch_deny": ["198.51.100.7"], "packetwatch_deny__web": [scraper]},
            "packetwatch_deny__web[0]: 198.51.100.7 expires at 2099-01-01T00:00:00Z, "
            "but in packetwatch_deny[0] 198.51.100.7 expires never",
        ),
        (
            {"packetwatch_deny": [], "packetwatch_deny__web": "198.51.100.7"},
            "packetwatch_deny__web is '198.51.100.7', a text: write a list of addresses and prefixes",
        ),
    ):
        refused = host.module("access_lists", deny=deny)
        assert refused["failed"] is True
        assert words in refused["msg"], refused
    assert host.files() == before
