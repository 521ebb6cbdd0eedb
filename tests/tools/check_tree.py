# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check links, and that no file names a package registry or a path of a build machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

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


def problems(root: Path, build_root: str, names: list[str]) -> Iterator[str]:
    """Yield one line for each problem."""
    for name in names:
        path = root / name
        if path.is_symlink():
            if not path.resolve().is_relative_to(root):
                yield f"{name}: links to something outside the collection"
            elif not path.exists():
                yield f"{name}: links to nothing"
            continue
        text = path.read_text(errors="replace")
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
