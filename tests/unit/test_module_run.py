# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How modules start processes for the library."""

from __future__ import annotations

import sys

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from packetwatch_core._base.types import Run
from packetwatch_core._front import make_run


@pytest.fixture
def run() -> Run:
    with patch_module_args({}):
        return make_run(AnsibleModule(argument_spec={}))


def test_input_goes_in_and_output_comes_out_exactly(run: Run) -> None:
    code = "import sys; text = sys.stdin.read(); sys.stderr.write('e'); print(repr(text)); exit(3)"
    text = "x" * 200_000 + "ä"
    assert run([sys.executable, "-c", code], text) == (3, repr(text) + "\n", "e")
    assert run(["cat"], None) == (0, "", "")


def test_arguments_are_not_expanded(run: Run) -> None:
    assert run(["echo", "$HOME", "~", "*"], None) == (0, "$HOME ~ *\n", "")


def test_a_command_that_does_not_exist(run: Run) -> None:
    assert run(["/no/such/command"], None) == (
        127,
        "",
        "/no/such/command: No such file or directory",
    )
