# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copy the files that git tracks, or would add, to the folder in which Ansible finds the collection."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHES = frozenset(
    {".ansible", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"}
)
CACHE_PATHS = frozenset({"tests/output"})


def shipped_files(root: Path) -> list[str]:
    """List the paths, relative to the root, of all files that are part of the project."""
    command = [
        "git",
        "-c",
        f"safe.directory={root}",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    names = {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}
    return sorted(name for name in names if os.path.lexists(root / name))


def same(source: Path, target: Path) -> bool:
    """Whether the target is an up-to-date copy, judged by kind, size, time and mode."""
    try:
        there = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    here = source.lstat()
    if source.is_symlink() or target.is_symlink():
        return (
            source.is_symlink() and target.is_symlink() and source.readlink() == target.readlink()
        )
    return (here.st_size, here.st_mtime_ns, mode_of(source)) == (
        there.st_size,
        there.st_mtime_ns,
        there.st_mode & 0o7777,
    )


def mode_of(source: Path) -> int:
    """The file's mode in a checkout: git records only the execute bit."""
    return 0o755 if source.stat().st_mode & 0o100 else 0o644


def copy(source: Path, target: Path) -> None:
    """Replace the target by a copy in one step, because a gate may be reading it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.sync")
    draft.unlink(missing_ok=True)
    shutil.copy2(source, draft, follow_symlinks=False)
    if not source.is_symlink():
        draft.chmod(mode_of(source))
    draft.replace(target)


def prune(folder: Path, base: Path, wanted: frozenset[str]) -> bool:
    """Remove unwanted files, but not the caches of folders that stay; return whether the folder is empty."""
    kept = False
    caches = []
    for entry in folder.iterdir():
        name = entry.relative_to(base).as_posix()
        if entry.is_dir() and not entry.is_symlink():
            if entry.name in CACHES or name in CACHE_PATHS:
                caches.append(entry)
            elif prune(entry, base, wanted):
                entry.rmdir()
            else:
                kept = True
        elif name in wanted:
            kept = True
        else:
            entry.unlink()
    if not kept:
        for cache in caches:
            shutil.rmtree(cache)
    return not kept


def main() -> None:
    """Bring the copy under the build folder up to date and list its files in the manifest."""
    root = Path(__file__).resolve().parents[2]
    build = Path(sys.argv[1]).absolute()
    base = build / "ansible_collections" / "packetwatch" / "xdp"
    base.mkdir(parents=True, exist_ok=True)
    with (build / "sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = shipped_files(root)
        prune(base, base, frozenset(names))
        for name in names:
            if not same(root / name, base / name):
                copy(root / name, base / name)
        (build / "manifest").write_text("".join(f"{name}\n" for name in names))


if __name__ == "__main__":
    main()
