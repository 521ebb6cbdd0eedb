# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""abi.h, compiled by clang, against its mirror in Python; and clang's program against bcc's."""

from __future__ import annotations

import json
import platform
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.datapath import DROP, PASS, Datapath, Runner, difference
from kernel.test_link_control import CONTROL, NO_CONTROL
from kernel.test_parser import corpus

from packetwatch_core._kernel import abi
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.pins import specs
from packetwatch_core._kernel.programs import Program

SOURCE = Path(__file__).resolve().parents[2] / "roles/packetwatch/files/bpf"
# Also Debian 13's clang: the verifier refuses some code that newer versions generate.
COMPILERS = ("clang", pytest.param("clang-19", marks=pytest.mark.slow))
STRUCTS = [layout.name for layout in abi.LAYOUTS] + ["pw_scratch"]
ENUMS = (
    *("verdict", "feature", "action", "counts", "scope", "link_control", "closed_ports", "log"),
    *("origin", "kind", "ban_flag"),
    *("net_flag", "event_type", "event_flag", "reason", "family"),
)
MACROS = {
    "PW_ABI": abi.ABI,
    "PW_FORMAT": abi.FORMAT,
    "PW_MAGIC": abi.MAGIC,
    "PW_PAGE_SIZE": abi.PAGE,
    "PW_POLICY_OFFSET": abi.POLICY_OFFSET,
    "PW_POLICY_SLOTS": abi.POLICY_SLOTS,
    "PW_POLICY_PROBES": abi.POLICY_PROBES,
    "PW_TRACK_SLOTS": abi.TRACK_SLOTS,
    "PW_PROBE_HIDDEN": abi.PROBE_HIDDEN,
    "PW_TIME_SHIFT": abi.TIME_SHIFT,
    "PW_KIND_SHIFT": abi.KIND_SHIFT,
    "PW_FIRST_SETS": abi.FIRST_SETS,
    "PW_FIRST_WAYS": abi.FIRST_WAYS,
    "PW_NEXT_SLOTS": abi.NEXT_SLOTS,
    "PW_EVENT_SHORT": abi.EVENT_SHORT,
    "PW_STACK_SCTP": abi.STACK_SCTP,
    "PW_STACK_PROTOCOLS": abi.STACK_PROTOCOLS,
    **{
        f"PW_UNUSED_PROTOCOLS_{64 * place}": word for place, word in enumerate(abi.UNUSED_PROTOCOLS)
    },
}


def clang(*arguments: str, text: str | None = None, compiler: str = "clang") -> str:
    machine = platform.machine()
    command = [compiler, "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", f"-I{SOURCE}"]
    command += [f"-I/usr/include/{machine}-linux-gnu", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dump_types(compiled: Path) -> list[dict[str, Any]]:
    output = subprocess.check_output(["bpftool", "-j", "btf", "dump", "file", str(compiled)])
    types: list[dict[str, Any]] = json.loads(output)["types"]
    return types


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the BTF of everything in abi.h; the program's own BTF has only the types of its maps."""
    uses = [f"struct {name} use_{name};" for name in STRUCTS]
    uses += [f"enum pw_{name} use_{name};" for name in ENUMS]
    text = "\n".join(['#include "maps_libbpf.h"', *uses, ""])
    compiled = tmp_path_factory.mktemp("types") / "types.o"
    clang("-Wno-unused-function", "-x", "c", "-c", "-o", str(compiled), "-", text=text)
    return dump_types(compiled)


@pytest.fixture(scope="module", params=COMPILERS)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program to an object for libbpf."""
    path = tmp_path_factory.mktemp("program") / "packetwatch.bpf.o"
    preface, body = str(SOURCE / "maps_libbpf.h"), str(SOURCE / "packetwatch.bpf.c")
    clang("-include", preface, "-c", "-o", str(path), body, compiler=request.param)
    return path


def struct_of(types: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (item for item in types if item["kind"] == "STRUCT" and item["name"] == name)
    return found


def size_of(types: list[dict[str, Any]], number: int) -> int:
    item = types[number - 1]
    assert item["id"] == number
    if item["kind"] == "ARRAY":
        return int(item["nr_elems"]) * size_of(types, item["type_id"])
    if "size" in item:
        return int(item["size"])
    return size_of(types, item["type_id"])


@pytest.mark.parametrize("layout", abi.LAYOUTS, ids=lambda layout: layout.name)
def test_structs_have_the_same_fields(layout: abi.Layout, types: list[dict[str, Any]]) -> None:
    found = struct_of(types, layout.name)
    theirs = [
        (member["name"], member["bits_offset"] // 8, size_of(types, member["type_id"]))
        for member in found["members"]
    ]
    ours, offset = [], 0
    for name, code in layout.fields:
        size = struct.calcsize("=" + code)
        ours.append((name, offset, size))
        offset += size
    assert ours == theirs
    assert layout.size == found["size"]


def test_there_is_room_for_the_programs_memory(types: list[dict[str, Any]]) -> None:
    assert struct_of(types, "pw_scratch")["size"] == abi.SCRATCH_SIZE


def test_a_short_event_ends_before_its_ports(types: list[dict[str, Any]]) -> None:
    members = struct_of(types, "pw_event")["members"]
    (ports,) = (member for member in members if member["name"] == "ports")
    assert ports["bits_offset"] // 8 == abi.EVENT_SHORT


def enum_of(types: list[dict[str, Any]], name: str) -> dict[str, int]:
    (found,) = (item for item in types if item["kind"] == "ENUM" and item["name"] == f"pw_{name}")
    return {value["name"]: value["val"] for value in found["values"]}


def test_enums_have_the_same_values(types: list[dict[str, Any]]) -> None:
    def numbered(prefix: str, names: tuple[str, ...]) -> dict[str, int]:
        return {f"{prefix}_{name.upper()}": number for number, name in enumerate(names)}

    reasons = {
        f"PW_{verdict}_{reason}".upper(): number
        for number, (verdict, reason) in enumerate(abi.REASONS)
    }
    families = numbered("PW", abi.FAMILIES)
    expected = {
        "verdict": {"PW_NONE": 0, "PW_ALLOW": 1, "PW_DENY": 2},
        "feature": {
            "PW_F_LISTS4": abi.F_LISTS4,
            "PW_F_LISTS6": abi.F_LISTS6,
            "PW_F_SCOPE_ALL": abi.F_SCOPE_ALL,
            "PW_F_ENFORCED": abi.F_ENFORCED,
            "PW_F_ACK": abi.F_ACK,
            "PW_F_PROTOCOLS": abi.F_PROTOCOLS,
            "PW_F_NEXT": abi.F_NEXT,
        },
        "action": numbered("PW_ACTION", abi.ACTIONS),
        "counts": numbered("PW_COUNTS", abi.COUNTS),
        "scope": numbered("PW_SCOPE", abi.SCOPES),
        "link_control": numbered("PW_LINK_CONTROL", abi.LINK_CONTROLS),
        "closed_ports": numbered("PW_CLOSED_PORTS", abi.CLOSED_PORTS),
        "log": numbered("PW_LOG", abi.LOGS),
        "origin": {f"PW_ORIGIN_{name.upper()}": value for value, name in abi.ORIGINS.items()},
        "kind": numbered("PW_KIND", abi.KINDS) | {"PW_KINDS": len(abi.KINDS)},
        "ban_flag": {
            "PW_BAN_OVERFLOW": abi.BAN_OVERFLOW,
            "PW_BAN_CONNECTIONS": abi.BAN_CONNECTIONS,
            "PW_BAN_ANSWER": abi.BAN_ANSWER,
        },
        "net_flag": {
            "PW_NET_PROTECTED": abi.NET_PROTECTED,
            "PW_NET_SINGLE": abi.NET_SINGLE,
            "PW_NET_SHARED": abi.NET_SHARED,
            "PW_NET_LOCAL": abi.NET_LOCAL,
        },
        "event_type": {
            "PW_EVENT_CONNECTION": abi.EVENT_CONNECTION,
            "PW_EVENT_BAN": abi.EVENT_BAN,
            "PW_EVENT_WOULD_DROP": abi.EVENT_WOULD_DROP,
            "PW_EVENT_PROBE": abi.EVENT_PROBE,
        },
        "event_flag": {
            "PW_EVENT_MONITOR": abi.EVENT_MONITOR,
            "PW_EVENT_PROTECTED": abi.EVENT_PROTECTED,
            "PW_EVENT_OVERFLOW": abi.EVENT_IN_OVERFLOW,
            "PW_EVENT_OPAQUE": abi.EVENT_OPAQUE,
            "PW_EVENT_ANSWER": abi.EVENT_ANSWER,
        },
        "reason": reasons | {"PW_REASONS": len(reasons)},
        "family": families | {"PW_FAMILIES": len(families)},
    }
    assert {name: enum_of(types, name) for name in ENUMS} == expected


def test_every_enum_of_the_header_is_compared() -> None:
    text = (SOURCE / "abi.h").read_text()
    assert set(re.findall(r"^enum pw_(\w+)", text, re.MULTILINE)) == set(ENUMS)
    assert set(re.findall(r"^struct (\w+) \{", text, re.MULTILINE)) == {*STRUCTS} - {"pw_scratch"}


def test_macros_have_the_same_values() -> None:
    text = "".join(f"{name}_is {name}\n" for name in MACROS)
    output = clang("-E", "-P", "-x", "c", "-", text=f'#include "maps_libbpf.h"\n{text}')
    found = dict(re.findall(r"^(\w+)_is (\w+)$", output, re.MULTILINE))
    assert {name: int(value.rstrip("UL"), 0) for name, value in found.items()} == MACROS


@pytest.fixture
def other(datapath: Datapath, compiled: Path) -> Iterator[Program]:
    """The program compiled by clang and loaded by libbpf, with the maps of bcc's program."""
    pin = datapath.pins.root + "1"
    command = ["bpftool", "prog", "load", str(compiled), pin, "type", "xdp"]
    for number in datapath.program.info().map_ids:
        with Map.by_id(number) as found:
            if found.info.name != "scratch":
                command += ["map", "name", found.info.name, "id", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program = Program.open(pin)
    Path(pin).unlink()
    yield program
    program.close()


def test_the_kernel_takes_what_this_compiler_makes(other: Program) -> None:
    assert other.info().map_ids


@pytest.mark.slow
def test_both_compilers_programs_give_the_same_verdicts(datapath: Datapath, other: Program) -> None:
    """Each frame of the corpus is run four times, so that sources are banned."""
    frames = [frame for dummy in range(4) for frame in corpus()]
    results = []
    for program in (datapath.program, other):
        for name in ("tracks2", "scan_bans", "overflow", "rates"):
            for key, dummy in datapath.maps[name].items():
                datapath.maps[name].delete(key)
        datapath.maps["shared"].update(bytes(4), bytes(abi.SHARED.size))
        datapath.events()
        before, run = datapath.cells(), Runner(program, datapath.ifindex)
        verdicts = [run(frame) for frame in frames]
        events = [
            {name: event[name] for name in ("type", "family", "flags", "saddr", "dport", "count")}
            for event in datapath.events()
        ]
        results.append((verdicts, difference(datapath.cells(), before), datapath.banned(), events))
    assert results[0] == results[1]
    assert len(results[0][2]) >= 3 and len(results[0][1]) >= 8


def test_both_compilers_programs_know_control_traffic(datapath: Datapath, other: Program) -> None:
    datapath.lists(deny=["0.0.0.0/0", "::/0"])
    run = Runner(other, datapath.ifindex)
    assert {name for name, frame in CONTROL.items() if run(frame) != PASS} == set()
    assert {name for name, frame in NO_CONTROL.items() if run(frame) != DROP} == set()


def test_both_compilers_programs_use_maps_of_one_shape(compiled: Path) -> None:
    """Compare names and sizes of keys and values; the library decides the number of entries."""
    types = dump_types(compiled)
    (section,) = (item for item in types if item["kind"] == "DATASEC" and item["name"] == ".maps")
    names = {types[variable["type_id"] - 1]["name"] for variable in section["vars"]}
    assert names == {*specs(), "generation", "scratch"}
