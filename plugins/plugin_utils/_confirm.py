# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The base of action plug-ins whose modules change verdicts: no change may lock the controller out.

The module activates the change and answers. The action plug-in closes the connection, and confirms the
change over a fresh one, which has to pass the changed filter. If no fresh connection comes through, the
host reverts the change by itself. A lost connection counts as a failure, not as an unreachable host:
after unreachable hosts Ansible continues with the next batch.
"""

from __future__ import annotations

import secrets
import time
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.duration import parse_duration
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import InvalidInput
from ansible_collections.packetwatch.xdp.plugins.module_utils._change.pending import MAX_SECONDS
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import TransferAction

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Result,
    )

MODULE = "packetwatch.xdp.change"
DEFAULT = 60.0
# After a reset of these, the next command makes a new connection over the network.
RENEWED = ("ssh", "paramiko", "paramiko_ssh", "libssh")
# Seconds to wait after the deadline until the host itself reports the revert: an attempt to connect that
# began earlier cannot be cut short.
MIN_GRACE, MAX_GRACE = 15.0, 45.0
PAUSE = 1.0


class ChangeAction(TransferAction):
    """Runs the module of the same name, and confirms the change that it has made."""

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        seconds = _seconds(arguments)
        if not seconds or self._task.check_mode:
            return super().execute(arguments, task_vars)
        token = secrets.token_hex(16)
        arguments = arguments | {"confirm_token": token}
        arguments.setdefault("confirm_by", "connection" if self._is_renewed() else "self_test")
        try:
            result = super().execute(arguments, task_vars)
        except AnsibleConnectionFailure as error:
            return self._lost(str(error), token, seconds, task_vars)
        if result.get("unreachable"):
            return self._lost(str(result.get("msg", "")), token, seconds, task_vars)
        if result.get("failed") or not result.pop("token", ""):
            return result
        return self._confirm(result, token, seconds, task_vars)

    def _confirm(
        self, result: Result, token: str, seconds: float, task_vars: dict[str, t.Any] | None
    ) -> Result:
        returns = result.pop("returns_at", "")
        answer, problem = self._insist("confirmed", token, seconds, task_vars)
        if answer.get("status") == "confirmed":
            return result | {"confirmed": True}
        if answer:
            message = f"{answer.get('msg') or 'the change was not confirmed'}"
            return _failure(f"{message}{_because(problem)}")
        return _failure(
            f"the change was made, but within {seconds + _grace(seconds):g} s no fresh connection came "
            f"through to confirm it: the host reverts it by itself, at {returns} by its clock"
            f"{_because(problem)}"
        )

    def _lost(
        self, problem: str, token: str, seconds: float, task_vars: dict[str, t.Any] | None
    ) -> Result:
        """Revert a change whose answer was lost, and report the outcome."""
        answer, dummy = self._insist("rolled_back", token, seconds, task_vars)
        outcome = {
            "rolled_back": "the host has reverted it",
            "none": "it had not become active (if it still does, the host reverts it by itself)",
        }.get(answer.get("status", ""), answer.get("msg", ""))
        if not outcome:
            outcome = (
                "and the host has not answered since: if the change has become active, the host "
                f"reverts it by itself within {seconds:g} s"
            )
        return _failure(
            f"the connection was lost while the change was made; {outcome}{_because(problem)}"
        )

    def _insist(
        self, state: str, token: str, seconds: float, task_vars: dict[str, t.Any] | None
    ) -> tuple[Result, str]:
        """Ask over fresh connections until the host answers; return its answer and the last problem."""
        end = time.monotonic() + seconds + _grace(seconds)
        last = ""
        while True:
            answer, problem = self._ask(state, token, task_vars)
            last = problem or last
            if "status" in answer:
                return answer, last
            if time.monotonic() >= end:
                return {}, last
            time.sleep(PAUSE)

    def _ask(
        self, state: str, token: str, task_vars: dict[str, t.Any] | None
    ) -> tuple[Result, str]:
        try:
            self._connection.reset()
            answer = self._execute_module(
                module_name=MODULE,
                module_args={"state": state, "token": token},
                task_vars=task_vars,
            )
        except AnsibleError as error:
            return {}, str(error)
        return answer, "" if "status" in answer else str(answer.get("msg", ""))

    def _is_renewed(self) -> bool:
        return str(self._connection.transport).rpartition(".")[2] in RENEWED

    def _remove_tmp_path(self, tmp_path: str | None, force: bool = False) -> None:
        """Do the same as the base class; ignore a lost connection, which was reported already."""
        try:
            super()._remove_tmp_path(tmp_path, force)
        except AnsibleConnectionFailure:
            self._connection._shell.tmpdir = None


def _seconds(arguments: Arguments) -> float:
    value = arguments.get("confirm_timeout")
    if value is None:
        return DEFAULT
    try:
        return parse_duration(value, "confirm_timeout", 0, MAX_SECONDS)
    except InvalidInput as error:
        raise AnsibleActionFail(f"{error}; 0 confirms at once") from error


def _grace(seconds: float) -> float:
    return max(MIN_GRACE, min(seconds, MAX_GRACE))


def _because(problem: str) -> str:
    return f" (last problem of the connection: {' '.join(problem.split())})" if problem else ""


def _failure(message: str) -> Result:
    return {"failed": True, "changed": False, "msg": message}
