# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytecode from the cache: without bcc and headers, in little memory, and never a damaged one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kernel.hosting import DENIED, ROOT, XDP_DROP, Site, other_program, run, source_text

from packetwatch_core._compile import Compiler

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

LIMIT_KIB = 15 * 1024
# As the one-shot does it; its peak is said at the end.
ATTACH = """
from packetwatch_core._host import Host
from packetwatch_core._pins import Paths
def run(argv, stdin):
    raise AssertionError("a process is started")
print(Host(run, Paths(**{paths!r})).attach("pw0").mode)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(line.split()[1])
"""
HIDE = """
for folder in /usr/lib/python3/dist-packages /lib/modules /usr/src; do
    mount -t tmpfs none $folder
done
exec "$@"
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The library as it is installed."""
    shutil.copytree(ROOT / "plugins/module_utils", tmp_path / "lib/packetwatch_core")
    return tmp_path / "lib"


def attach_elsewhere(site: Site, library: Path, **environment: str) -> tuple[str, int]:
    """Attach in a process that sees neither bcc nor headers; returns mode and peak memory (KiB)."""
    script = ATTACH.format(paths=site.paths_as_words())
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", HIDE, "sh", "/usr/bin/python3", "-Ps", "-c", script],
        env=os.environ | {"PYTHONPATH": str(library)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mode, peak = done.stdout.split()
    return mode, int(peak)


def test_load_needs_neither_bcc_nor_headers_and_little_memory(site: Site, library: Path) -> None:
    site.lists(deny=f"{DENIED}\n2001:db8::/32")
    site.warm_cache()
    mode, peak = attach_elsewhere(site, library, PYTHONDONTWRITEBYTECODE="1")
    assert mode == "native"
    assert site.verdict(DENIED) == XDP_DROP
    assert peak <= LIMIT_KIB
