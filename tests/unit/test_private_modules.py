# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What users see of the modules: `ansible-doc` and the documentation leave out the folder `__private`."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible.plugins.list import list_collection_plugins

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "plugins/modules"
PRIVATE = "This module is B(private) to the "


def public_modules() -> set[str]:
    group = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]["all"]
    return {f"packetwatch.xdp.{name}" for name in group}


def test_ansible_lists_the_public_modules_alone() -> None:
    listed = list_collection_plugins("module", {"packetwatch.xdp": str(ROOT).encode()})
    assert set(listed) == public_modules()


def test_a_module_is_private_by_its_folder_and_by_its_documentation() -> None:
    public = {name.rpartition(".")[2] for name in public_modules()}
    assert {path.stem for path in MODULES.glob("*.py")} == public
    marked = {path for path in MODULES.rglob("*.py") if PRIVATE in path.read_text()}
    assert marked == set((MODULES / "__private").glob("*.py"))


def test_an_action_plugin_has_the_name_of_its_module() -> None:
    actions = ROOT / "plugins/action"
    modules = {path.relative_to(MODULES) for path in MODULES.rglob("*.py")}
    assert {path.relative_to(actions) for path in actions.rglob("*.py")} <= modules
