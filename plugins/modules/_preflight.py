#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _preflight
short_description: Tell whether Packetwatch can be installed on a host
version_added: 0.1.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Looks at everything that the role relies on and fails with all reasons at once, each with its remedy, before
    the role has changed anything.
  - The action plugin first refuses variables that the role does not know.
  - Refreshes the lists of C(apt) when a package is needed that they do not have, except in check mode.
author:
  - Packetwatch authors (@packetwatch)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns what has changed, or would change, when in diff mode.
    support: none
  platform:
    description: Target OS families that can be operated against.
    support: full
    platforms: debian
options:
  interfaces:
    description: Names of interfaces, or dictionaries with a C(name), a C(mode) and policy options.
    type: list
    elements: raw
  packages:
    description: The packages that are needed besides the kernel's headers.
    type: list
    elements: str
    default: []
  policy:
    description: The policy for all interfaces, as options of M(packetwatch.xdp.policy).
    type: dict
    default: {}
  protect:
    description: The declared protected addresses and prefixes.
    type: list
    elements: str
    default: []
  readers:
    description: The users that may look, if they are declared.
    type: list
    elements: str
    default: []
  admins:
    description: The users that may change too, if they are declared.
    type: list
    elements: str
    default: []
  list_memory:
    description: The bound of the lists' memory in MiB.
    type: int
    default: 64
  confirm_timeout:
    description: Seconds for which a change waits to be confirmed.
    type: float
    default: 60
  metrics_listen:
    description: Address and port of the metrics, or nothing.
    type: str
    default: ""
  heartbeat_url:
    description: Where to send heartbeats, or nothing.
    type: str
    default: ""
  heartbeat_interval:
    description: Seconds between two of them.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Check the host
  packetwatch.xdp._preflight:
    packages: [libbpf1, python3-bpfcc]
"""

RETURN = r"""
interfaces:
  description: The interfaces to attach to, as dictionaries, each with the C(unit) that attaches it at boot.
  returned: success
  type: list
  elements: dict
detach:
  description: The interfaces that are no longer wanted, each with its C(unit).
  returned: success
  type: list
  elements: dict
packages:
  description: The packages to install. In check mode without those that the present lists of C(apt) do not have.
  returned: success
  type: list
  elements: str
policies:
  description: Those of the interfaces that have a policy of their own, or shall have one.
  returned: success
  type: list
  elements: dict
bare:
  description: Whether the packages are missing without which nothing can be asked of the kernel.
  returned: success
  type: bool
installed:
  description: Whether the units are there.
  returned: success
  type: bool
agent_outdated:
  description: Whether the agent runs, but with settings or code of before.
  returned: success
  type: bool
feeds:
  description: Whether the host has lists of feeds.
  returned: success
  type: bool
"""

import dataclasses
import difflib
import os
import pathlib
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.address import (
    parse_address,
    parse_prefix,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.policy import (
    keys_from_options,
    merge_policy,
    parse_policy,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.store import (
    MODES,
    Store,
    check_interface,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._feeds.spare import has_feeds

DEBIAN = ("12", "13")
KERNEL = (6, 1)
ETHERNET = 1
LOOPBACK = 772
# Types that people have, as the kernel numbers them (include/uapi/linux/if_arp.h).
TYPES = {
    32: "InfiniBand",
    512: "PPP",
    768: "IP tunnel",
    776: "IPv6-in-IPv4",
    65534: "tun or WireGuard",
}
FLAVOUR = re.compile(r"-((?:cloud-|rt-)?(?:amd64|arm64))$")
ENDPOINT = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9a-fA-F:.]+)\]):(?P<port>[0-9]{1,5})")
# As in the agent's settings: what it would refuse.
URL = re.compile(
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?([/?][!#-\[\]-~]*)?"
)
INTERVALS = range(10, 86401)
MOST_MEMORY = 65536
LEAST_TIMEOUT = 10
MOST_TIMEOUT = 3600
MOST_PROTECTED = 4096
# Without the second one, lists that could not be had are no failure.
APT_OPTIONS = ("DPkg::Lock::Timeout=60", "APT::Update::Error-Mode=any")
UP = 0x1
UP_GATEWAY = 0x3
OVERRIDES = (
    "action",
    "ban_scope",
    "ban_time",
    "ban_time_max",
    "log_connections",
    "scan_counts",
    "scan_grace",
    "scan_ports",
    "scan_window",
)
KEYS = ("name", "mode", *OVERRIDES)

Run = t.Callable[[list[str]], tuple[int, str, str]]
Interface = dict[str, t.Any]


@dataclasses.dataclass
class Host:
    """Where to look, which a test can put elsewhere."""

    run: Run
    root: pathlib.Path = pathlib.Path("/")
    release: str = dataclasses.field(default_factory=lambda: os.uname().release)

    def path(self, name: str) -> pathlib.Path:
        """A path below the root."""
        return self.root / name

    def lines(self, name: str) -> list[str]:
        """The lines of a file; none if there is no such file."""
        try:
            return self.path(name).read_text().splitlines()
        except FileNotFoundError:
            return []


# The system


def agent_is_outdated(host: Host) -> bool:
    """Whether the agent runs, but started before its settings or its code were changed.

    A run that failed in between has told nobody that a restart is due.
    """
    command = ["systemctl", "show", "packetwatch.service", "--property=ExecMainStartTimestamp"]
    out = host.run([*command, "--value", "--timestamp=unix"])[1].strip()
    if not out.startswith("@"):
        return False
    changed = (
        path.lstat().st_mtime
        for path in (host.path("etc/default/packetwatch"), host.path("usr/lib/packetwatch/current"))
        if path.exists()
    )
    return any(moment > int(out[1:]) for moment in changed)


def check_system(host: Host) -> t.Iterator[str]:
    """Debian, kernel, systemd, bpffs."""
    release = dict(
        line.replace('"', "").split("=", 1) for line in host.lines("etc/os-release") if "=" in line
    )
    if release.get("ID") != "debian" or release.get("VERSION_ID") not in DEBIAN:
        found = release.get("PRETTY_NAME") or release.get("ID") or "unknown"
        yield f"the system is {found}: Debian {' or '.join(DEBIAN)} is needed"
    number = re.match(r"(\d+)\.(\d+)", host.release)
    if number is None or (int(number[1]), int(number[2])) < KERNEL:
        yield (
            f"the running kernel is {host.release}, and {KERNEL[0]}.{KERNEL[1]} or newer is needed: "
            "install Debian's kernel (linux-image-amd64 or linux-image-arm64) and reboot"
        )
    if not host.path("run/systemd/system").is_dir():
        yield (
            "systemd does not run as PID 1, which the role needs for its units: without systemd "
            "use the modules packetwatch.xdp.program, policy and access_lists by themselves"
        )
    mounts = (line.split() for line in host.lines("proc/mounts"))
    if not any(fields[1:3] == ["/sys/fs/bpf", "bpf"] for fields in mounts):
        yield "bpffs is not mounted at /sys/fs/bpf: mount -t bpf bpf /sys/fs/bpf"


# Interfaces


def escape(name: str) -> str:
    """An interface's name as the instance of a unit, as systemd-escape writes it."""
    return "".join(
        f"\\x{byte:02x}"
        if not re.match(rb"[a-zA-Z0-9:_.]", bytes([byte])) or (byte == 46 and at == 0)
        else chr(byte)
        for at, byte in enumerate(name.encode())
    )


def with_unit(interface: Interface) -> Interface:
    """Add the unit that attaches the interface at boot."""
    return interface | {"unit": f"packetwatch-xdp@{escape(interface['name'])}.service"}


def default_interfaces(host: Host) -> list[str]:
    """The interface of the default route: IPv4's with the lowest metric, else IPv6's."""
    found: list[tuple[int, int, str]] = []
    for line in host.lines("proc/net/route")[1:]:
        fields = line.split()
        if int(fields[1], 16) == int(fields[7], 16) == 0 and int(fields[3], 16) & UP:
            found.append((4, int(fields[6]), fields[0]))
    for line in host.lines("proc/net/ipv6_route"):
        fields = line.split()
        gateway = int(fields[8], 16) & UP_GATEWAY == UP_GATEWAY
        if int(fields[0], 16) == int(fields[1], 16) == 0 and gateway:
            found.append((6, int(fields[5], 16), fields[9]))
    return [min(found)[2]] if found else []


def read_interface(wanted: t.Any) -> Interface:
    """Check the form of one entry; raise ValueError."""
    entry: Interface = {"name": wanted} if isinstance(wanted, str) else wanted
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"{wanted!r} is neither a name nor a dictionary with a name")
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(KEYS)}"
            if key == "published_ports":
                hint = "it holds for all interfaces: set packetwatch_published_ports"
            raise ValueError(f"{entry['name']} has the unknown key {key}: {hint}")
    if entry.get("mode", MODES[0]) not in MODES:
        raise ValueError(
            f"{entry['name']} has the mode {entry['mode']}: allowed: {', '.join(MODES)}"
        )
    return entry


def check_device(host: Host, name: str) -> str | None:
    """What is wrong with an interface, if anything is."""
    try:
        check_interface(name)
    except PacketwatchError as error:
        return str(error)
    if not host.path(f"sys/class/net/{name}").exists():
        there = sorted(
            path.name
            for path in host.path("sys/class/net").iterdir()
            if device_type(host, path.name) == ETHERNET
        )
        return f"there is no interface {name}; of the kind that is needed there is {', '.join(there) or 'none'}"
    kind = device_type(host, name)
    if kind not in (ETHERNET, LOOPBACK):
        return (
            f"{name} is no Ethernet device (type {kind}, {TYPES.get(kind, 'unknown')}): its packets "
            "have no Ethernet header and would all pass unseen; name the device that carries them"
        )
    return None


def device_type(host: Host, name: str) -> int:
    """The hardware type that the kernel gives an interface; 0 if it cannot be told."""
    lines = host.lines(f"sys/class/net/{name}/type")
    return int(lines[0]) if lines else 0


def resolve_interfaces(
    host: Host, wanted: list[t.Any] | None, attached: t.Mapping[str, str], problems: list[str]
) -> list[Interface]:
    """The interfaces to attach to."""
    if wanted is None:
        names = list(attached) or default_interfaces(host)
        if not names:
            problems.append(
                "the host has no default route to take the interface of: set packetwatch_interfaces"
            )
        wanted = [{"name": name, "mode": attached.get(name, MODES[0])} for name in names]
    found: dict[str, Interface] = {}
    for index, entry in enumerate(wanted):
        where = f"packetwatch_interfaces[{index}]: "
        try:
            interface = read_interface(entry)
        except ValueError as error:
            problems.append(f"{where}{error}")
            continue
        name = interface["name"]
        if name in found:
            problems.append(f"{where}{name} stands in the list twice")
        elif problem := check_device(host, name):
            problems.append(f"{where}{problem}")
        found[name] = with_unit(interface)
    return list(found.values())


# Values, which would be refused later too, but after something has changed


def check_policies(
    policy: t.Mapping[str, t.Any], interfaces: t.Iterable[Interface]
) -> t.Iterator[str]:
    """What is wrong with the policy for all, and with those of single interfaces."""
    try:
        default = parse_policy(keys_from_options(policy), "")
        merge_policy(default)
    except PacketwatchError as error:
        yield f"packetwatch_{error}"
        return
    for interface in interfaces:
        try:
            merge_policy(default, parse_policy(keys_from_options(interface), ""))
        except PacketwatchError as error:
            yield f"packetwatch_interfaces: {interface['name']}: {error}"


def check_masters(
    host: Host, policy: t.Mapping[str, t.Any], interfaces: t.Iterable[Interface]
) -> t.Iterator[str]:
    """What counts closed ports where nobody listens: on ports of bridges, bonds and VRFs."""
    for interface in interfaces:
        master = host.path(f"sys/class/net/{interface['name']}/master")
        if master.is_symlink() and {**policy, **interface}.get("scan_counts") == "closed":
            name = os.path.basename(os.readlink(master))
            yield (
                f"{interface['name']} is a port of {name}, where services listen, so all their "
                f"ports would look closed: name {name} in packetwatch_interfaces, or give "
                f"{interface['name']} scan_counts: any there"
            )


def check_settings(protect: list[str], list_memory: int, listen: str) -> t.Iterator[str]:
    """What is wrong with the settings that are not policy."""
    if len(protect) > MOST_PROTECTED:
        yield f"packetwatch_protect has {len(protect)} entries; allowed: up to {MOST_PROTECTED}"
    for index, text in enumerate(protect):
        try:
            parse_prefix(text)
        except PacketwatchError as error:
            yield f"packetwatch_protect[{index}]: {error}"
    if not 1 <= list_memory <= MOST_MEMORY:
        yield f"packetwatch_list_memory is {list_memory}; allowed: MiB from 1 to {MOST_MEMORY}"
    if listen and not is_endpoint(listen):
        yield (
            f"packetwatch_metrics_listen is {listen!r}; allowed: an address and a port, such as "
            "127.0.0.1:9477 or [::1]:9477, or nothing"
        )


def check_users(host: Host, variable: str, names: t.Iterable[str]) -> t.Iterator[str]:
    """Which of those who shall have rights are nobody here."""
    for index, name in enumerate(names):
        # Of a number it would find the user who has it.
        found = host.run(["getent", "--", "passwd", name])[1]
        if not name or found.partition(":")[0] != name:
            yield (
                f"{variable}[{index}] is {name!r}, who is no user of this host: make the user "
                "first, or take the name off the list"
            )


def check_timeout(seconds: float) -> t.Iterator[str]:
    """What is wrong with the time for which changes wait; a slow host needs some to answer."""
    if seconds and not LEAST_TIMEOUT <= seconds <= MOST_TIMEOUT:
        yield (
            f"packetwatch_confirm_timeout is {seconds:g}; allowed: seconds from {LEAST_TIMEOUT} to "
            f"{MOST_TIMEOUT}, or 0 to confirm everything at once"
        )


def check_heartbeat(url: str, interval: int) -> t.Iterator[str]:
    """What is wrong with where and how often to send heartbeats."""
    match = URL.fullmatch(url)
    if url and (match is None or (match["port"] and not 1 <= int(match["port"]) <= 65535)):
        yield (
            f"packetwatch_heartbeat_url is {url!r}; allowed: http://HOST/PATH or https://HOST/PATH "
            "without user and password, or nothing"
        )
    if interval not in INTERVALS:
        yield f"packetwatch_heartbeat_interval is {interval}; allowed: seconds from 10 to 86400"


def is_endpoint(text: str) -> bool:
    """Whether a text is an address, in brackets if it is IPv6's, and a port."""
    match = ENDPOINT.fullmatch(text)
    if not match or not 1 <= int(match["port"]) <= 65535:
        return False
    try:
        family = parse_address(match["v4"] or match["v6"]).family
    except PacketwatchError:
        return False
    return family == (4 if match["v4"] else 6)


# Packages


def flavour(release: str) -> str | None:
    """The kind of Debian kernel that a release is, which is how its metapackages end."""
    match = FLAVOUR.search(release)
    return match[1] if match else None


def has_headers(host: Host, release: str) -> bool:
    """Whether a kernel's headers are on the host."""
    return host.path(f"lib/modules/{release}/build/include").is_dir()


def newer_kernel(host: Host) -> str | None:
    """An installed kernel of the running flavour, other than the running one, whose headers are there."""
    others = [
        path.name
        for path in host.path("lib/modules").glob("*")
        if path.name != host.release
        and flavour(path.name) == flavour(host.release)
        and has_headers(host, path.name)
    ]
    return max(
        others, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], default=None
    )


def installed(host: Host, packages: list[str]) -> set[str]:
    """Which of the packages are installed."""
    out = host.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *packages])[1]
    words = (line.split() for line in out.splitlines())
    return {name for status, name in words if status == "installed"}


def available(host: Host, packages: list[str]) -> set[str]:
    """Which of the packages the lists of apt have."""
    out = host.run(["apt-cache", "policy", *packages])[1]
    found: set[str] = set()
    name = ""
    for line in out.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and not line.endswith("(none)"):
            found.add(name)
    return found


def needed_headers(host: Host) -> list[str]:
    """The packages that bring the running kernel's headers and, where there is one, those of its successors."""
    kind = flavour(host.release)
    meta = [f"linux-headers-{kind}"] if kind else []
    own = f"linux-headers-{host.release}"
    if has_headers(host, host.release):
        return meta
    if meta:
        # What comes as a dependency goes again with its kernel; what is named here would stay.
        out = host.run(["apt-cache", "depends", *meta])[1]
        if own in out.split():
            return meta
    return [*meta, own]


def missing_packages(host: Host, packages: list[str]) -> list[str]:
    """What is needed and not installed."""
    wanted = [*packages, *needed_headers(host)]
    there = installed(host, wanted)
    return [name for name in wanted if name not in there]


def explain_missing(host: Host, name: str) -> str:
    """Why a package cannot be had, and what to do."""
    if name != f"linux-headers-{host.release}":
        return f"the package {name} is not in apt's lists: check the sources of apt"
    kind, newer = flavour(host.release), newer_kernel(host)
    if not kind:
        return (
            f"there are no headers of the running kernel {host.release}, which is not one of Debian's: "
            f"install its headers as /lib/modules/{host.release}/build, or boot Debian's kernel"
        )
    remedy = (
        f"reboot into {newer}, which is installed with its headers"
        if newer
        else f"upgrade the kernel (apt install linux-image-{kind} linux-headers-{kind}) and reboot into it"
    )
    return (
        f"the headers of the running kernel {host.release} are not installed, and the archive does "
        f"not have them (any more): {remedy}"
    )


def lost_packages(
    host: Host, packages: list[str], refresh: bool, warn: t.Callable[[str], None]
) -> list[str]:
    """Those packages that apt cannot get, if wanted after an update of its lists."""
    lost = [name for name in packages if name not in available(host, packages)] if packages else []
    if lost and refresh:
        status, _out, error = host.run(
            ["apt-get", "-q", *(f"-o{option}" for option in APT_OPTIONS), "update"]
        )
        if status != 0:
            warn(f"apt-get update failed: {error.strip()}")
        lost = [name for name in packages if name not in available(host, packages)]
    return lost


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "raw"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "policy": {"type": "dict", "default": {}},
            "protect": {"type": "list", "elements": "str", "default": []},
            "readers": {"type": "list", "elements": "str", "default": []},
            "admins": {"type": "list", "elements": "str", "default": []},
            "list_memory": {"type": "int", "default": 64},
            "confirm_timeout": {"type": "float", "default": 60},
            "metrics_listen": {"type": "str", "default": ""},
            "heartbeat_url": {"type": "str", "default": ""},
            "heartbeat_interval": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    host = Host(module.run_command)
    try:
        problems = list(check_system(host))
        _number, state = Store().read_current()
        interfaces = resolve_interfaces(
            host, module.params["interfaces"], state.interfaces, problems
        )
        problems += check_policies(module.params["policy"], interfaces)
        problems += check_masters(host, module.params["policy"], interfaces)
        problems += check_settings(
            module.params["protect"], module.params["list_memory"], module.params["metrics_listen"]
        )
        for option in ("readers", "admins"):
            problems += check_users(host, f"packetwatch_{option}", module.params[option])
        problems += check_timeout(module.params["confirm_timeout"])
        problems += check_heartbeat(
            module.params["heartbeat_url"], module.params["heartbeat_interval"]
        )
        packages: list[str] = []
        bare = False
        if not problems:
            packages = missing_packages(host, module.params["packages"])
            bare = not set(packages).isdisjoint(module.params["packages"])
            lost = lost_packages(host, packages, not module.check_mode, module.warn)
            reasons = [explain_missing(host, name) for name in lost]
            if module.check_mode:
                packages = [name for name in packages if name not in lost]
                for reason in reasons:
                    module.warn(
                        f"{reason} (its lists may be out of date: check mode leaves them so)"
                    )
            else:
                problems += reasons
    except (OSError, PacketwatchError) as error:
        module.fail_json(msg=str(error))
    if problems:
        module.fail_json(
            msg="Packetwatch cannot be installed here, and nothing was changed: "
            + "; ".join(problems)
        )
    wanted = {interface["name"] for interface in interfaces}
    module.exit_json(
        changed=False,
        interfaces=interfaces,
        detach=[with_unit({"name": name}) for name in state.interfaces if name not in wanted],
        packages=packages,
        policies=[
            interface
            for interface in interfaces
            if interface["name"] in state.policy or set(OVERRIDES) & set(interface)
        ],
        bare=bare,
        installed=host.path("etc/systemd/system/packetwatch.service").exists(),
        agent_outdated=agent_is_outdated(host),
        feeds=has_feeds(state),
    )


if __name__ == "__main__":
    main()
