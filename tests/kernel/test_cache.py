# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytecode from the cache: without bcc and headers, in little memory; damaged files are not used."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kernel.hosting import (
    DENIED,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    install_library,
    run,
    source_text,
)

from packetwatch_core._base.digest import digest_text
from packetwatch_core._base.errors import LoadFailed
from packetwatch_core._declared.edits import set_lists, set_policy
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.bytecode import PYTHON, Compiler
from packetwatch_core._kernel.pins import Paths
from packetwatch_core._preflight.machine import Machine
from packetwatch_core._preflight.program import is_compiled

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

LIMIT_KIB = 15 * 1024
# The same calls as in the one-shot; at the end it prints its peak memory.
ATTACH = """
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._kernel.pins import Paths
def run(argv, stdin):
    raise AssertionError("a process is started")
print(filter_interface(run, Paths(**{paths!r}), "pw0", 1.0).mode)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(line.split()[1])
"""
HIDE = """
for folder in /usr/lib/python3/dist-packages /usr/local/lib/python3*/dist-packages \\
    /lib/modules /usr/src; do
    [ ! -d $folder ] || mount -t tmpfs none $folder
done
exec "$@"
"""
# More than the space of a short list: the program is loaded again.
LONG = "".join(f"2001:db8:{high:x}:{low:x}::/64\n" for high in range(64) for low in range(1024))
CODE = "int packetwatch(struct xdp_md *context)\n{\n\treturn %s;\n}\n"


class Counter:
    """Starts and counts processes."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        self.runs += 1
        return run(argv, stdin)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def compiler(counter: Counter, tmp_path: Path) -> Compiler:
    """A site with a cache of its own."""
    return Compiler(counter, str(tmp_path / "cache"))


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_load_needs_neither_bcc_nor_headers_and_little_memory(
    filtered: Site, tmp_path: Path
) -> None:
    # As after a reboot: everything is declared, nothing is in the kernel.
    filtered.power_off()
    # Compiling the library's modules would take more than their work.
    install_library(tmp_path / "lib")
    script = ATTACH.format(paths=filtered.paths_as_words())
    python = ("/usr/bin/python3", "-Ps", "-c", script)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", HIDE, "sh", *python],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(tmp_path / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mode, peak = done.stdout.split()
    print(f"peak: {peak} KiB")
    assert mode == "native"
    assert filtered.verdict(DENIED) == XDP_DROP
    assert int(peak) <= LIMIT_KIB


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-10],
        lambda data: data.replace(b"b7", b"bf", 1),
        lambda data: b"\xff" + data,
        lambda data: b"\n".join(data.split(b"\n")[:2]) + b"\n",
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "cut", "one instruction", "not text", "no check", "zeros"],
)
def test_damaged_file_is_as_good_as_none(
    site: Site, tmp_path: Path, bytecode_cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    site.warm_cache()
    shutil.copytree(bytecode_cache, tmp_path / "cache")
    compiler = Compiler(run, str(tmp_path / "cache"))
    assert compiler.cached(source_text()) is not None
    for path in entries(tmp_path):
        path.write_bytes(damage(path.read_bytes()))
    assert compiler.cached(source_text()) is None


@pytest.mark.slow
def test_damaged_file_is_compiled_anew(site: Site, tmp_path: Path, bytecode_cache: Path) -> None:
    site.warm_cache()
    shutil.copytree(bytecode_cache, tmp_path / "cache")
    for path in entries(tmp_path):
        path.write_bytes(b"\0")
    host = site.with_cache(tmp_path / "cache")
    assert host.attach("pw0").mode == "native"
    host.detach("pw0")
    compiler = Compiler(run, str(tmp_path / "cache"))
    assert compiler.cached(source_text()) == Compiler(run, site.paths.cache).cached(source_text())


def test_every_source_is_compiled_once_and_roots_alone(
    compiler: Compiler, counter: Counter, tmp_path: Path
) -> None:
    one, other = (compiler.get(CODE % verdict) for verdict in ("XDP_PASS", "XDP_DROP"))
    assert one.digest != other.digest
    assert compiler.get(CODE % "XDP_PASS") == compiler.cached(CODE % "XDP_PASS") == one
    assert len(entries(tmp_path)) == counter.runs == 2
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "cache", *entries(tmp_path)]}
    assert modes == {0o700, 0o600}


def test_only_kernel_headers_bind_to_the_running_kernel(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.uname()
    plain = source_text()
    bound = ("#include <uapi/linux/bpf.h>\n#include <linux/skbuff.h>\n") + CODE % "XDP_PASS"
    paths = [compiler._path(text) for text in (plain, bound)]
    elsewhere = os.uname_result((*here[:2], "6.12.0-other", *here[3:]))
    monkeypatch.setattr(os, "uname", lambda: elsewhere)
    now = [compiler._path(text) for text in (plain, bound)]
    assert now[0] == paths[0] and now[1] != paths[1]


def test_what_does_not_compile_is_not_kept(compiler: Compiler, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"(?s)does not compile: .*error: .*'nothing'"):
        compiler.get(CODE % "nothing")
    assert not (tmp_path / "cache").exists()


def without_compiler(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    assert argv[0] != PYTHON, "the compiler is started"
    return run(argv, stdin)


@pytest.fixture(params=["cache", "boot image"])
def compiled(filtered: Site, tmp_path: Path, request: pytest.FixtureRequest) -> Paths:
    """A filtered host of which only one place has the bytecode."""
    if request.param == "cache":
        shutil.rmtree(filtered.paths.images)
        return filtered.paths
    return filtered.paths._replace(cache=str(tmp_path / "none"))


def test_what_is_compiled_needs_no_compiler(filtered: Site, compiled: Paths) -> None:
    host = Host(without_compiler, compiled)
    host.apply(set_lists("ansible", {"deny": f"{UNLISTED}\n{LONG}"}, True))
    assert (filtered.verdict(DENIED), filtered.verdict(UNLISTED)) == (XDP_PASS, XDP_DROP)
    host.apply(set_policy(None, {"PW_SCAN_PORTS": "7"}, False))
    assert not host.attach("pw0", source=source_text()).changed
    host.remake()
    assert host.drift() == []
    filtered.power_off()
    assert not filter_interface(without_compiler, compiled, "pw0", 1.0).problem
    assert filtered.verdict(UNLISTED) == XDP_DROP


def test_preflight_finds_what_is_compiled(filtered: Site, compiled: Paths, tmp_path: Path) -> None:
    dummy, state = filtered.host.store.read_current()
    own = digest_text(source_text())
    assert is_compiled(Machine(without_compiler, paths=compiled), state, own)
    # The installed program counts if another one is declared.
    assert is_compiled(Machine(without_compiler, paths=compiled), state._replace(program=CODE), own)
    assert not is_compiled(Machine(without_compiler, paths=compiled), state, digest_text(CODE))
    nothing = compiled._replace(cache=str(tmp_path / "none"), images=str(tmp_path / "no images"))
    assert not is_compiled(Machine(without_compiler, paths=nothing), state, own)
    bare = compiled._replace(source="/nowhere")
    assert not is_compiled(Machine(without_compiler, paths=bare), state._replace(program=""), own)
