# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The blocks of the guides have places where `lab.follow` runs them, or a reason why it does not."""

from __future__ import annotations

import pytest
from lab import guides

BLOCKS = [block for name in guides.NAMES for block in guides.blocks(name)]
# The first words of the commands that are not run, and why.
NOT_RUN = {
    "sudo apt-get install": "changes the machine that runs the tests",
    "python3 -m venv": "tests/tools/venv makes the tests' environment in this way",
    "~/ansible/bin/pip install": "likewise",
    ". ~/ansible/bin/activate": "likewise",
    "journalctl --unit packetwatch-enforcer@": "needs a node; tests/fleet/test_own_rules.py runs the rule",
    "ansible-galaxy collection install": "the gate `release` installs the tarball into an empty folder",
}


def test_there_are_guides() -> None:
    assert len(guides.NAMES) >= 9
    assert {block.place for block in BLOCKS} >= set(guides.PLACES)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block.where))
def test_a_block_has_a_place(block: guides.Block) -> None:
    if block.language == "sh":
        assert block.place in guides.PLACES
    elif not block.place:
        # A picture; nothing else is left unchecked.
        assert block.language == "text"
    elif block.place != guides.LINT:
        # Readers do not see the place, so the text must name the file.
        assert block.place in block.before


def test_what_is_not_run_has_a_reason() -> None:
    lines = [
        line for block in BLOCKS if block.place == "elsewhere" for line in block.text.splitlines()
    ]
    assert [line for line in lines if not line.startswith(tuple(NOT_RUN))] == []
    assert [words for words in NOT_RUN if not any(line.startswith(words) for line in lines)] == []


def test_what_is_not_printed_is_named() -> None:
    block = guides.Block("x.md:1", "sh", "host", "", output="eth0:  filtered\nbans: ... scan\n")
    assert guides.differences(block, "eth0: filtered, native\nbans: 0 scan") == []
    assert guides.differences(block, "eth0: not filtered\n") == ["eth0: filtered", "bans: ... scan"]
