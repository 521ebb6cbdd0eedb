# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""access_lists: what the options make of the drop-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.modules import access_lists

from packetwatch_core._change.hits import Hits
from packetwatch_core._declared.edits import list_text
from packetwatch_core._declared.store import State
from packetwatch_core._preflight.lists import find_idle_entries

OLD = State(
    allow={"ansible": "192.0.2.1\n", "local": "192.0.2.2\n"},
    deny={"ansible": "203.0.113.0/24\n", "feed-one": "198.51.100.0/24\n"},
    interfaces={"eth0": "auto"},
)


def test_both_lists_in_one_call(run: Any, host: Any) -> None:
    result = run(access_lists, {"allow": ["192.0.2.7"], "deny": ["2001:db8::/32", "192.0.2.0/24"]})
    assert host.edited == State(
        allow={"ansible": "192.0.2.7\n"}, deny={"ansible": "192.0.2.0/24\n2001:db8::/32\n"}
    )
    assert host.calls == [("apply", {"force": False})]
    assert result["changed"] is True
    assert result["digest_before"] == "aa"
    assert result["digest_after"] == "bb"
    assert result["counts"] == {"allow": 1, "deny": 2}
    assert result["live"] is True
    assert "diff" not in result


def test_check_mode_only_plans_and_diff_is_given_on_request(run: Any, host: Any) -> None:
    result = run(access_lists, {"deny": ["192.0.2.7"], "force": True}, check=True, diff=True)
    assert host.calls == [("plan", {"force": True})]
    assert result["diff"] == {"before": "old\n", "after": "new\n"}


def test_whom_it_hits_is_told_and_cut_short(run: Any, host: Any) -> None:
    assert "hits" not in run(access_lists, {"deny": ["192.0.2.7"]})
    many = [f"10.0.0.{number}" for number in range(100)]
    host.hits = Hits({"ssh_peers": ["192.0.2.7"], "seen": many}, ["rates: gone"])
    assert run(access_lists, {"deny": ["192.0.2.7"]})["hits"] == {
        "ssh_peers": ["192.0.2.7"],
        "seen": many[:20],
        "counts": {"ssh_peers": 1, "seen": 100},
        "minutes": 10,
        "unknown": ["rates: gone"],
    }
    first, second, last = host.hits.sentences()
    assert first == "newly denies SSH clients: 192.0.2.7"
    assert second.startswith(
        "newly denies sources that have connected in the last 10 minutes: 10.0.0.0, "
    )
    assert second.endswith("10.0.0.19 and 80 more")
    assert last == "cannot list all newly denied addresses: rates: gone"


def test_a_list_that_is_not_given_stays_and_so_do_other_pairs(run: Any, host: Any) -> None:
    host.state = OLD
    run(access_lists, {"deny": ["192.0.2.9"]})
    assert host.edited == State(
        allow=OLD.allow,
        deny={"ansible": "192.0.2.9\n", "feed-one": "198.51.100.0/24\n"},
        interfaces={"eth0": "auto"},
    )


def test_absent_removes_the_pair_only(run: Any, host: Any) -> None:
    host.state = OLD
    run(access_lists, {"state": "absent"})
    assert host.edited == State(
        allow={"local": "192.0.2.2\n"},
        deny={"feed-one": "198.51.100.0/24\n"},
        interfaces={"eth0": "auto"},
    )
    assert host.calls == [("apply", {"force": False})]


def test_emptying_a_list_that_has_entries_is_refused(run: Any, host: Any) -> None:
    host.state = OLD
    result = run(access_lists, {"deny": []})
    assert result["failed"] is True
    assert "the deny list 'ansible' would lose all its entries (1)" in result["msg"]
    untouched: State | None = host.edited
    assert untouched is None
    run(access_lists, {"deny": [], "allow_empty": True})
    assert host.edited.deny["ansible"] == ""


def test_emptying_what_is_empty_is_no_mistake(run: Any, host: Any) -> None:
    host.state = State(deny={"ansible": "# nobody\n"})
    assert "failed" not in run(access_lists, {"deny": [], "allow": []})
    assert host.edited == State(allow={"ansible": ""}, deny={"ansible": ""})


def test_variables_are_merged(run: Any, host: Any) -> None:
    lists = {
        "packetwatch_deny": ["192.0.2.7", {"address": "192.0.2.8", "comment": "eight"}],
        "packetwatch_deny__web": ["192.0.2.8", "192.0.2.9"],
        "packetwatch_deny__mail": [{"address": "192.0.2.9", "state": "absent"}],
    }
    run(access_lists, {"deny": lists})
    assert host.edited.deny == {
        "ansible": "192.0.2.7 # (packetwatch_deny[0])\n192.0.2.8 # eight (packetwatch_deny[1])\n"
    }


@pytest.mark.parametrize(
    ("deny", "named"),
    [
        (["192.0.2.7", "192.0.2.256"], "deny[1]: '192.0.2.256'"),
        (["192.0.2.7/24"], "deny[0]: '192.0.2.7/24' has bits set"),
        ({"team_a": ["192.0.2.7"], "team_b": ["::1", "x"]}, "team_b[1]: 'x'"),
        ({"team_a": "192.0.2.7"}, "team_a is '192.0.2.7', a text: write a list"),
        ("192.0.2.7", "deny is '192.0.2.7', a text: write a list"),
        ([{"address": "192.0.2.7", "comment": "x", "until": 1}], "deny[0]: until: unknown key"),
    ],
)
def test_bad_entries_are_named_with_variable_and_index(
    run: Any, host: Any, deny: Any, named: str
) -> None:
    result = run(access_lists, {"deny": deny})
    assert result["failed"] is True
    assert named in result["msg"]
    assert host.calls == []


def test_variables_that_disagree_are_named(run: Any) -> None:
    first = [{"address": "192.0.2.7", "expires": "2026-12-01T00:00:00Z"}]
    result = run(access_lists, {"deny": {"team_a": first, "team_b": ["192.0.2.7"]}})
    assert "team_a" in result["msg"]
    assert "team_b" in result["msg"]


def test_files_are_taken_as_they_are(run: Any, host: Any, tmp_path: Path) -> None:
    text = "# theirs\n203.0.113.0/24   # why\n192.0.2.1 expires=2026-12-01T00:00:00Z\n"
    (tmp_path / "x").write_text(text)
    run(access_lists, {"name": "feed-x", "deny_src": str(tmp_path / "x"), "remote_src": True})
    assert host.edited == State(deny={"feed-x": text})


@pytest.mark.parametrize(
    ("text", "named"),
    [("192.0.2.1\n\n192.0.2.300\n", "line 3"), (None, "No such file")],
)
def test_bad_files_are_named(
    run: Any, host: Any, tmp_path: Path, text: str | None, named: str
) -> None:
    path = tmp_path / "x"
    if text is not None:
        path.write_text(text)
    result = run(access_lists, {"allow_src": str(path)})
    assert str(path) in result["msg"]
    assert named in result["msg"]
    assert host.calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "allow, deny, allow_src, deny_src"),
        ({"deny": [], "deny_src": "/x"}, "mutually exclusive: deny|deny_src"),
        ({"state": "absent", "deny": ["192.0.2.1"]}, "state is absent, which takes no lists"),
        ({"name": "Feed", "deny": []}, "'Feed' is not a name for a list"),
        ({"name": "../x", "state": "absent"}, "'../x' is not a name for a list"),
        ({"deny": [], "denny": []}, "Unsupported parameters"),
    ],
)
def test_nonsense_is_refused(run: Any, host: Any, arguments: dict[str, Any], message: str) -> None:
    result = run(access_lists, arguments)
    assert result["failed"] is True
    assert message in result["msg"]
    assert host.calls == []


def test_entries_without_effect_are_warnings(
    run: Any, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda dummy, text: warnings.append(text))
    host.idle = find_idle_entries(
        {
            "allow": list_text(["192.0.2.0/24"], "allow").text,
            "deny": list_text(["192.0.2.7"], "deny").text,
        }
    )
    result = run(access_lists, {"allow": ["192.0.2.0/24"], "deny": ["192.0.2.7"]}, check=True)
    assert result["without_effect"] == {"shadowed": 1, "impossible": 0, "expired": 0}
    assert warnings == [
        "deny[0]: 192.0.2.7 has no effect: allow[0] allows 192.0.2.0/24; remove one of the two"
    ]


def test_what_failed_after_the_change_and_a_file_that_was_not_used_are_warnings(
    run: Any, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.distrusted = ["the compiled program /x is not used: mode 0666"]
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda dummy, text: warnings.append(text))
    host.problems = ("the boot image cannot be written to /x: no space",)
    run(access_lists, {"deny": ["192.0.2.9"]})
    assert warnings == [*host.problems, *host.distrusted]
