# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of policy knobs, and what must be written by hand beside it: one list of what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.packetwatch.xdp.plugins.modules import policy as policy_module

from packetwatch_core._declared import policy
from packetwatch_core._declared.kinds import count
from packetwatch_core._declared.policy import KNOBS, Knob, Policy
from packetwatch_core._kernel import abi

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/packetwatch"


def differences(where: str, found: dict[str, Any] | None, wanted: dict[str, Any]) -> Iterator[str]:
    """What a description of an option lacks, or has otherwise."""
    if found is None:
        yield f"{where} is missing"
        return
    yield from (
        f"{where} has {key}: {found.get(key)}, not {value}"
        for key, value in wanted.items()
        if found.get(key) != value
    )


def module_lacks(field: str, knob: Knob) -> Iterator[str]:
    options = yaml.safe_load(policy_module.DOCUMENTATION)["options"]
    yield from differences(
        f"plugins/modules/policy.py: {field}", options.get(field), knob.kind.option
    )


def role_lacks(field: str, knob: Knob) -> Iterator[str]:
    name, default = f"packetwatch_{field}", Policy._field_defaults[field]
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    # Ansible would refuse other types and choices itself: one error at a time, and without a remedy.
    wanted: dict[str, Any] = {"type": "str" if knob.kind.option["type"] == "str" else "raw"}
    if default is not None:
        wanted["default"] = [*default] if isinstance(default, tuple) else default
    yield from differences(f"meta/argument_specs.yml: {name}", options.get(name), wanted)
    if name not in yaml.safe_load((ROLE / "defaults/main.yml").read_text()):
        yield f"defaults/main.yml: {name} is missing"


def readme_lacks(field: str, knob: Knob) -> Iterator[str]:
    if f"| `packetwatch_{field}` |" not in (ROOT / "README.md").read_text():
        yield f"README.md: the row of packetwatch_{field} is missing"


def program_lacks(field: str, knob: Knob) -> Iterator[str]:
    if not knob.record:
        return
    if knob.record not in dict(abi.POLICY.fields):
        yield f"_kernel/abi.py: POLICY has no field {knob.record}"
    struct = re.search(
        r"struct pw_policy \{(.*?)\n\}", (ROLE / "files/bpf/abi.h").read_text(), re.S
    )
    if not struct or not re.search(rf"\b{knob.record};", struct[1]):
        yield f"files/bpf/abi.h: struct pw_policy has no field {knob.record}"


PLACES = (module_lacks, role_lacks, readme_lacks, program_lacks)


def missing() -> list[str]:
    """What is missing for the knobs of the table."""
    return [
        text for field, knob in KNOBS.items() for place in PLACES for text in place(field, knob)
    ]


def test_every_knob_is_documented_and_has_its_place_in_the_program() -> None:
    assert not missing(), "\n".join(missing())


def test_whatever_a_new_knob_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOBS, "example_knob", Knob(count(1, 9), "example"))
    monkeypatch.setitem(Policy._field_defaults, "example_knob", 1)
    assert [text for text in missing() if "example" in text] == [
        "plugins/modules/policy.py: example_knob is missing",
        "meta/argument_specs.yml: packetwatch_example_knob is missing",
        "defaults/main.yml: packetwatch_example_knob is missing",
        "README.md: the row of packetwatch_example_knob is missing",
        "_kernel/abi.py: POLICY has no field example",
        "files/bpf/abi.h: struct pw_policy has no field example",
    ]


def test_all_fields_of_the_record_come_from_knobs() -> None:
    fields = {name for name, dummy in abi.POLICY.fields} - {"ifindex", "reserved"}
    assert set(Policy().record()) == fields


def test_the_record_has_the_programs_numbers() -> None:
    record = Policy(action="monitor", ban_scope="all", log_connections="none").record()
    wanted = {
        "action": 1,
        "scan_ports": 5,
        "window_ns": 60_000_000_000,
        "counts": 0,
        "grace_ns": 120_000_000_000,
        "ban_ns": 600_000_000_000,
        "scope": 1,
        "log": 2,
    }
    assert {name: record[name] for name in wanted} == wanted


def test_each_field_of_a_policy_has_a_knob_in_the_same_order() -> None:
    assert tuple(KNOBS) == Policy._fields


def test_an_interface_has_all_knobs_but_those_of_the_host() -> None:
    assert set(KNOBS) - set(policy.OVERRIDES) == {"published_ports"}
