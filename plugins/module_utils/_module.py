# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The front that all modules share: a host made from the module, errors turned into failures."""

from __future__ import annotations

import typing as t

from ._base.errors import PacketwatchError
from ._change import pending as pending_module
from ._change.pending import Terms
from ._host.host import Host

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._base.types import Run
    from ._change.pending import Change
    from ._change.results import Plan
    from ._declared.edits import Edit

Result = dict[str, t.Any]

CONFIRMATION: t.Final[dict[str, t.Any]] = {
    "confirm_timeout": {"type": "float", "default": 60},
    "confirm_by": {
        "type": "str",
        "choices": ["connection", "self_test"],
        "default": "connection",
    },
    # Only who is root here could make use of it.
    "confirm_token": {"type": "str", "default": "", "no_log": False},
}


def run_module(module: AnsibleModule, call: t.Callable[[Host], Result]) -> None:
    """Call with the host that the module runs on, and end the module with what comes back."""
    try:
        result = call(Host(make_run(module)))
    except PacketwatchError as error:
        module.fail_json(msg=str(error))
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


def change(module: AnsibleModule, host: Host, edit: Edit, force: bool = False) -> Result:
    """Apply an edit, or only plan it in check mode."""
    return make_change(module, host, edit, force)[1]


def make_change(
    module: AnsibleModule, host: Host, edit: Edit, force: bool = False
) -> tuple[Plan, Result]:
    """As `change`, for who wants to tell more of the plan."""
    act = host.plan if module.check_mode else host.apply
    plan = act(edit, force=force, terms=read_terms(module))
    return plan, plan_result(plan, module._diff) | confirmation(module, host, plan.pending)


def read_terms(module: AnsibleModule) -> Terms:
    """What the options of `CONFIRMATION` say."""
    params = module.params
    return Terms(
        params["confirm_timeout"], params["confirm_token"], pending_module.caller(module._name)
    )


def confirmation(module: AnsibleModule, host: Host, pending: Change | None) -> Result:
    """Results that say whether a change waits to be confirmed, after the self-test if that decides."""
    if module.check_mode:
        return {}
    if pending and module.params["confirm_by"] == "self_test":
        host.self_test(pending.token)
        host.confirm(pending.token)
        pending = None
    if pending is None:
        return {"confirmed": True}
    return {
        "confirmed": False,
        "token": pending.token,
        "returns_at": pending_module.moment(pending.ends),
    }


def plan_result(plan: Plan, diff: bool) -> Result:
    """Results of a module that changed what is declared: digests and counts, never the lists.

    diff: whether to tell the difference too.
    """
    result = {
        "changed": plan.changed,
        "digest_before": plan.digest_before,
        "digest_after": plan.digest_after,
        "counts": plan.counts,
        "live": plan.live,
    }
    if plan.hits:
        result["hits"] = plan.hits.result()
    if diff:
        result["diff"] = dict(zip(("before", "after"), plan.texts()))
    return result


def make_run(module: AnsibleModule) -> Run:
    """Make the library's way to start processes out of the module's."""

    def run(argv: t.Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        try:
            status, output, errors = module.run_command(
                list(argv),
                data=stdin,
                binary_data=True,
                expand_user_and_vars=False,
                handle_exceptions=False,
                environ_update={"LC_ALL": "C.UTF-8", "LANGUAGE": "C"},
            )
        except OSError as error:
            # As a shell says it: no such command.
            return 127, "", f"{argv[0]}: {error.strerror}"
        return int(status), str(output), str(errors)

    return run
