# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The front that all modules share: a host made from the module, errors turned into failures."""

from __future__ import annotations

import typing as t

from ._errors import PacketwatchError
from ._host import Host

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._edits import Edit
    from ._host import Plan
    from ._types import Run

Result = dict[str, t.Any]


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
    act = host.plan if module.check_mode else host.apply
    return plan_result(act(edit, force=force), module._diff)


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
