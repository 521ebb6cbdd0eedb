# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers from Debian's packages, unpacked into the build folder and run in place.

Nothing is installed, so nothing starts by itself. etcd is a static program: that of the other release runs
here too. `python -m fleet.software` unpacks everything, so that no test waits for a mirror.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SUITES = {"3.4": "bookworm", "3.5": "trixie"}
VERSIONS = tuple(SUITES)
# Seconds until a further attempt. While a mirror is updated, it may lack files that its index names.
_PAUSES = (5.0, 20.0, 60.0)
# The machine's network namespace: those that tests enter reach no mirror.
_OUTSIDE = os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def etcd(version: str) -> Path:
    """The folder with etcd and etcdctl of a version."""
    return _unpacked(SUITES[version], "etcd-server", "etcd-client") / "usr/bin"


def api(suite: str) -> Path:
    """A tree with the Python of a release and the libraries of the API."""
    return _unpacked(suite, "gunicorn", "python3", "python3-flask", "python3-jsonschema")


def chromium() -> Path:
    """A tree with the browser Chromium of this machine's release."""
    return _unpacked(_own_suite(), "chromium", "fonts-dejavu-core")


def broker(suite: str) -> Path:
    """A tree with RabbitMQ of a release, the Python of that release and its library for AMQP."""
    tools = ("base-files", "coreutils", "dash", "grep", "hostname", "procps", "sed", "util-linux")
    return _unpacked(suite, *sorted((*tools, "python3", "python3-amqp", "rabbitmq-server")))


def nginx() -> Path:
    """nginx of this machine's release, because it needs libraries of that release."""
    return _unpacked(_own_suite(), "nginx") / "usr/sbin/nginx"


def main() -> None:
    """Unpack everything."""
    trees: list[Callable[[], Path]] = [nginx, chromium]
    for release, version in zip(SUITES.values(), SUITES, strict=True):
        trees += [functools.partial(each, release) for each in (api, broker)]
        trees.append(functools.partial(etcd, version))
    began = time.monotonic()
    paths = {tree() for tree in trees}
    print(f"{len(paths)} trees are unpacked after {time.monotonic() - began:.0f} s")


def _own_suite() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]


def _cache() -> Path:
    """A folder that stays from run to run: the build folder if this runs from its copy of the tests."""
    for parent in Path(__file__).resolve().parents:
        if parent.name == "ansible_collections":
            return parent.parent / "cache/servers"
    return Path(__file__).resolve().parents[2] / ".build/cache/servers"


def _unpacked(suite: str, *packages: str) -> Path:
    """The folder with the files of a release's packages, which are downloaded once."""
    folder = _cache() / f"{suite}-{'-'.join(packages)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problem = ""
        for pause in (0.0, *_PAUSES):
            if folder.is_dir():
                break
            time.sleep(pause)
            problem = _unpack(suite, packages, folder)
    assert folder.is_dir(), f"{suite}: {' '.join(packages)}: {problem}"
    return folder


def _unpack(suite: str, packages: tuple[str, ...], folder: Path) -> str:
    """Download packages and unpack them to a folder; return what went wrong."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        tree = Path(work) / "tree"
        # It unpacks, and runs no script of a package.
        argv = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{_OUTSIDE}"]
        argv += ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract"]
        argv += ['--aptopt=Acquire::Retries "5"']
        argv += [f"--include={','.join(packages)}", suite, str(tree)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            tree.rename(folder)
            return ""
    return done.stderr


if __name__ == "__main__":
    main()
