# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Options and results of changes, for all modules that work on a `Host`."""

from __future__ import annotations

import typing as t

from ._base.duration import parse_duration
from ._change import pending as pending_module
from ._change.pending import MAX_SECONDS, Terms
from ._front import call_library
from ._host.host import Host

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._base.types import Result
    from ._change.pending import Change
    from ._change.results import Plan
    from ._declared.edits import Edit
    from ._feeds.copies import FeedRun

CONFIRMATION: t.Final[dict[str, t.Any]] = {
    "confirm_timeout": {"type": "str", "default": "60"},
    "confirm_by": {
        "type": "str",
        "choices": ["connection", "self_test"],
        "default": "connection",
    },
    # The token is not a secret: only root can use it.
    "confirm_token": {"type": "str", "default": "", "no_log": False},
}


def run_module(module: AnsibleModule, call: t.Callable[[Host], Result]) -> None:
    """Call with the host that the module runs on; end the module with the result or the error."""
    call_library(module, lambda run: call(Host(run)))


def change(module: AnsibleModule, host: Host, edit: Edit, force: bool = False) -> Result:
    """Apply an edit; in check mode, only plan it."""
    return make_change(module, host, edit, force=force)[1]


def make_change(
    module: AnsibleModule, host: Host, edit: Edit, **options: t.Any
) -> tuple[Plan, Result]:
    """Do the same as `change`, and return the plan too. options: further ones of `Host.apply`."""
    options["terms"] = read_terms(module)
    if module.check_mode:
        options.pop("prepare", None)
    act = host.plan if module.check_mode else host.apply
    plan = act(edit, **options)
    for text in (*(plan.idle.texts if plan.idle else ()), *plan.problems, *host.distrusted):
        module.warn(text)
    return plan, plan_result(plan, module._diff) | confirmation(module, host, plan.pending)


def report_feeds(module: AnsibleModule, run: FeedRun, plan: Plan) -> dict[str, dict[str, t.Any]]:
    """What became of each feed; warn of those whose new copy is not used."""
    feeds = run.report(plan.states[1], plan.feeds)
    for name, feed in feeds.items():
        if feed["reason"]:
            module.warn(f"feed {name} is {feed['status']}: {feed['reason']}")
    return feeds


def read_terms(module: AnsibleModule) -> Terms:
    """The options of `CONFIRMATION`, in the library's form."""
    params = module.params
    seconds = parse_duration(params["confirm_timeout"], "confirm_timeout", 0, MAX_SECONDS)
    return Terms(seconds, params["confirm_token"], pending_module.caller(module._name))


def confirmation(module: AnsibleModule, host: Host, pending: Change | None) -> Result:
    """Results that say whether the change is confirmed. With confirm_by self_test, that test decides."""
    if module.check_mode:
        return {}
    if pending and module.params["confirm_by"] == "self_test":
        host.self_test(pending.token)
        for text in host.confirm(pending.token).problems:
            module.warn(text)
        pending = None
    if pending is None:
        return {"confirmed": True}
    return {
        "confirmed": False,
        "token": pending.token,
        "returns_at": pending_module.moment(pending.ends),
    }


def plan_result(plan: Plan, diff: bool) -> Result:
    """Results of a module that changes declared state: digests and counts, never the lists.

    diff: whether to add the difference.
    """
    result = {
        "changed": plan.changed,
        "digest_before": plan.digest_before,
        "digest_after": plan.digest_after,
        "counts": plan.counts,
        "live": plan.active,
    }
    if plan.idle:
        result["without_effect"] = plan.idle.counts
    if plan.hits:
        result["hits"] = plan.hits.result()
    if diff:
        result["diff"] = dict(zip(("before", "after"), plan.texts()))
    return result
