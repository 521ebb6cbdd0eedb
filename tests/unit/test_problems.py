# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a host, from what each viewer knows."""

from __future__ import annotations

import time
from typing import Any

import pytest

from packetwatch_core._health.problems import Facts, Unconfirmed, drift, find

WELL = Facts(declared=["eth0"], filtered=["eth0"], matches=True, verified=time.time())
TABLES = "the tables in the kernel are not those of confirmed state"
EDITED = "confirmed state was edited by hand and is not active: packetwatchctl apply"


def texts(**changes: Any) -> list[str]:
    return [problem.text for problem in find(WELL._replace(**changes))]


def test_what_is_not_known_is_not_a_problem() -> None:
    assert find(Facts()) == drift(Facts()) == []
    assert find(WELL) == drift(WELL) == []


@pytest.mark.parametrize(
    ("changes", "problem", "is_drift"),
    [
        ({"filtered": []}, "eth0 is not filtered", True),
        ({"filtered": [], "present": ["eth0"]}, "eth0 is not filtered", True),
        ({"filtered": [], "present": []}, "eth0 is not filtered", False),
        ({"matches": False}, TABLES, True),
        ({"matches": False, "is_edited": True}, EDITED, False),
        ({"active": 7, "confirmed": 8}, "state 7 is active, and 8 is confirmed", True),
        ({"unpinned": ["bans"]}, "the map bans is in use and not pinned any more", True),
        ({"has_failed": True}, "the last apply has failed", False),
        ({"broken_feeds": 2}, "a feed is damaged, and left out", False),
        ({"broken_feeds": {"feed-x": "line 1"}}, "feed-x is left out: line 1", False),
        (
            {"expired_feeds": {"x": 86400.0}},
            "the feed x has no copy any more: the last one has expired on 1970-01-02",
            False,
        ),
        (
            {"verified": time.time() - 4 * 3600},
            "the tables have not been verified for hours",
            False,
        ),
        ({"refusal": "no"}, "confirmed state cannot be activated: no", False),
        ({"are_events_lost": True}, "events are lost", False),
    ],
)
def test_each_problem(changes: dict[str, Any], problem: str, is_drift: bool) -> None:
    assert texts(**changes) == [problem]
    repairable = [found.text for found in drift(WELL._replace(**changes))]
    assert repairable == ([problem] if is_drift else [])


def test_a_panic_and_a_filter_that_is_not_loaded_explain_the_rest() -> None:
    broken = {"filtered": [], "matches": False, "has_failed": True}
    assert texts(**broken, panic="PANIC of me") == ["PANIC of me"]
    assert texts(**broken, is_loaded=False) == ["no filter is loaded"]
    assert texts(panic="PANIC of me", agent_error="gone") == [
        "PANIC of me",
        "the agent does not answer, but filtering goes on: gone",
    ]


def test_while_a_change_is_pending_other_tables_are_right() -> None:
    other = WELL._replace(filtered=[], matches=False, active=8, is_pending=True)
    assert [problem.text for problem in find(other)] == ["eth0 is not filtered"]
    assert drift(other) == []
    assert len(drift(other._replace(unpinned=["bans"]))) == 1
    mixed = other._replace(filtered=["eth0"], is_whole=False)
    assert [problem.text[:26] for problem in find(mixed)] == ["interfaces hold other prog"]
    assert drift(mixed) == []
    assert texts(is_pending=True, unconfirmed=Unconfirmed("me", 41.7)) == [
        "a change of me is not confirmed yet and reverts in 42 s"
    ]


def test_each_state_has_its_own_remedy() -> None:
    (pending,) = find(WELL._replace(is_pending=True, unconfirmed=Unconfirmed("me", 41.7)))
    assert "packetwatchctl confirm" in str(pending) and "packetwatchctl rollback" in str(pending)
    assert str(pending).count(": ") == 1
    (panic,) = find(Facts(panic="PANIC of me"))
    assert str(panic).endswith("packetwatch.xdp.panic -e packetwatch_panic=absent")
    (unsaved,) = find(WELL._replace(unsaved="/x/bans.jsonl: No space left on device"))
    assert "bans are not saved" in unsaved.text and "/x/bans.jsonl" in unsaved.text
    (unverified,) = find(WELL._replace(unverified="cannot write /x", verified=0.0))
    assert unverified.text == "the tables could not be verified: cannot write /x"


def test_the_declaration_itself_is_judged_only_if_asked() -> None:
    assert texts(declared=[]) == texts(declared=[], filtered=[]) == []
    assert texts(declared=[], is_declaration_judged=True) == [
        "eth0 is filtered but not declared: the next boot does not filter it"
    ]
    assert texts(declared=[], filtered=[], is_declaration_judged=True) == [
        "no interface is filtered, and none is declared"
    ]


def test_an_operator_is_shown_the_remedy() -> None:
    (found,) = find(WELL._replace(filtered=[]))
    assert str(found) == "eth0 is not filtered: systemctl restart packetwatch-xdp@eth0"
    (found,) = find(WELL._replace(matches=False))
    assert str(found) == f"{TABLES}: packetwatchctl apply"
