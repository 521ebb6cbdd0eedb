# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The front of all modules: it starts processes for the library, and ends the module."""

from __future__ import annotations

import typing as t

from ._base.errors import PacketwatchError, remedy_of

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._base.types import Result, Run


def call_library(module: AnsibleModule, call: t.Callable[[Run], Result]) -> None:
    """Call the library; end the module with its result, or with its error as message."""
    try:
        result = call(make_run(module))
    except OSError as error:
        module.fail_json(msg=f"{error}{remedy_of(error)}")
    except PacketwatchError as error:
        module.fail_json(msg=str(error))
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


def make_run(module: AnsibleModule) -> Run:
    """A function with which the library starts processes through the module."""

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
            # The exit status that a shell gives for a missing command.
            return 127, "", f"{argv[0]}: {error.strerror}"
        return int(status), str(output), str(errors)

    return run
