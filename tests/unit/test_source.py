# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._kernel.source import BODY, PREFACE, flatten

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_includes_take_their_place_once(tmp_path: Path) -> None:
    write(tmp_path, a__h="int a;\n", b__h='#include "a.h"\nint b;\n')
    (tmp_path / PREFACE).write_text('#include <uapi/linux/bpf.h>\n#include "a.h"\nint maps;\n')
    (tmp_path / BODY).write_text('#include "b.h"\n  #include "a.h"\n#include "a.h"\nint body;\n')
    assert flatten(str(tmp_path)) == (
        '#include <uapi/linux/bpf.h>\nint a;\nint maps;\nint b;\n  #include "a.h"\nint body;\n'
    )


def test_headers_that_include_each_other_end(tmp_path: Path) -> None:
    write(tmp_path, a__h='#include "b.h"\nint a;\n', b__h='#include "a.h"\nint b;\n')
    (tmp_path / PREFACE).write_text("")
    (tmp_path / BODY).write_text('#include "a.h"\n')
    assert flatten(str(tmp_path)) == "int b;\nint a;\n"


@pytest.mark.parametrize("missing", [PREFACE, BODY, "a.h"])
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path, a__h="")
    (tmp_path / PREFACE).write_text("")
    (tmp_path / BODY).write_text('#include "a.h"\n')
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidInput, match=rf"cannot read the C source {tmp_path}/{missing}: "):
        flatten(str(tmp_path))


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / PREFACE).write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match=rf"{tmp_path}/{PREFACE}: "):
        flatten(str(tmp_path))


def test_own_program_is_whole() -> None:
    text = flatten(str(ROOT / "roles/packetwatch/files/bpf"))
    assert '#include "' not in text
    assert text.count("int packetwatch(struct xdp_md *context)") == 1


def test_each_source_is_linked_from_the_top_folder() -> None:
    links = ROOT / "files/bpf"
    sources = ROOT / "roles/packetwatch/files/bpf"
    assert {path.name for path in links.iterdir()} == {path.name for path in sources.iterdir()}
    for link in links.iterdir():
        assert link.is_symlink() and link.samefile(sources / link.name), link
