# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""program: which source goes where."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.modules import program

from packetwatch_core._base.errors import Foreign
from packetwatch_core._declared.nexts import Next

ATTACHED = types.SimpleNamespace(
    changed=True,
    interface="lo",
    mode="generic",
    reason="no native XDP",
    program_id=42,
    before="none\n",
    after="generic\n",
    pending=None,
    problems=(),
)


def test_attach_without_a_source(run: Any, host: Any) -> None:
    host.answers["attach"] = ATTACHED
    result = run(program, {"interface": "lo"}, diff=True)
    assert host.calls == [("attach", "lo", "auto", None, {"following": None, "check": False})]
    result.pop("invocation", None)
    assert result == {
        "changed": True,
        "interface": "lo",
        "mode": "generic",
        "reason": "no native XDP",
        "program_id": 42,
        "confirmed": True,
        "diff": {"before": "none\n", "after": "generic\n"},
    }


def test_attach_with_a_source(run: Any, host: Any, tmp_path: Path) -> None:
    host.answers["attach"] = ATTACHED
    path = tmp_path / "x.c"
    path.write_text("int x;\n")
    run(program, {"interface": "lo", "mode": "native", "src": str(path)}, check=True)
    assert host.calls == [
        ("attach", "lo", "native", "int x;\n", {"following": None, "check": True})
    ]


def test_next_programs(run: Any, host: Any, tmp_path: Path) -> None:
    host.answers["attach"] = ATTACHED
    run(program, {"interface": "lo", "next": "/sys/fs/bpf/x"})
    text = "int next(struct xdp_md *context) { return 2; }\n"
    path = tmp_path / "next.c"
    path.write_text(text)
    run(program, {"interface": "lo", "next_src": str(path)})
    declared = [call[-1]["following"] for call in host.calls]
    assert declared == [Next(path="/sys/fs/bpf/x"), Next(source=text)]
    failed = run(program, {"interface": "lo", "next": "balancer"})
    assert "next is 'balancer': write the absolute path" in failed["msg"]


def test_detach(run: Any, host: Any) -> None:
    host.answers["detach"] = ATTACHED
    run(program, {"interface": "lo", "state": "detached"})
    assert host.calls == [("detach", "lo", {"check": False})]


def test_what_the_host_refuses_is_a_failure_in_its_words(run: Any, host: Any) -> None:
    host.answers["attach"] = Foreign("lo has the XDP program 7 (theirs)")
    result = run(program, {"interface": "lo"})
    assert result["failed"] is True
    assert result["msg"] == "lo has the XDP program 7 (theirs)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "missing required arguments: interface"),
        ({"interface": "lo", "mode": "fast"}, "one of: auto, native, generic"),
        ({"interface": "lo", "src": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_nonsense_is_refused(run: Any, host: Any, arguments: dict[str, Any], message: str) -> None:
    result = run(program, arguments)
    assert result["failed"] is True
    assert message in result["msg"]
    assert host.calls == []
