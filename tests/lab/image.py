# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Disk images of Debian guests: built once per recipe, shared by all machines as a backing file.

An image is a directory named by suite and digest of the recipe, with `disk.raw`, `vmlinuz`,
`initrd` and `tree`. It appears by one rename, so a killed build leaves nothing that looks finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import guest
from lab.errors import LabError
from lab.process import Progress, follow, require, run, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUITES = ("bookworm", "trixie")
DISK_SIZE = "6G"
_BUILD_SECONDS = 1800.0
# A step that mmdebstrap announces.
_STEP = re.compile(r"I: ((?:running apt|downloading|extracting|installing|cleaning).*?)\.*$")
_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}


@dataclass(frozen=True)
class Image:
    """A finished image in the cache."""

    suite: str
    directory: Path

    @property
    def disk(self) -> Path:
        """The root file system, raw; never written to after the build."""
        return self.directory / "disk.raw"

    @property
    def tree(self) -> Path:
        """The same root file system as a folder, for containers."""
        return self.directory / "tree"

    @property
    def kernel(self) -> Path:
        """The suite's stock kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The kernel's initial RAM disk, with only the drivers that a lab machine needs."""
        return self.directory / "initrd"


def architecture() -> str:
    """Debian's name of this machine's architecture."""
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def find(suite: str, cache: Path) -> Image | None:
    """The finished image of a suite's present recipe, or None if it is not built yet."""
    directory = cache / f"{suite}-{_digest(suite)}"
    return Image(suite, directory) if directory.is_dir() else None


def ensure(suites: Iterable[str], cache: Path) -> dict[str, Image]:
    """Return the images of all given suites; build the missing ones, two at a time.

    Raises LabError for an unknown suite and for a build that failed.
    """
    wanted = sorted(set(suites))
    if unknown := [suite for suite in wanted if suite not in SUITES]:
        raise LabError(f"no recipe for suite {', '.join(unknown)}; choose from {', '.join(SUITES)}")
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(wanted, pool.map(lambda suite: _ensure(suite, cache), wanted), strict=True))


def _ensure(suite: str, cache: Path) -> Image:
    if image := find(suite, cache):
        return image
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f".{suite}.lock"):
        # Another process may have finished it while this one waited.
        return find(suite, cache) or _build(suite, cache)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _digest(suite: str) -> str:
    recipe = {
        "suite": suite,
        "architecture": architecture(),
        "packages": guest.packages(architecture()),
        "early": guest.EARLY_FILES,
        "files": guest.FILES,
        "script": guest.SETUP,
        "disk": [DISK_SIZE, _MKFS],
        "results": ["disk", "kernel", "initrd", "tree"],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


# A journal costs almost nothing with cache=unsafe, and a file system needs it to survive a power cut.
_MKFS = ["-q", "-t", "ext4", "-J", "size=16", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"]


def _build(suite: str, cache: Path) -> Image:
    """Build an image. The caller holds the suite's lock, so folders of that name are of dead builds."""
    require(_TOOLS)
    for leftover in cache.glob(f".{suite}-*"):
        shutil.rmtree(leftover)
    began = time.monotonic()
    say(f"{suite}: building the guest image in {cache}; this is done once and takes minutes")
    work = Path(tempfile.mkdtemp(prefix=f".{suite}-", dir=cache))
    try:
        tree, result = work / "tree", work / "image"
        result.mkdir()
        with Progress(f"{suite}: ") as progress:
            _bootstrap(suite, work, tree, progress)
            progress.step("setting up services")
            _set_up(tree)
            for name, target in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
                shutil.copyfile(_only(tree / "boot", f"{name}-*"), result / target)
            progress.step("making the disk")
            disk = str(result / "disk.raw")
            run(["mke2fs", *_MKFS, "-d", str(tree), disk, DISK_SIZE], timeout=_BUILD_SECONDS)
        tree.rename(result / "tree")
        final = cache / f"{suite}-{_digest(suite)}"
        result.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"{suite}: image built in {time.monotonic() - began:.0f} s")
    return Image(suite, final)


def _bootstrap(suite: str, work: Path, tree: Path, progress: Progress) -> None:
    early = work / "early"
    _write(early, guest.EARLY_FILES)

    def heed(line: str) -> None:
        if found := _STEP.match(line):
            progress.step(found[1])

    follow(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            f"--include={','.join(guest.packages(architecture()))}",
            *(f"--dpkgopt=path-exclude={path}" for path in guest.LEFT_OUT),
            # Copied before the kernel is unpacked, so that its initrd is made only once.
            f'--essential-hook=cp -a "{early}/." "$1/"',
            suite,
            str(tree),
        ],
        heed,
        timeout=_BUILD_SECONDS,
    )


def _set_up(tree: Path) -> None:
    _write(tree, guest.FILES)
    run(["chroot", str(tree), "sh", "-eu"], stdin=guest.SETUP)


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)


def _only(directory: Path, pattern: str) -> Path:
    found = list(directory.glob(pattern))
    if len(found) != 1:
        raise LabError(f"expected one {pattern} in {directory}, found {len(found)}")
    return found[0]
