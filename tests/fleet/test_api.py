# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet's API with the libraries of both releases, behind the real gate, on a real etcd."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet.api import COLLECTION, PORT, RELEASES, Api, running_api
from fleet.servers import FleetNodes, fleet_nodes
from fleet.software import SUITES

from packetwatch_agent.control import cli
from packetwatch_core._node import decisions
from packetwatch_core._node.gateway import below
from packetwatch_core._node.keys import KEYS
from packetwatch_core._node.never import Never
from packetwatch_fleet.fold import Board

pytestmark = pytest.mark.slow

ETCD = {suite: version for version, suite in SUITES.items()}
HOST = "192.0.2.10"
# Seconds by which two times may differ: the store's clock is known to a second, and the machine may be busy.
SLACK = 10.0
STATUS = {"v": 1, "t": 1, "version": "1.0.0", "applied": 1, "bans": 0, "missing": 0}
Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", params=RELEASES)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with (
        fleet_nodes(ETCD[request.param], 1, fleet_node_api_rate=1000) as nodes,
        running_api(nodes, request.param) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def fresh(api: Api) -> None:
    """Begin with a store that has one host, and nothing else."""
    clear(api.nodes)
    status = STATUS | {"t": time.time(), "addresses": [HOST, "2001:db8:1::1"]}
    api.nodes.put("hosts/web1/status", json.dumps(status))


def clear(nodes: FleetNodes) -> None:
    key, end = below(KEYS)
    nodes.root()("/v3/kv/deleterange", {"key": key, "range_end": end})


def contents(nodes: FleetNodes) -> dict[str, bytes]:
    """Everything that the store has."""
    key, end = below(KEYS)
    return {
        base64.b64decode(item["key"]).decode(): base64.b64decode(item.get("value", ""))
        for item in nodes.root()("/v3/kv/range", {"key": key, "range_end": end}).get("kvs", ())
    }


def folded(nodes: FleetNodes) -> dict[str, tuple[str, Any]]:
    """What a host makes of the store: label and seconds left, by source."""
    board = Board()
    for key, value in contents(nodes).items():
        if key.startswith((f"{KEYS}bans/", f"{KEYS}lifts/")):
            board.put(key, value)
    assert not board.refused
    now = time.time()
    return {source: (ban.label, round(ban.until - now)) for source, ban in board.bans(now)}


def test_a_ban_is_made_shown_and_lifted(api: Api) -> None:
    made = api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 600, "reason": "noise"}, role="ban")
    assert made.status == 201, made
    assert made.body["source"] == "203.0.113.9" and made.body["reason"] == "noise"
    assert folded(api.nodes)["203.0.113.9"] == ("api/test-ban", pytest.approx(600, abs=SLACK))
    shown = api.call("GET", "/v1/bans/203.0.113.9", role="read")
    assert (shown.status, shown.body, shown.etag) == (200, made.body, made.etag)
    assert api.call("GET", "/v1/bans", role="read").body == {"bans": [made.body], "next": None}
    before = contents(api.nodes)
    again = api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 600, "reason": "noise"})
    assert (again.status, again.etag, contents(api.nodes)) == (200, made.etag, before)
    longer = api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 6000})
    assert longer.status == 200 and longer.etag != made.etag
    assert folded(api.nodes)["203.0.113.9"][1] == pytest.approx(6000, abs=SLACK)
    assert api.call("DELETE", "/v1/bans/203.0.113.9", role="ban").status == 204
    assert folded(api.nodes) == {}
    before = contents(api.nodes)
    assert api.call("DELETE", "/v1/bans/203.0.113.9").status == 204
    assert contents(api.nodes) == before
    assert api.call("GET", "/v1/bans/203.0.113.9").status == 404
    # A ban after a lift counts.
    assert api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 60}).status == 201
    assert "203.0.113.9" in folded(api.nodes)


def test_a_lift_ends_what_any_enforcer_has_decided_however_its_clock_is(api: Api) -> None:
    now = time.time()
    rows = [["203.0.113.9", now + 900, now + 300, "sweep", "syn", 5]]
    api.nodes.put("bans/e1/1-000", json.dumps({"v": 1, "bans": rows}))
    shown = api.call("GET", "/v1/bans/203.0.113.9").body
    assert (shown["enforcer"], shown["rule"], shown["hosts"]) == ("e1", "sweep", 5)
    assert api.call("DELETE", "/v1/bans/203.0.113.9?hold=60").status == 204
    assert folded(api.nodes) == {}
    found = api.call("GET", "/v1/addresses/203.0.113.9").body
    assert found["lift"]["before"] == pytest.approx(now + 300)
    assert found["lift"]["hold"] == pytest.approx(time.time() + 60, abs=SLACK)
    assert [row["counts"] for row in found["decisions"]] == [False]


def test_an_ipv6_address_is_its_network(api: Api) -> None:
    assert api.call("PUT", "/v1/bans/2001:db8:9::7", {"seconds": 60}).body["source"] == (
        "2001:db8:9::/64"
    )
    assert api.call("GET", "/v1/bans/2001:db8:9::8").status == 200
    assert list(folded(api.nodes)) == ["2001:db8:9::/64"]


def test_lists_are_changed_entry_by_entry(api: Api) -> None:
    path = "/v1/lists/common/deny/203.0.113.0/24"
    made = api.call("PUT", path, {"comment": "noisy"}, role="lists")
    assert made.status == 201, made
    entry = {"address": "203.0.113.0/24", "comment": "noisy", "expires": None}
    assert made.body == entry
    other = api.call("PUT", "/v1/lists/common/deny/2001:db8:f::%2F48", {})
    assert other.status == 201, other
    again = api.call("PUT", path, {"comment": "noisy"})
    assert (again.status, again.etag) == (200, other.etag)
    assert json.loads(api.nodes.get("lists/common") or "")["deny"] == [
        {"address": "203.0.113.0/24", "comment": "noisy"},
        {"address": "2001:db8:f::/48"},
    ]
    assert api.call("GET", path.replace("/24", "%2F24"), role="read").body == entry
    assert api.call("GET", "/v1/lists").body == {"lists": {"common": {"allow": 0, "deny": 2}}}
    assert len(api.call("GET", "/v1/lists/common").body["deny"]) == 2
    assert api.call("DELETE", path, role="lists").status == 204
    assert api.call("DELETE", path, role="lists").status == 204
    assert api.call("GET", path).status == 404
    assert api.call("DELETE", "/v1/lists/common/deny/2001:db8:f::/48").status == 204
    assert api.call("GET", "/v1/lists/common").status == 404
    assert api.nodes.get("lists/common") is None


def test_an_allowed_network_is_not_banned_any_more(api: Api) -> None:
    for address in ("203.0.113.9", "203.0.113.10", "198.51.100.1"):
        assert api.call("PUT", f"/v1/bans/{address}", {"seconds": 600}).status == 201
    end = int(time.time()) + 3600
    allowed = api.call("PUT", "/v1/lists/ours/allow/203.0.113.0/24", {"expires": end}, role="lists")
    assert allowed.status == 201 and allowed.body["expires"] == end
    assert list(folded(api.nodes)) == ["198.51.100.1"]
    found = api.call("GET", "/v1/addresses/203.0.113.9").body
    assert found["verdict"] == "pass" and found["lift"]["hold"] == pytest.approx(end, abs=SLACK)
    assert found["never"] == "the list ours allows 203.0.113.0/24"
    refused = api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 600})
    assert refused.status == 409 and "the list ours allows" in refused.body["detail"]


def test_a_network_with_thousands_of_bans_is_allowed_in_pieces(api: Api) -> None:
    sources = [f"198.18.{n // 256}.{n % 256}" for n in range(6000)]
    with api.node.namespace.entered():
        gateway = api.nodes.at_etcd("api")
        decisions.ban(gateway, [*sources, "203.0.113.9"], 900, "x" * 200, False, Never())
    assert len(folded(api.nodes)) == 6001
    before = api.nodes.revision()
    path = "/v1/lists/ours/allow/198.18.0.0/15"
    began = time.monotonic()
    allowed = api.call("PUT", path, {"comment": "our scanners"})
    print(f"6,000 bans lifted in {time.monotonic() - began:.1f} s")
    assert allowed.status == 201, allowed
    assert api.nodes.revision() > before + 1, "one transaction had room for all"
    assert list(folded(api.nodes)) == ["203.0.113.9"]
    again = api.call("PUT", path, {"comment": "our scanners"}, headers={"If-Match": allowed.etag})
    assert (again.status, again.etag) == (200, allowed.etag)
    actions = [one["action"] for one in api.call("GET", "/v1/events").body["events"]]
    assert actions == ["allow"]


def test_the_rest_of_the_bans_is_lifted_by_the_same_request(api: Api) -> None:
    """As after an answer that was lost between two transactions."""
    end = int(time.time()) + 3600
    entry = {"address": "203.0.113.0/24", "expires": end}
    api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 600})
    api.nodes.put("lists/ours", json.dumps({"v": 1, "allow": [entry], "deny": []}))
    path = "/v1/lists/ours/allow/203.0.113.0/24"
    assert api.call("PUT", path, {"expires": end}).status == 200
    assert folded(api.nodes) == {}


def test_an_address_is_removed_from_lists_and_bans_at_once(api: Api) -> None:
    api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 600})
    api.call("PUT", "/v1/lists/a/deny/203.0.113.9", {})
    api.call("PUT", "/v1/lists/b/deny/203.0.113.0/24", {})
    tag = api.call("GET", "/v1/addresses/203.0.113.9").etag
    before = api.nodes.revision()
    done = api.call("DELETE", "/v1/addresses/203.0.113.9", headers={"If-Match": tag})
    assert done.status == 204, done
    assert api.nodes.revision() == before + 1, "it is not one transaction"
    assert folded(api.nodes) == {}
    found = api.call("GET", "/v1/addresses/203.0.113.9").body
    assert [entry["address"] for entry in found["entries"]] == ["203.0.113.0/24"]
    assert found["verdict"] == "drop" and found["because"] == "the list b has deny 203.0.113.0/24"
    before = api.nodes.revision()
    assert api.call("DELETE", "/v1/addresses/203.0.113.9").status == 204
    assert api.nodes.revision() == before


def test_only_one_of_two_changes_of_the_same_version_is_made(api: Api) -> None:
    path = "/v1/lists/common/deny/203.0.113.0/24"
    first = api.call("PUT", path, {"comment": "1"})
    tag = {"If-Match": first.etag}
    assert api.call("PUT", path, {"comment": "2"}, headers=tag).status == 200
    for method in ("PUT", "DELETE"):
        body = {"comment": "3"} if method == "PUT" else None
        assert api.call(method, path, body, headers=tag).status == 412
    assert api.call("GET", path).body["comment"] == "2"
    missing = "/v1/bans/203.0.113.77"
    assert api.call("PUT", missing, {"seconds": 60}, headers={"If-Match": "*"}).status == 412
    assert folded(api.nodes) == {}


def test_every_host_is_explained_as_it_reports(api: Api) -> None:
    now = time.time()
    revision = api.nodes.revision() + 1000
    hosts: dict[str, dict[str, Any]] = {
        "web1": {"applied": revision},
        "web2": {"applied": 1, "takes": {"action": "monitor"}},
        "web3": {"applied": revision, "takes": {"enforcers": ["api"]}},
        "web4": {"applied": revision, "takes": {"enforcers": ["api"]}},
    }
    for name, report in hosts.items():
        status = STATUS | {"t": now} | report
        api.nodes.put(f"hosts/{name}/status", json.dumps(status))
    own = [["203.0.113.9", now + 300, now, [22], "syn"]]
    api.nodes.put("hosts/web4/bans", json.dumps({"v": 1, "t": now, "bans": own}))
    rows = [["203.0.113.9", now + 500, now, "sweep", "syn", 5]]
    api.nodes.put("bans/e1/1-000", json.dumps({"v": 1, "bans": rows}))
    found = api.call("GET", "/v1/addresses/203.0.113.9", role="read").body
    assert found["verdict"] == "drop new connections"
    assert found["because"].startswith("e1/sweep has banned it until ")
    verdicts = {name: (host["verdict"], host["current"]) for name, host in found["hosts"].items()}
    assert verdicts == {
        "web1": ("drop new connections", True),
        "web2": ("pass", False),
        "web3": ("pass", True),
        "web4": ("drop", True),
    }
    assert found["hosts"]["web4"]["because"].startswith("the host has banned it itself until ")


def test_hosts_rules_and_events_are_what_was_reported(api: Api) -> None:
    # The API has its time from the store, which may be some time before this machine's.
    now = time.time() - 60
    decision = {
        "t": now,
        "source": "203.0.113.9",
        "rule": "sweep",
        "action": "enforce",
        "seconds": 600,
    }
    decision |= {"until": now + 600, "evidence": "syn", "seen": 5, "hosts": ["web1"], "ports": [22]}
    decision["why"] = "one port on 5 hosts"
    sweep = {
        "action": "enforce",
        "thresholds": {"hosts": 3},
        "values": {"entries": 12},
        "decided": 1,
    }
    report = {"v": 1, "t": now, "version": "1.0.0", "started": now, "rules": {"sweep": sweep}}
    report |= {"refused": {"never": 2}, "lost": 0, "blind": False, "recent": [decision, "odd", {}]}
    api.nodes.put("rules/e1", json.dumps(report))
    api.nodes.put("rules/e2", "{")
    api.call("PUT", "/v1/bans/198.51.100.7", {"seconds": 60, "reason": "noise"}, role="ban")
    enforcers = api.call("GET", "/v1/rules").body["enforcers"]
    assert enforcers["e1"]["rules"]["sweep"] == sweep | {"fault": None}
    assert enforcers["e1"]["refused"] == {"never": 2} and enforcers["e2"]["age"] is None
    events = api.call("GET", "/v1/events").body["events"]
    assert [(one["by"], one["action"], one["address"]) for one in events] == [
        ("api/test-ban", "ban", "198.51.100.7"),
        ("e1/sweep", "ban", "203.0.113.9"),
    ]
    assert (events[0]["why"], events[1]["why"]) == ("noise", "one port on 5 hosts")
    first = api.call("GET", "/v1/events?limit=1").body
    second = api.call("GET", f"/v1/events?limit=1&page={first['next']}").body
    assert first["events"] + second["events"] == events and second["next"] is None
    host = api.call("GET", "/v1/hosts/web1").body
    assert host["addresses"] == [HOST, "2001:db8:1::1"] and host["version"] == "1.0.0"
    assert api.call("GET", "/v1/hosts").body == {
        "hosts": [host | {"age": pytest.approx(host["age"], abs=SLACK)}],
        "next": None,
    }


def test_ten_thousand_bans_come_in_pages(api: Api) -> None:
    now = time.time()
    for page in range(79):
        rows = [
            [f"203.{page}.{n // 100}.{n % 100}", now + 9000, now, "sweep", "answer", 5]
            for n in range(128)
        ]
        api.nodes.put(f"bans/e1/1-{page:03}", json.dumps({"v": 1, "bans": rows}))
    found, query, began = [], "?limit=1000", time.monotonic()
    while query:
        answer = api.call("GET", f"/v1/bans{query}").body
        found += answer["bans"]
        query = f"?limit=1000&page={answer['next']}" if answer["next"] else ""
    assert len({ban["source"] for ban in found}) == len(found) == 79 * 128
    # Each page reads the store anew; on a machine with other work, that takes some times as long as alone.
    assert time.monotonic() - began < 60


def test_without_the_store_nothing_is_half_done(api: Api) -> None:
    api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 600})
    before = contents(api.nodes)
    api.nodes.kill(0, "etcd")
    for method, path, body in (
        ("GET", "/v1/healthz", None),
        ("GET", "/v1/bans", None),
        ("PUT", "/v1/bans/203.0.113.10", {"seconds": 600}),
        ("DELETE", "/v1/bans/203.0.113.9", None),
        ("PUT", "/v1/lists/common/deny/203.0.113.0/24", {}),
    ):
        away = api.call(method, path, body)
        assert (away.status, away.headers["Retry-After"]) == (503, "2"), away
        assert away.body["status"] == 503
    api.nodes.start(0, "etcd")
    api.nodes.wait()
    assert contents(api.nodes) == before
    # The token of the account was forgotten with the process.
    assert api.call("DELETE", "/v1/bans/203.0.113.9").status == 204
    assert api.call("GET", "/v1/healthz", token="").status == 200


def test_a_token_is_made_and_revoked_at_once(api: Api) -> None:
    secret = api.add_token("ann", "read")
    assert api.call("GET", "/v1/bans", token=secret).status == 200
    api.revoke("ann")
    assert api.call("GET", "/v1/bans", token=secret).status == 401


def test_a_browser_may_read_with_the_token_as_a_password(api: Api) -> None:
    pair = base64.b64encode(f"ann:{api.secrets['admin']}".encode()).decode()
    basic = {"Authorization": f"Basic {pair}"}
    assert api.call("GET", "/v1/bans", token="", headers=basic).status == 200
    for method, path, body in (
        ("PUT", "/v1/bans/203.0.113.9", {"seconds": 60}),
        ("DELETE", "/v1/bans/203.0.113.9", None),
    ):
        assert api.call(method, path, body, token="", headers=basic).status == 401
    assert folded(api.nodes) == {}


def test_each_change_is_in_the_audit_log_with_its_token(api: Api) -> None:
    start = len(api.audit())
    forged = {"X-Real-IP": "203.0.113.66", "X-Forwarded-For": "203.0.113.66"}
    api.call("GET", "/v1/bans")
    api.call("PUT", "/v1/bans/203.0.113.9", {"seconds": 60, "reason": 'pw" é'}, headers=forged)
    api.call("PUT", f"/v1/bans/{HOST}", {"seconds": 60}, role="ban")
    api.call("DELETE", "/v1/addresses/203.0.113.9", role="read")
    api.call("DELETE", "/v1/bans/203.0.113.9", token="pw_wrong")
    lines = api.audit()[start:]
    rows = [
        (line.get("user.name"), line["packetwatch.command"], line["http.response.status_code"])
        for line in lines
    ]
    assert rows == [
        ("test-admin", "putBan", 201),
        ("test-ban", "putBan", 409),
        ("test-read", "deleteAddress", 403),
        (None, "deleteBan", 401),
    ]
    assert [line["event.outcome"] for line in lines] == ["success", *["failure"] * 3]
    assert {line["client.ip"] for line in lines} == {"10.79.0.1"}
    assert lines[0]["packetwatch.arguments"] == ["address=203.0.113.9", "seconds=60"]
    assert lines[0]["event.reason"] == 'pw" é'
    text = api.log.read_text()
    assert not [secret for secret in (*api.secrets.values(), "pw_wrong") if secret in text]


@pytest.fixture
def ctl(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ctl:
    """Run packetwatchctl with the fleet `ours`, whose first node does not answer; return its status and output."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config/packetwatch"
    (folder / "fleets").mkdir(parents=True)
    text = f"url=https://10.79.0.99 https://{api.node.address}\nca={api.nodes.ca}\ntoken={folder}/token\n"
    (folder / "fleets/ours").write_text(text)

    def run(*words: str, role: str = "admin", mode: int = 0o600) -> tuple[int, str, str]:
        (folder / "token").write_text(f"{api.secrets[role]}\n")
        (folder / "token").chmod(mode)
        with api.nodes.lan.entered():
            # Its address is that of nobody: without a route, it is refused at once.
            subprocess.run(["ip", "route", "replace", "unreachable", "10.79.0.99"], check=True)
            status = cli.main(["--fleet", "ours", *words])
        return status, *capsys.readouterr()

    return run


def test_packetwatchctl_speaks_for_the_whole_fleet(api: Api, ctl: Ctl) -> None:
    status, output, dummy = ctl(
        "ban", "203.0.113.9", "2001:db8:9::7", "--for", "10m", "--reason", "noise"
    )
    assert status == 0 and "2001:db8:9::/64 is banned on all hosts until " in output
    assert {source: round(left, -1) for source, (_by, left) in folded(api.nodes).items()} == {
        "203.0.113.9": 600,
        "2001:db8:9::/64": 600,
    }
    again = json.loads(ctl("ban", "203.0.113.9", "--for", "10m", "--reason", "noise", "--json")[1])
    assert again["changed"] is False
    status, output, dummy = ctl("bans", role="read")
    assert status == 0
    lines = output.splitlines()
    assert lines[0].split() == ["SOURCE", "ORIGIN", "EVIDENCE", "UNTIL", "LEFT", "HOSTS", "REASON"]
    assert lines[1].startswith("203.0.113.9 ") and lines[1].endswith("noise") and len(lines) == 3
    found = json.loads(ctl("bans", "203.0.113.0/24", "--json")[1])
    assert [ban["source"] for ban in found["bans"]] == ["203.0.113.9"]
    assert "203.0.113.9 drop: api/test-admin has banned it until " in ctl("why", "203.0.113.9")[1]
    assert "web1" in ctl("hosts")[1]
    api.call("PUT", "/v1/lists/common/deny/203.0.113.0/24", {"comment": "noisy"})
    assert ctl("lists")[1].split() == ["deny", "common", "1", "prefix"]
    assert ctl("lists", "--entries")[1].split() == ["deny", "203.0.113.0/24", "common", "noisy"]
    assert ctl("unban", "203.0.113.9")[1] == "203.0.113.9 is not banned any more by the fleet\n"
    assert ctl("unban", "203.0.113.9")[1] == "203.0.113.9 was not banned by the fleet\n"
    assert list(folded(api.nodes)) == ["2001:db8:9::/64"]


def test_packetwatchctl_says_why_the_fleet_refuses(api: Api, ctl: Ctl) -> None:
    status, dummy, errors = ctl("ban", HOST, "--for", "10m")
    assert status == 1 and f"{HOST} is never banned" in errors
    status, dummy, errors = ctl("ban", "203.0.113.9", "--for", "10m", role="read")
    assert status == 3 and "the token test-read has the role read" in errors
    status, dummy, errors = ctl("ban", "203.0.113.9")
    assert status == 2 and "--for 10m" in errors
    status, dummy, errors = ctl("bans", mode=0o644)
    assert status == 2 and "chmod 600" in errors
    status, dummy, errors = ctl("top")
    assert status == 2 and "bans, ban, unban, why, lists, hosts" in errors
    status, output, errors = ctl("ban", HOST, "203.0.113.9", "--for", "10m")
    assert status == 1 and "FAILED" in output and list(folded(api.nodes)) == ["203.0.113.9"]
    api.nodes.kill(0, "gate")
    try:
        status, dummy, errors = ctl("bans")
        assert status == 4 and "10.79.0.11" in errors
    finally:
        api.nodes.start(0, "gate")
        deadline = time.monotonic() + 60
        while ctl("bans")[0]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_each_curl_line_of_the_page_works(api: Api, tmp_path: Path) -> None:
    page = (COLLECTION / "docs/api.md").read_text()
    lines = [
        line
        for block in re.findall(r"```sh curl\n(.*?)```", page, re.DOTALL)
        for line in block.splitlines()
    ]
    (tmp_path / "hosts-ca.pem").write_bytes(api.nodes.ca.read_bytes())
    (tmp_path / "token").write_text(f"Authorization: Bearer {api.secrets['admin']}\n")
    name, address = api.node.name, api.node.address
    (tmp_path / ".curlrc").write_text(f'resolve = "{name}:{PORT}:{address}"\nfail-with-body\n')
    asked = set()
    for line in lines:
        words = [word.replace("node1", name) for word in shlex.split(line)]
        with api.nodes.lan.entered():
            done = subprocess.run(
                [*words, "-w", "%{http_code}"],
                cwd=tmp_path,
                env=os.environ | {"CURL_HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        verb = words[words.index("-X") + 1] if "-X" in words else "GET"
        asked.add((verb, words[-1].partition("?")[0].split(name)[-1]))
    document = json.loads(
        (COLLECTION / "roles/fleet_node/files/api/packetwatch_api/openapi.json").read_text()
    )
    for path, item in document["paths"].items():
        form = re.compile(
            path.replace("{prefix}", ".+").replace("{", "(?P<").replace("}", ">[^/]+)")
        )
        for verb in {"get", "put", "delete"} & set(item):
            assert [one for one in asked if one[0] == verb.upper() and form.fullmatch(one[1])], (
                verb,
                path,
            )
