# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module's main() in this process, on a host that only notes what it was asked for."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

from packetwatch_core import _module
from packetwatch_core._active.idle import Idle
from packetwatch_core._change.hits import Hits
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.spare import NOTHING

Result = dict[str, Any]


class FakeHost:
    """Notes calls; `state` is what edits begin with, `edited` what they make of it."""

    def __init__(self, folder: Path) -> None:
        self.state = State()
        self.edited: State | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {"damaged_bans": []}
        self.terms: Any = None
        self.store = types.SimpleNamespace(read_current=lambda: (1, self.state))
        self.paths = types.SimpleNamespace(ages=f"{folder}/feeds")
        self.pending: Any = None
        self.distrusted: list[str] = []
        self.hits: Hits | None = None
        self.idle: Idle | None = None
        self.problems: tuple[str, ...] = ()

    def plan(self, edit: Callable[[State], State], **options: Any) -> Any:
        return self._edit("plan", edit, options)

    def apply(self, edit: Callable[[State], State], **options: Any) -> Any:
        return self._edit("apply", edit, options)

    def _edit(self, name: str, edit: Callable[[State], State], options: dict[str, Any]) -> Any:
        self.terms = options.pop("terms")
        self.edited = edit(self.state)
        self.calls.append((name, options))
        return types.SimpleNamespace(
            changed=self.edited != self.state,
            digest_before="aa",
            digest_after="bb",
            counts={"allow": 1, "deny": 2},
            states=(self.state, self.edited),
            feeds=NOTHING.report,
            texts=lambda: ("old\n", "new\n"),
            active=True,
            pending=self.pending,
            hits=self.hits,
            idle=self.idle,
            problems=self.problems,
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.terms = options.pop("terms", self.terms)
            self.calls.append((name, *arguments, options))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHost:
    fake = FakeHost(tmp_path)
    monkeypatch.setattr(_module, "Host", lambda _run: fake)
    # A module's process has only its own warnings.
    monkeypatch.setattr(warnings, "_global_warnings", {})
    return fake


@pytest.fixture
def run(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> Callable[[types.ModuleType, Result], Result]:
    """A module's result for arguments; check and diff are its modes."""

    def run_main(
        module: types.ModuleType, arguments: Result, check: bool = False, diff: bool = False
    ) -> Result:
        modes = {"_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(arguments | modes), pytest.raises(SystemExit):
            module.main()
        result: Result = json.loads(capsys.readouterr().out)
        return result

    return run_main
