# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check licence headers, and that no file names a package registry or a path of a build machine."""

from __future__ import annotations

import fnmatch
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

LICENCE = re.compile(r"SPDX-License-Identifier: ([A-Za-z0-9.() +-]*[A-Za-z0-9)+])")
HEAD = 2048
LICENCE_TEXTS = ("COPYING", "LICENSES/*")

# Written in pieces, so that this file passes its own check.
REGISTRIES = (
    r"(?:test\.)?pypi\.(?:org|io)",
    r"(?:files\.)?pythonhosted\.org",
    r"galaxy\.ansible\.com",
    r"(?:deb|ftp[.\w]*|security|snapshot|cdn-aws\.deb)\.debian\.org",
    r"(?:docker|quay|ghcr|mcr|gcr)\.io",
    r"registry[.\w-]*\.(?:com|io|org|net)",
    r"proxy\.golang\.org",
    r"crates\.io",
)
FORBIDDEN = {
    "names a package registry's host": re.compile(rf"(?<![\w.-])(?:{'|'.join(REGISTRIES)})\b"),
    "names a folder of a build machine": re.compile(
        r"(?<![\w.}~/-])/(?:home/[a-z]|Users/|work/|root/\.pyenv|opt/hostedtoolcache|builds/)"
    ),
}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path matches any of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def annotated(root: Path) -> tuple[str, ...]:
    """The path patterns whose licence is declared in REUSE.toml."""
    tables = tomllib.loads((root / "REUSE.toml").read_text())["annotations"]
    paths: list[str] = []
    for table in tables:
        path = table["path"]
        paths += [path] if isinstance(path, str) else path
    return tuple(paths)


def licence_problems(root: Path, name: str, text: str) -> Iterator[str]:
    """Check that a file names its licence and that the licence's text is in LICENSES."""
    sidecar = root / f"{name}.license"
    head = sidecar.read_text() if sidecar.exists() else text[:HEAD]
    found = LICENCE.search(head)
    if not found:
        yield "has no SPDX-License-Identifier in its head"
        return
    for word in re.split(r"[() ]+", found[1]):
        if word in ("", "AND", "OR", "WITH", "Linux-syscall-note"):
            continue
        if not (root / "LICENSES" / f"{word}.txt").exists():
            yield f"names {word}, which is not in LICENSES"


def problems(root: Path, build_root: str, names: list[str]) -> Iterator[str]:
    """Yield one line for each problem."""
    elsewhere = annotated(root) + LICENCE_TEXTS
    for name in names:
        path = root / name
        if path.is_symlink():
            if not path.resolve().is_relative_to(root):
                yield f"{name}: links to something outside the collection"
            elif not path.exists():
                yield f"{name}: links to nothing"
            continue
        text = path.read_text(errors="replace")
        if not matches(name, elsewhere) and text and not name.endswith(".license"):
            for problem in licence_problems(root, name, text):
                yield f"{name}: {problem}"
        for number, line in enumerate(text.splitlines(), 1):
            for problem, pattern in FORBIDDEN.items():
                if pattern.search(line):
                    yield f"{name}:{number}: {problem}"
            if f"{build_root}/" in line:
                yield f"{name}:{number}: names the folder of this checkout"


def main() -> None:
    """Check the copy against the manifest: check_tree.py MANIFEST CHECKOUT, in the copy."""
    manifest, build_root = sys.argv[1:]
    names = Path(manifest).read_text().splitlines()
    found = list(problems(Path.cwd(), build_root, names))
    for line in found:
        print(line)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
