# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Debian's packages: those that are missing, and those that apt cannot install."""

from __future__ import annotations

import re
import typing as t

if t.TYPE_CHECKING:
    from .machine import Machine

LOADER = "libbpf1"
"""The package that loads a compiled program."""
LIBXDP = "libxdp1"
"""The package with libxdp's dispatcher. All others are needed only to compile a program."""

_FLAVOUR = re.compile(r"-((?:cloud-|rt-)?(?:amd64|arm64))$")
# Without the second option, apt-get update succeeds even if it could not fetch any list.
_APT_OPTIONS = ("DPkg::Lock::Timeout=60", "APT::Update::Error-Mode=any")


def flavour(release: str) -> str | None:
    """The kind of Debian kernel that a release is: its metapackages end in this."""
    match = _FLAVOUR.search(release)
    return match[1] if match else None


def missing_packages(machine: Machine, packages: t.Sequence[str]) -> list[str]:
    """The packages that are needed and not installed."""
    wanted = [*packages, *_needed_headers(machine)]
    present = _installed(machine, wanted)
    return [name for name in wanted if name not in present]


def split_packages(
    machine: Machine,
    packages: list[str],
    compiled: bool,
    check: bool,
    warn: t.Callable[[str], None],
) -> tuple[list[str], list[str]]:
    """The missing packages that can be installed, and reasons against a run because of the others.

    compiled: the program needs no compiler. check: the caller is in check mode. In both cases the other
    packages are only a warning, and apt's lists stay as they are: an update may take minutes.
    """
    tentative = check or compiled
    unavailable = unavailable_packages(machine, packages, not tentative, warn)
    reasons = [explain_unavailable(machine, name) for name in unavailable]
    if not tentative:
        return packages, reasons
    why = (
        "this run goes on without it: the program is compiled already"
        if compiled
        else "its lists may be out of date: check mode leaves them so"
    )
    for reason in reasons:
        warn(f"{reason} ({why})")
    return [name for name in packages if name not in unavailable], []


def unavailable_packages(
    machine: Machine, packages: t.Sequence[str], refresh: bool, warn: t.Callable[[str], None]
) -> list[str]:
    """The packages that apt cannot get. refresh: update apt's lists before a package is given up."""
    if not packages:
        return []
    missing = _unlisted(machine, packages)
    if missing and refresh:
        options = (f"-o{option}" for option in _APT_OPTIONS)
        status, dummy, errors = machine.run(("apt-get", "-q", *options, "update"), None)
        if status != 0:
            warn(f"apt-get update failed: {errors.strip()}")
        missing = _unlisted(machine, packages)
    return missing


def explain_unavailable(machine: Machine, name: str) -> str:
    """Why apt cannot get a package, and what to do."""
    release = machine.release
    if name != f"linux-headers-{release}":
        return f"the package {name} is not in apt's lists: check the sources of apt"
    kind, newer = flavour(release), _newer_kernel(machine)
    if not kind:
        return (
            f"there are no headers of the running kernel {release}, which is not one of Debian's: "
            f"install its headers as /lib/modules/{release}/build, or boot Debian's kernel"
        )
    remedy = (
        f"reboot into {newer}, which is installed with its headers"
        if newer
        else f"upgrade the kernel (apt install linux-image-{kind} linux-headers-{kind}) and reboot into it"
    )
    return (
        f"the headers of the running kernel {release} are not installed, and the archive does "
        f"not have them (any more): {remedy}"
    )


def _needed_headers(machine: Machine) -> list[str]:
    """The packages with the headers of the running kernel and, by the metapackage, of later ones."""
    kind = flavour(machine.release)
    meta = [f"linux-headers-{kind}"] if kind else []
    own = f"linux-headers-{machine.release}"
    if _has_headers(machine, machine.release):
        return meta
    # A dependency of the metapackage is removed with its kernel; a package that is named here would
    # stay.
    if meta and own in machine.output("apt-cache", "depends", *meta).split():
        return meta
    return [*meta, own]


def _has_headers(machine: Machine, release: str) -> bool:
    return machine.path(f"lib/modules/{release}/build/include").is_dir()


def _newer_kernel(machine: Machine) -> str | None:
    """The newest installed kernel of the running flavour that has headers, but for the running one."""
    found = [
        path.name
        for path in machine.path("lib/modules").glob("*")
        if path.name != machine.release
        and flavour(path.name) == flavour(machine.release)
        and _has_headers(machine, path.name)
    ]
    return max(
        found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], default=None
    )


def _installed(machine: Machine, packages: t.Sequence[str]) -> set[str]:
    out = machine.output("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *packages)
    words = (line.split() for line in out.splitlines())
    return {name for status, name in words if status == "installed"}


def _unlisted(machine: Machine, packages: t.Sequence[str]) -> list[str]:
    """The packages that apt's lists do not have."""
    listed: set[str] = set()
    name = ""
    for line in machine.output("apt-cache", "policy", *packages).splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and not line.endswith("(none)"):
            listed.add(name)
    return [name for name in packages if name not in listed]
