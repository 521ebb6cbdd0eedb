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
from packetwatch_core._base.errors import LoadFailed, Unsupported
from packetwatch_core._base.paths import Paths
from packetwatch_core._declared.edits import set_lists, set_policy
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.bytecode import PYTHON, Compiler
from packetwatch_core._preflight.machine import Machine
from packetwatch_core._preflight.program import is_compiled

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

LIMIT_KIB = 15 * 1024 + 512
# The same calls as in the one-shot; at the end it prints its peak memory.
ATTACH = """
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._base.paths import Paths
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
    # Compiling the library's modules would take more than their work.
    install_library(tmp_path / "lib")
    # The kernel maps pages of files beside those that are used, more or fewer of them each time.
    assert any(peak_of_attach(filtered, tmp_path / "lib") <= LIMIT_KIB for _attempt in range(3))
    assert filtered.verdict(DENIED) == XDP_DROP


def peak_of_attach(filtered: Site, library: Path) -> int:
    """Attach as after a reboot: everything is declared, nothing is in the kernel. Returns the most memory in KiB."""
    filtered.power_off()
    script = ATTACH.format(paths=filtered.paths_as_words())
    python = ("/usr/bin/python3", "-Ps", "-c", script)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", HIDE, "sh", *python],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(library),
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
    return int(peak)


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


# Who may have written the cache


NOBODY = 65534
Tamper = Callable[[Path], None]


def of_another_user(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def writable(path: Path) -> None:
    path.chmod(0o666)


def writable_for_a_group(path: Path) -> None:
    path.chmod(0o620)


def folder_of_another_user(path: Path) -> None:
    os.chown(path.parent, NOBODY, NOBODY)


def folder_writable(path: Path) -> None:
    path.parent.chmod(0o777)


def link(path: Path) -> None:
    """A link to a file whose contents are right: its owner can change them later."""
    theirs = path.parent.parent / "theirs"
    shutil.move(path, theirs)
    os.chown(theirs, NOBODY, NOBODY)
    path.symlink_to(theirs)


def link_to_own(path: Path) -> None:
    ours = path.parent.parent / "ours"
    shutil.move(path, ours)
    path.symlink_to(ours)


def link_in_place_of_the_folder(path: Path) -> None:
    theirs = path.parent.parent / "their folder"
    shutil.move(path.parent, theirs)
    path.parent.symlink_to(theirs)


def other_program(path: Path) -> None:
    """Bytecode of another program, with its own checksum."""
    compiler = Compiler(run, str(path.parent))
    compiler.get(CODE % "XDP_DROP")
    Path(compiler._path(CODE % "XDP_DROP")).rename(path)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


TAMPERS = (
    *(of_another_user, writable, writable_for_a_group, folder_of_another_user, folder_writable),
    *(link, link_to_own, link_in_place_of_the_folder, other_program, fifo, folder, device),
)
# Root cannot replace a folder by a file without deleting what is in it.
STAYS = (folder,)


@pytest.fixture
def entry(compiler: Compiler, tmp_path: Path) -> Path:
    """The cache's file of a small program."""
    compiler.get(CODE % "XDP_PASS")
    (found,) = entries(tmp_path)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
def test_only_roots_own_file_is_believed(
    compiler: Compiler, counter: Counter, entry: Path, tamper: Tamper
) -> None:
    before = compiler.cached(CODE % "XDP_PASS")
    assert before is not None and not compiler.refused
    tamper(entry)
    assert compiler.cached(CODE % "XDP_PASS") is None
    assert f"{entry} is not used: " in compiler.refused
    counter.runs = 0
    for dummy in range(2):
        assert compiler.get(CODE % "XDP_PASS") == before
        assert counter.runs == 1
    if tamper in STAYS:
        return
    # What was made anew is root's alone, wherever it was before.
    assert compiler.cached(CODE % "XDP_PASS") == before
    for path, mode in ((entry, 0o600), (entry.parent, 0o700)):
        found = path.lstat()
        assert (found.st_uid, found.st_mode & 0o777) == (0, mode) and not path.is_symlink()


def test_a_planted_draft_is_not_followed(compiler: Compiler, entry: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (entry.parent / f".new-{entry.name}").symlink_to(victim)
    entry.write_text("")
    compiler.get(CODE % "XDP_PASS")
    assert victim.read_text() == "precious"


def test_without_a_compiler_the_error_says_why_it_is_needed(entry: Path) -> None:
    def lacks(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        return 1, "", "ModuleNotFoundError: No module named 'bcc'"

    writable(entry)
    with pytest.raises(Unsupported, match=r"python3-bpfcc; .*may have written it.* mode 0666"):
        Compiler(lacks, str(entry.parent)).get(CODE % "XDP_PASS")


def without_bcc(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    if argv[0] == PYTHON:
        return 1, "", "ModuleNotFoundError: No module named 'bcc'"
    return run(argv, stdin)


@pytest.fixture
def own_cache(filtered: Site, tmp_path: Path) -> tuple[Paths, Path]:
    """The paths of a filtered host with a cache of its own, and the program's file in it."""
    shutil.copytree(filtered.paths.cache, tmp_path / "own")
    paths = filtered.paths._replace(cache=str(tmp_path / "own"))
    return paths, Path(Compiler(run, paths.cache)._path(source_text()))


@pytest.mark.slow
def test_a_refused_file_is_reported_until_it_is_made_anew(
    filtered: Site, own_cache: tuple[Paths, Path]
) -> None:
    paths, path = own_cache
    assert Host(without_bcc, paths).verify() == []
    writable(path)
    host = Host(without_bcc, paths)
    (problem,) = host.verify()
    assert str(path) in problem and "mode 0666" in problem
    # The boot image has the same bytecode, so the cache gets it back without a compiler.
    host.apply()
    assert problem in host.distrusted
    assert Compiler(without_bcc, paths.cache).cached(source_text()) is not None
    assert host.verify() == [problem]
    host = Host(without_bcc, paths)
    host.apply()
    assert host.verify() == host.distrusted == []


@pytest.mark.slow
def test_the_boot_image_is_believed_by_the_same_rule(filtered: Site) -> None:
    path = Path(filtered.paths.images) / "confirmed"
    for tamper in (writable, of_another_user, folder_writable, link_to_own):
        tamper(path)
        host = Host(run, filtered.paths)
        (problem,) = host.verify()
        assert f"the boot image {path} is not used: " in problem
        host.apply()
        host.apply()
        assert host.verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("tamper", [writable, other_program, fifo])
def test_a_refused_cache_without_a_compiler_changes_nothing(
    filtered: Site, own_cache: tuple[Paths, Path], tamper: Tamper
) -> None:
    paths, path = own_cache
    shutil.rmtree(paths.images)
    tamper(path)
    before = filtered.snapshot()
    with pytest.raises(Unsupported, match=r"bcc is not installed.* is not used"):
        Host(without_bcc, paths).remake()
    # The next boot would fail too, rather than load what another user may have written.
    (problem,) = Host(without_bcc, paths).verify()
    assert str(path) in problem
    assert filtered.snapshot() == before
    assert filtered.verdict(DENIED) == XDP_DROP


def full_folder(path: Path) -> None:
    folder(path)
    (path / "file").touch()


def full_folder_for_the_draft(path: Path) -> None:
    path.unlink()
    full = path.parent / f".new-{path.name}"
    full.mkdir()
    (full / "file").touch()


@pytest.mark.slow
@pytest.mark.parametrize("tamper", [full_folder, full_folder_for_the_draft])
def test_a_boot_filters_with_a_cache_that_cannot_be_written(
    filtered: Site, own_cache: tuple[Paths, Path], tamper: Tamper
) -> None:
    paths, path = own_cache
    shutil.rmtree(paths.images)
    tamper(path)
    filtered.power_off()
    done = filter_interface(run, paths, "pw0", 1.0)
    assert f"the bytecode cannot be written to the cache {path}" in done.problem
    assert filtered.verdict(DENIED) == XDP_DROP
    assert path.name in "".join(Host(run, paths).status.distrusted())


@pytest.mark.slow
def test_a_boot_compiles_what_it_refuses_and_says_so(
    filtered: Site, own_cache: tuple[Paths, Path]
) -> None:
    paths, path = own_cache
    shutil.rmtree(paths.images)
    other_program(path)
    filtered.power_off()
    done = filter_interface(run, paths, "pw0", 1.0)
    assert f"{path} is not used: it is damaged, or of another program" in done.problem
    assert filtered.verdict(DENIED) == XDP_DROP
    assert str(path) in "".join(Host(run, paths).status.distrusted())
