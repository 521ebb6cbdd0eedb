# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from packetwatch_core._base.errors import LoadFailed, Unsupported
from packetwatch_core._kernel.bytecode import FUNCTION, PYTHON, Bytecode, Compiler

EXIT = bytes.fromhex("b700000002000000") + bytes.fromhex("9500000000000000")
GOOD = f"0:counters\n{(bytes.fromhex('1811000000000000') + bytes(8) + EXIT).hex()}\n"


class Fake:
    """Replaces the child process: gives an answer, and records the question."""

    def __init__(self, status: int = 0, output: str = "", errors: str = "") -> None:
        self.answer = status, output, errors
        self.argv: Sequence[str] = ()
        self.script = ""

    def __call__(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        self.argv, self.script = argv, stdin or ""
        return self.answer


def compiler(folder: Path, **answer: object) -> Compiler:
    return Compiler(Fake(**answer), str(folder / "cache"))  # type: ignore[arg-type]


def test_descriptors_go_where_maps_are_loaded(tmp_path: Path) -> None:
    bytecode = compiler(tmp_path, output=GOOD).get("source")
    assert bytecode.maps == ((0, "counters"),)
    assert bytecode.resolved({"counters": 258, "other": 9})[:8].hex() == "1811000002010000"
    assert bytecode.resolved({"counters": 3})[8:] == bytes(8) + EXIT


def test_unknown_map_is_named(tmp_path: Path) -> None:
    bytecode = compiler(tmp_path, output=GOOD).get("source")
    with pytest.raises(LoadFailed, match="uses a map 'counters' that Packetwatch does not make"):
        bytecode.resolved({})


def test_place_that_loads_no_map_is_damage() -> None:
    with pytest.raises(LoadFailed, match="damaged"):
        Bytecode(EXIT, ((0, "counters"),), b"").resolved({"counters": 3})


def test_source_reaches_the_child_as_it_is(tmp_path: Path) -> None:
    source = 'a "quoted" \\ \n%s \u00fc \U0001f600 %\n'
    fake = Fake(output=GOOD)
    Compiler(fake, str(tmp_path)).get(source)
    assert list(fake.argv) == [PYTHON, "-"]
    line = next(line for line in fake.script.splitlines() if line.startswith("source, "))
    values: dict[str, object] = {}
    exec(line, values)
    assert (values["source"], values["function"]) == (source, FUNCTION)
    assert fake.script.isascii()


@pytest.mark.parametrize(
    "output", ["", "\n", "\nzz\n", "\nb7\n", "x:y:z\nb700000002000000\n", "no"]
)
def test_answer_that_is_no_bytecode_is_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(LoadFailed, match="bcc gave no bytecode"):
        compiler(tmp_path, output=output).get("source")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("errors", "kind", "message"),
    [
        ("ModuleNotFoundError: No module named 'bcc'", Unsupported, "install python3-bpfcc"),
        (f"{PYTHON}: No such file or directory", Unsupported, f"{PYTHON} cannot be run"),
        (
            "chdir(/lib/modules/6.1.0/build): No such file or directory\nTraceback",
            Unsupported,
            "apt-get install linux-headers-.* or reboot",
        ),
        ("could not open bpf map: x, error: Operation not permitted", Unsupported, "run as root"),
        ("noise\n/virtual/main.c:3:1: error: bad\n  here\n", LoadFailed, "main.c:3:1: error: bad"),
        ("Segmentation fault", LoadFailed, "does not compile: Segmentation fault"),
    ],
)
def test_failure_is_reported_with_its_remedy(
    tmp_path: Path, errors: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"(?s){message}"):
        compiler(tmp_path, status=1, errors=errors).get("source")


def test_long_errors_are_cut(tmp_path: Path) -> None:
    errors = "".join(f"main.c:{i}:1: error: wrong\n" for i in range(1000))
    with pytest.raises(LoadFailed) as caught:
        compiler(tmp_path, status=1, errors=errors).get("source")
    assert len(str(caught.value).splitlines()) == 12


def test_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    found = compiler(tmp_path, output=GOOD)
    assert found.get("source").lines() == tuple(map(str.encode, GOOD.splitlines(keepends=True)))
    assert "cannot be written to the cache" in found.refused
