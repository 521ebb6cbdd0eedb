# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role refuses before it changes anything; the hosts are folders."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._variables import (
    known_variables,
    unknown_variables,
    without_secrets,
)

from packetwatch_agent import settings
from packetwatch_agent.control import wire
from packetwatch_core._base.errors import Unsupported
from packetwatch_core._kernel.netlink import Link
from packetwatch_core._preflight import check, system, values
from packetwatch_core._preflight import interfaces as interfaces_module
from packetwatch_core._preflight import packages as packages_module
from packetwatch_core._preflight.machine import Machine

ROLE = Path(__file__).resolve().parents[2] / "roles" / "packetwatch"
RELEASE = "6.1.0-37-amd64"
OWN = f"linux-headers-{RELEASE}"
META = "linux-headers-amd64"
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth0\t00000000\t0101000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ROUTES6 = (
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth2\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n"
)


class FakeMachine:
    """A Debian host as a folder, with what apt and dpkg report about it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.installed: set[str] = {"python3-bpfcc", "libbpf1"}
        self.archive: set[str] = {META, OWN}
        self.after_update: set[str] = set()
        self.meta_depends: set[str] = {OWN}
        self.commands: list[str] = []
        self.write("etc/os-release", 'PRETTY_NAME="Debian 12"\nID=debian\nVERSION_ID="12"\n')
        self.write("proc/mounts", "bpf /sys/fs/bpf bpf rw,nosuid 0 0\n")
        self.write("proc/net/route", ROUTES)
        (root / "run/systemd/system").mkdir(parents=True)
        self.links: list[Link] = []
        for name, kind in (("eth0", 1), ("eth1", 1), ("lo", 772), ("tun0", 65534), ("ib0", 32)):
            self.add_link(name, kind)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add_link(self, name: str, kind: int) -> None:
        self.links.append(Link(len(self.links) + 1, name, kind, 1, "", 0))

    def make_port(self, name: str, master: str, kind: str) -> None:
        """Make the interface a port of a new device."""
        self.add_link(master, 1)
        self.links[-1] = self.links[-1]._replace(kind=kind)
        for place, link in enumerate(self.links):
            if link.name == name:
                self.links[place] = link._replace(master=self.links[-1].ifindex)

    def add_headers(self, release: str = RELEASE) -> None:
        (self.root / f"lib/modules/{release}/build/include").mkdir(parents=True)

    def run(self, argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        self.commands.append(argv[0] + " " + argv[-1])
        if argv[0] == "dpkg-query":
            lines = [f"installed {name}\n" for name in argv if name in self.installed]
            return 0, "".join([*lines, "config-files gone\n"]), ""
        if tuple(argv[:2]) == ("apt-cache", "policy"):
            lines = [
                f"{name}:\n  Installed: (none)\n  Candidate: 1\n"
                for name in argv
                if name in self.archive
            ]
            return 0, "".join([*lines, "other:\n  Candidate: (none)\n"]), ""
        if tuple(argv[:2]) == ("apt-cache", "depends"):
            return 0, "".join(f"  Depends: {name}\n" for name in self.meta_depends), ""
        assert argv[0] == "apt-get"
        self.archive |= self.after_update
        return 0, "", ""

    def host(self, release: str = RELEASE) -> Machine:
        return Machine(self.run, self.root, release, 0, self.links)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def system_problems(machine: FakeMachine, release: str = RELEASE) -> list[str]:
    return list(system.check_system(machine.host(release)))


# The system


def test_supported_hosts_pass(machine: FakeMachine) -> None:
    assert system_problems(machine) == []
    machine.write("etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
    assert system_problems(machine, "6.12.48+deb13-cloud-arm64") == []


def no_systemd(machine: FakeMachine) -> None:
    (machine.root / "run/systemd/system").rmdir()


@pytest.mark.parametrize(
    ("spoil", "release", "words"),
    [
        pytest.param(
            lambda m: m.write(
                "etc/os-release", 'PRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nVERSION_ID="24.04"\n'
            ),
            RELEASE,
            "the system is Ubuntu 24.04: Debian 12 or 13",
            id="other distribution",
        ),
        pytest.param(
            lambda m: m.write(
                "etc/os-release", 'PRETTY_NAME="Debian 11"\nID=debian\nVERSION_ID="11"\n'
            ),
            RELEASE,
            "the system is Debian 11: Debian 12 or 13",
            id="older release",
        ),
        pytest.param(
            lambda m: (m.root / "etc/os-release").unlink(), RELEASE, "unknown", id="no release file"
        ),
        pytest.param(lambda m: None, "5.10.0-33-amd64", "6.1 or newer is needed", id="old kernel"),
        pytest.param(lambda m: None, "custom", "6.1 or newer is needed", id="odd kernel"),
        pytest.param(no_systemd, RELEASE, "systemd does not run as PID 1", id="no systemd"),
        pytest.param(
            lambda m: m.write("proc/mounts", "none /sys/fs/bpf tmpfs rw 0 0\n"),
            RELEASE,
            "mount -t bpf bpf /sys/fs/bpf",
            id="no bpffs",
        ),
    ],
)
def test_unsupported_host(
    machine: FakeMachine, spoil: Callable[[FakeMachine], None], release: str, words: str
) -> None:
    spoil(machine)
    (problem,) = system_problems(machine, release)
    assert words in problem


def test_all_problems_at_once(machine: FakeMachine) -> None:
    no_systemd(machine)
    machine.write("proc/mounts", "")
    assert len(system_problems(machine, "4.19.0-1-amd64")) == 3


# Interfaces


def interfaces(
    machine: FakeMachine, wanted: list[object] | None, attached: dict[str, str] | None = None
) -> tuple[list[dict[str, object]], list[str]]:
    problems: list[str] = []
    found = interfaces_module.resolve_interfaces(machine.host(), wanted, attached or {}, problems)
    return found, problems


def test_default_is_the_best_default_route(machine: FakeMachine) -> None:
    found, problems = interfaces(machine, None)
    assert not problems
    assert found == [{"name": "eth0", "mode": "auto"}]


def test_default_by_ipv6_alone(machine: FakeMachine) -> None:
    machine.write("proc/net/route", "")
    machine.write("proc/net/ipv6_route", ROUTES6)
    machine.add_link("eth2", 1)
    assert [entry["name"] for entry in interfaces(machine, None)[0]] == ["eth2"]


def test_default_stays_what_it_was(machine: FakeMachine) -> None:
    found, problems = interfaces(machine, None, {"eth1": "generic"})
    assert not problems
    assert [(entry["name"], entry["mode"]) for entry in found] == [("eth1", "generic")]


def test_names_and_dictionaries(machine: FakeMachine) -> None:
    one = {"name": "eth1", "mode": "native", "scan_ports": 3, "next": "/sys/fs/bpf/balancer"}
    wanted: list[object] = ["eth0", one, "lo"]
    found, problems = interfaces(machine, wanted)
    assert not problems
    assert found[1] == one


def test_a_place_in_a_dispatcher(machine: FakeMachine) -> None:
    place = {"mode": "dispatcher", "priority": 0, "chain_call_actions": ["pass", "tx"]}
    found, problems = interfaces(machine, [{"name": "eth1"} | place])
    assert not problems
    assert found == [{"name": "eth1"} | place]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            ["eth9"],
            "[0]: there is no interface 'eth9'; there are: eth0, eth1, lo",
        ),
        (
            ["eth0", "tun0"],
            "[1]: tun0 has no Ethernet header (device type 65534, tun or WireGuard)",
        ),
        (["ib0"], "(device type 32, InfiniBand)"),
        (["eth0", "eth0"], "[1]: eth0 is listed twice; keep one of them"),
        (["averyveryverylongname"], "is not an interface name"),
        (["../eth0"], "is not an interface name"),
        ([7], "[0]: 7 is not an interface: write a name, or a dictionary with a name"),
        ([{"mode": "auto"}], "is not an interface: write a name, or a dictionary with a name"),
        (
            [{"name": "eth0", "mode": "fast"}],
            "eth0 has the mode 'fast': choose one of auto, native, generic",
        ),
        ([{"name": "eth0", "scan_port": 3}], "unknown key scan_port: did you mean scan_ports?"),
        ([{"name": "eth0", "colour": 3}], "unknown key colour: known: name, mode"),
        ([{"name": "eth0", "published_ports": []}], "set packetwatch_published_ports"),
        (
            [{"name": "eth0", "mode": "dispatcher", "next": "/x"}],
            "eth0: next is '/x', but mode is dispatcher: attach that program by xdp-loader",
        ),
        (
            [{"name": "eth0", "mode": "dispatcher", "chain_call_actions": ["drop"]}],
            "eth0: chain_call_actions contains drop",
        ),
        ([{"name": "eth0", "priority": 7}], "eth0: priority is 7, but mode is auto"),
        ([{"name": "eth0", "next": "lb"}], "next is 'lb': write the absolute path of a pinned"),
        ([{"name": "eth0", "next": 7}], "eth0 has the next 7: write a path"),
        ([{"name": "eth0", "next_src": ""}], "eth0 has the next_src '': write a path"),
        ([{"name": "eth0", "next": "/x", "next_src": "x.c"}], "has next and next_src"),
    ],
)
def test_bad_interface(machine: FakeMachine, wanted: list[object], words: str) -> None:
    (problem,) = interfaces(machine, wanted)[1]
    assert problem.startswith("packetwatch_interfaces[")
    assert words in problem


def test_a_vrf(machine: FakeMachine) -> None:
    machine.make_port("eth1", "red", "vrf")
    assert interfaces(machine, ["red"])[1] == [
        "packetwatch_interfaces[0]: red is a VRF, on which no filter sees the packets of its ports; attach "
        "to its ports instead (eth1), with scan_counts: any"
    ]


def test_no_default_route(machine: FakeMachine) -> None:
    machine.write("proc/net/route", "")
    assert interfaces(machine, None)[1] == [
        "the host has no default route, whose interface would be filtered: set packetwatch_interfaces"
    ]


# Values

POLICY: dict[str, object] = {
    "scan_ports": 5,
    "scan_window": 60.0,
    "ban_time": 600,
    "ban_time_max": 600,
}


def setting_problems(protect: list[str], memory: int, listen: str) -> list[str]:
    return values.read_variables(
        {
            "packetwatch_protect": protect,
            "packetwatch_list_memory": memory,
            "packetwatch_metrics_listen": listen,
        }
    ).problems


@pytest.mark.parametrize(
    ("prefixes", "words"),
    [
        (
            "2001:db8:46::/96",
            "packetwatch_shared_prefixes is '2001:db8:46::/96', a text: write a list",
        ),
        (
            ["2001:db8:46::/96", "192.0.2.0/24"],
            "packetwatch_shared_prefixes[1]: '192.0.2.0/24' is IPv4",
        ),
        ([64], "packetwatch_shared_prefixes[0]: "),
        (["2001:db8:46::1/96"], "packetwatch_shared_prefixes[0]: '2001:db8:46::1/96' has bits set"),
        (
            [f"2001:db8:{n:x}::/96" for n in range(1025)],
            "packetwatch_shared_prefixes has 1025 entries",
        ),
    ],
)
def test_bad_shared_prefixes(prefixes: object, words: str) -> None:
    (problem,) = values.read_variables({"packetwatch_shared_prefixes": prefixes}).problems
    assert problem.startswith(words)


def test_good_values_pass() -> None:
    good = ["2001:db8:46::/96", "2001:db8:4800::/40"]
    assert values.read_variables({"packetwatch_shared_prefixes": good}).problems == []
    assert list(values.check_policies(POLICY, [{"name": "eth0", "scan_ports": 3}])) == []
    protect = ["192.0.2.0/24", "2001:db8::1"]
    for listen in ("", "127.0.0.1:9477", "[::1]:9477"):
        assert setting_problems(protect, 64, listen) == []


@pytest.mark.parametrize(
    ("policy", "interface", "words"),
    [
        ({"scan_ports": 65}, {}, "packetwatch_scan_ports is '65'; allowed: a whole number"),
        ({"scan_window": -1}, {}, "packetwatch_scan_window is"),
        ({"published_ports": ["http"]}, {}, "packetwatch_published_ports is 'http'"),
        ({"ban_time_max": 5}, {}, "packetwatch_ban_time_max is 5, less than ban_time"),
        ({}, {"scan_counts": "open"}, "packetwatch_interfaces: eth0: scan_counts is 'open'"),
    ],
)
def test_bad_policy(policy: dict[str, object], interface: dict[str, object], words: str) -> None:
    (problem,) = values.check_policies(POLICY | policy, [{"name": "eth0"} | interface])
    assert words in problem


@pytest.mark.parametrize(
    ("protect", "memory", "listen", "words"),
    [
        (["192.0.2.1", "192.0.2.300"], 64, "", "packetwatch_protect[1]: "),
        (["192.0.2.1/24"], 64, "", "packetwatch_protect[0]: "),
        ([], 0, "", "packetwatch_list_memory is '0'"),
        ([], 64, "9477", "packetwatch_metrics_listen is '9477'"),
        ([], 64, "::1:9477", "packetwatch_metrics_listen"),
        ([], 64, "127.0.0.1:70000", "packetwatch_metrics_listen"),
        ([], 64, "[127.0.0.1]:9477", "packetwatch_metrics_listen"),
    ],
)
def test_bad_setting(protect: list[str], memory: int, listen: str, words: str) -> None:
    (problem,) = setting_problems(protect, memory, listen)
    assert problem.startswith(words)


@pytest.mark.parametrize("seconds", [-1, 0.5, 9, 3601, float("nan")])
def test_bad_timeout(seconds: float) -> None:
    (problem,) = values.check_timeout(seconds, "packetwatch_confirm_timeout")
    assert problem.startswith("packetwatch_confirm_timeout is ")


@pytest.mark.parametrize("seconds", [0, 10, 60, 3600])
def test_good_timeout(seconds: float) -> None:
    assert not list(values.check_timeout(seconds, "packetwatch_confirm_timeout"))


# Packages


def packages(machine: FakeMachine, release: str = RELEASE) -> list[str]:
    return packages_module.missing_packages(machine.host(release), ["python3-bpfcc", "libbpf1"])


def lost(
    machine: FakeMachine, missing: list[str], release: str = RELEASE, refresh: bool = True
) -> list[str]:
    warnings: list[str] = []
    host = machine.host(release)
    names = packages_module.unavailable_packages(host, missing, refresh, warnings.append)
    assert warnings == []
    return [packages_module.explain_unavailable(host, name) for name in names]


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("6.1.0-37-amd64", "amd64"),
        ("6.1.0-37-cloud-amd64", "cloud-amd64"),
        ("6.1.0-37-rt-amd64", "rt-amd64"),
        ("6.12.48+deb13-arm64", "arm64"),
        ("6.12.48+deb13-cloud-arm64", "cloud-arm64"),
        ("6.12.48+deb13-rt-arm64", "rt-arm64"),
        ("6.1.0-37-686-pae", None),
        ("6.18.1-custom", None),
    ],
)
def test_flavours(release: str, kind: str | None) -> None:
    assert packages_module.flavour(release) == kind


def test_nothing_is_missing(machine: FakeMachine) -> None:
    machine.add_headers()
    machine.installed.add(META)
    assert packages(machine) == []
    assert [command.split()[0] for command in machine.commands] == ["dpkg-query"]


def test_metapackage_even_if_headers_are_there(machine: FakeMachine) -> None:
    machine.add_headers()
    assert packages(machine) == [META]


def test_metapackage_brings_the_headers(machine: FakeMachine) -> None:
    assert packages(machine) == [META]


def test_running_kernel_is_not_the_newest(machine: FakeMachine) -> None:
    machine.meta_depends = {"linux-headers-6.1.0-38-amd64"}
    assert packages(machine) == [META, OWN]


def test_own_kernel_with_headers_needs_no_package(machine: FakeMachine) -> None:
    machine.add_headers("6.18.1-custom")
    assert packages(machine, "6.18.1-custom") == []


def test_available_packages_pass_without_an_update(machine: FakeMachine) -> None:
    assert lost(machine, [META]) == []
    assert not [command for command in machine.commands if command.startswith("apt-get")]


def test_lists_are_updated_when_they_lack_a_package(machine: FakeMachine) -> None:
    machine.archive, machine.after_update = set(), {META}
    assert lost(machine, [META]) == []


def test_check_mode_leaves_the_lists_alone(machine: FakeMachine) -> None:
    machine.archive, machine.after_update = set(), {META}
    assert len(lost(machine, [META], refresh=False)) == 1
    assert not [command for command in machine.commands if command.startswith("apt-get")]


def test_headers_gone_and_a_newer_kernel_installed(machine: FakeMachine) -> None:
    machine.archive = {META}
    for release in ("6.1.0-9-amd64", "6.1.0-38-amd64", "6.1.0-39-cloud-amd64"):
        machine.add_headers(release)
    (problem,) = lost(machine, [OWN])
    assert "the archive does not have them (any more): reboot into 6.1.0-38-amd64" in problem


def test_headers_gone_and_no_newer_kernel(machine: FakeMachine) -> None:
    machine.archive = {META}
    (problem,) = lost(machine, [OWN])
    assert "apt install linux-image-amd64 linux-headers-amd64" in problem


def test_own_kernel_without_headers(machine: FakeMachine) -> None:
    release = "6.18.1-custom"
    machine.archive = set()
    (problem,) = lost(machine, [f"linux-headers-{release}"], release)
    assert "/lib/modules/6.18.1-custom/build" in problem


def test_package_missing_from_all_sources(machine: FakeMachine) -> None:
    machine.archive = set()
    (problem,) = lost(machine, ["python3-bpfcc"])
    assert problem == "the package python3-bpfcc is not in apt's lists: check the sources of apt"


def test_only_users_of_the_host_get_rights(tmp_path: Path) -> None:
    """The real getent decides; 0 is root's number, not a name."""

    def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    names = ["root", "no-such-user", "0", "", "--help"]
    problems = list(check.check_users(Machine(run, tmp_path), "packetwatch_admins", names))
    assert [problem.partition(" is")[0] for problem in problems] == [
        f"packetwatch_admins[{index}]" for index in range(1, 5)
    ]
    assert "'no-such-user', which is not a user of this host: make the user first" in problems[0]


def test_nothing_to_get_asks_nobody(machine: FakeMachine) -> None:
    assert lost(machine, []) == []
    assert machine.commands == []


def test_failed_update_is_reported(machine: FakeMachine) -> None:
    def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        return (100, "", "E: no network\n") if argv[0] == "apt-get" else machine.run(argv, stdin)

    machine.archive = set()
    warnings: list[str] = []
    host = Machine(run, machine.root, RELEASE)
    assert packages_module.unavailable_packages(host, [META], True, warnings.append) == [META]
    assert warnings == ["apt-get update failed: E: no network"]


SPLIT = [
    pytest.param(False, False, [META, OWN], 1, "", id="to be compiled"),
    pytest.param(False, True, [META], 0, "check mode", id="check mode"),
    pytest.param(True, False, [META], 0, "is compiled already", id="compiled"),
    pytest.param(True, True, [META], 0, "is compiled already", id="compiled, check mode"),
]


@pytest.mark.parametrize(("compiled", "check", "kept", "refusals", "warning"), SPLIT)
def test_packages_that_only_a_compiler_needs(
    machine: FakeMachine, compiled: bool, check: bool, kept: list[str], refusals: int, warning: str
) -> None:
    machine.archive = {META}
    warnings: list[str] = []
    found, reasons = packages_module.split_packages(
        machine.host(), [META, OWN], compiled, check, warnings.append
    )
    assert (found, len(reasons)) == (kept, refusals)
    said = reasons + warnings
    assert len(said) == 1 and f"the headers of the running kernel {RELEASE}" in said[0]
    assert not warning or warning in said[0]
    updated = [command for command in machine.commands if command.startswith("apt-get")]
    assert bool(updated) == (refusals > 0)


# Variables


@pytest.mark.parametrize(
    ("url", "interval", "words"),
    [
        ("https://hb.example.net/ping/up?x={status}", 60, ""),
        ("http://[2001:db8::1]:8080", 10, ""),
        ("", 86400, ""),
        ("hb.example.net", 60, "packetwatch_heartbeat_url"),
        ("https://user:secret@hb.example.net/", 60, "packetwatch_heartbeat_url"),
        ("http://hb.example.net:99999/", 60, "packetwatch_heartbeat_url"),
        ('http://hb.example.net/"', 60, "packetwatch_heartbeat_url"),
        ("", 9, "packetwatch_heartbeat_interval is '9'"),
    ],
)
def test_heartbeat(url: str, interval: int, words: str) -> None:
    problems = values.read_variables(
        {"packetwatch_heartbeat_url": url, "packetwatch_heartbeat_interval": interval}
    ).problems
    assert len(problems) == bool(words)
    assert not words or words in problems[0]
    environment = {"PW_HEARTBEAT_URL": url, "PW_HEARTBEAT_INTERVAL": str(interval)}
    assert bool(settings.read(environment).problems) == bool(words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("action", "off", ""),
        # What YAML makes of an unquoted off.
        ("action", False, ""),
        ("action", "drop", "packetwatch_fleet_action is 'drop': write enforce, monitor or off"),
        ("longest", "2h", ""),
        ("longest", "2y", "packetwatch_fleet_longest is '2y'; allowed"),
        ("most", 12288, ""),
        ("most", 12289, "packetwatch_fleet_most is '12289': write a whole number from 1 to 12288"),
        ("lists", "both", ""),
        ("lists", "allow", "packetwatch_fleet_lists is 'allow': write none, deny, both"),
    ],
)
def test_what_the_fleet_may_decide(name: str, value: object, words: str) -> None:
    problems = values.read_variables({f"packetwatch_fleet_{name}": value}).problems
    assert len(problems) == bool(words)
    assert not words or words in problems[0]
    given = {f"PW_FLEET{'' if name == 'action' else f'_{name.upper()}'}": str(value)}
    assert bool(settings.read(given).problems) == bool(words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("packetwatch_dney", "did you mean packetwatch_deny?"),
        ("packetwatch_dney__web", "did you mean packetwatch_deny__NAME?"),
        ("packetwatch_interface", "did you mean packetwatch_interfaces?"),
        ("packetwatch_deny_web", "did you mean packetwatch_deny__web, with two underscores?"),
        ("packetwatch_deny__Web-1", "may hold only a-z, 0-9 and _"),
        ("packetwatch_xyzzy", "is unknown"),
    ],
)
def test_unknown_variable(name: str, words: str) -> None:
    (problem,) = unknown_variables([name, "ansible_host"], known_variables())
    assert name in problem
    assert words in problem


def test_known_variables_pass() -> None:
    names = [
        *known_variables(),
        "packetwatch_deny__web_1",
        "packetwatch_allow__ops",
        "_packetwatch_host",
    ]
    assert list(unknown_variables(names, known_variables())) == []


def test_variables_are_documented_once() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"][
        "main"
    ]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert {
        name: option.get("default") for name, option in options.items() if "default" in option
    } == {name: value for name, value in defaults.items() if "{{" not in str(value)}
    undefined = {"packetwatch_interfaces", "packetwatch_readers", "packetwatch_admins"}
    assert set(options) - set(defaults) == undefined
    readme = (ROLE.parents[1] / "README.md").read_text()
    assert set(re.findall(r"^\| `(packetwatch_[a-z_]+)`", readme, re.MULTILINE)) == set(options)


def test_the_defaults_of_the_role_are_right() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    defaults["packetwatch_ban_time_max"] = defaults["packetwatch_ban_time"]
    assert values.read_variables(defaults).problems == []
    assert set(defaults) <= set(known_variables())


def test_values_of_the_command_line_are_texts() -> None:
    given = {
        "packetwatch_list_memory": "128",
        "packetwatch_self_heal": "no",
        "packetwatch_community_id": "True",
        "packetwatch_scan_ports": "7",
        "packetwatch_ban_time": "2h",
        "packetwatch_ban_time_max": "7d",
        "packetwatch_confirm_timeout": "2m",
        "packetwatch_heartbeat_interval": "5m",
        "packetwatch_published_ports": [8080, "9000-9010"],
        "packetwatch_interfaces": None,
        "packetwatch_readers": None,
    }
    assert values.read_variables(given).problems == []


def test_all_wrong_values_are_named_at_once() -> None:
    given = {
        "packetwatch_interfaces": ["eth0", 5, {"name": "eth1", "scan_port": 3}],
        "packetwatch_scan_ports": 65,
        "packetwatch_ban_time": "soon",
        "packetwatch_ban_time_max": "soon",
        "packetwatch_published_ports": [8080, None],
        "packetwatch_protect": [None, "192.0.2.1/24"],
        "packetwatch_admins": ["root", 0],
        "packetwatch_deny": ["x"],
        "packetwatch_allow": 5,
    }
    assert [re.split(r"[ :]", text)[0] for text in values.read_variables(given).problems] == [
        "packetwatch_allow",
        "packetwatch_deny[0]",
        "packetwatch_interfaces[1]",
        "packetwatch_interfaces[2]",
        "packetwatch_scan_ports",
        "packetwatch_published_ports",
        "packetwatch_ban_time",
        "packetwatch_protect[0]",
        "packetwatch_protect[1]",
        "packetwatch_admins[1]",
    ]


def test_without_root_the_host_is_not_asked(machine: FakeMachine) -> None:
    host = Machine(machine.run, machine.root, RELEASE, 1000, machine.links)
    options = {"variables": {"packetwatch_deny": None}, "problems": ["p"], "packages": []}
    with pytest.raises(Unsupported) as caught:
        check.check_host(host, options, False, pytest.fail)
    assert str(caught.value) == (
        "Packetwatch refuses this run, and nothing was changed: the role needs root, but runs as the user "
        "1000: set become: true for the play; p; packetwatch_deny is empty: write a list of addresses and "
        "prefixes, or [] for none"
    )
    assert machine.commands == []


def test_closed_ports_on_a_port_of_a_bridge(machine: FakeMachine) -> None:
    machine.make_port("eth0", "br0", "bridge")
    closed: dict[str, object] = {"scan_counts": "closed"}
    eth0: list[dict[str, object]] = [{"name": "eth0"}]

    def problems(policy: dict[str, object], interfaces: list[dict[str, object]]) -> list[str]:
        return list(interfaces_module.check_listening(machine.host(), policy, interfaces))

    (problem,) = problems(closed, eth0)
    assert problem.startswith("packetwatch_interfaces: eth0 is a port of br0")
    assert "attach to br0 instead, or set scan_counts of eth0 to any" in problem
    assert problems(closed, [{"name": "eth1"}]) == []
    assert problems(closed | {"action": "off"}, eth0) == [], "nothing is looked up then"
    eth0[0]["scan_counts"] = "any"
    assert problems(closed, eth0) == []


def test_closed_ports_on_a_port_of_a_vrf(machine: FakeMachine) -> None:
    machine.make_port("eth1", "red", "vrf")
    wanted: list[dict[str, object]] = [{"name": "eth1"}]
    (problem,) = interfaces_module.check_listening(
        machine.host(), {"scan_counts": "closed"}, wanted
    )
    assert problem == (
        "packetwatch_interfaces: eth1 is a port of the VRF red, where services listen, so all their ports "
        "would look closed; set scan_counts of eth1 to any"
    )


IN_FLEET = {
    "packetwatch_fleet": "etcd",
    "packetwatch_fleet_host": "web1",
    "packetwatch_fleet_endpoints": ["fleet1=192.0.2.11:2378"],
    "packetwatch_fleet_ca": "-----BEGIN CERTIFICATE-----\nx\n",
    "packetwatch_fleet_certificate": "-----BEGIN CERTIFICATE-----\nx\n",
    "packetwatch_fleet_password": "secret",
}


def test_a_host_in_a_fleet() -> None:
    assert values.read_variables(IN_FLEET).problems == []
    folder = {"packetwatch_fleet": "folder", "packetwatch_fleet_host": "a"}
    assert values.read_variables(folder | {"packetwatch_fleet_folder": "/srv/x"}).problems == []
    assert values.read_variables(folder | {"packetwatch_fleet": "mine"}).problems == []


def test_a_name_in_the_inventory_that_no_store_could_have() -> None:
    [problem] = values.read_variables({**IN_FLEET, "packetwatch_fleet_host": "Web 1"}).problems
    assert problem == (
        "packetwatch_fleet_host is 'Web 1': write up to 64 of the characters a-z, 0-9, '.', '_' and '-', with a "
        "letter or a digit at both ends; unless you set packetwatch_fleet_host, it is the host's name in the inventory"
    )
    assert values.read_variables({"packetwatch_fleet_host": "Web 1"}).problems == []


@pytest.mark.parametrize("option", ["host", "endpoints", "ca", "certificate", "password"])
def test_what_a_host_in_a_fleet_needs(option: str) -> None:
    [problem] = values.read_variables({**IN_FLEET, f"packetwatch_fleet_{option}": ""}).problems[-1:]
    assert problem == (
        f"packetwatch_fleet_{option} is empty: a host with packetwatch_fleet 'etcd' needs it"
    )


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("", "Not A Name", "packetwatch_fleet is 'Not A Name'"),
        ("_host", "web/1", "packetwatch_fleet_host is 'web/1'"),
        ("_endpoints", "fleet1=192.0.2.11:2378", "write a list"),
        ("_endpoints", ["fleet1:2378"], "write NAME=ADDRESS:PORT"),
        ("_ca", "/etc/ssl/ca.pem", "packetwatch_fleet_ca is not in PEM"),
        ("_certificate", "SECRET", "packetwatch_fleet_certificate is not in PEM"),
        ("_folder", "srv", "write an absolute path"),
        ("_enforcers", ["E 1"], "packetwatch_fleet_enforcers is 'E'"),
        ("_metrics_listen", "9478", "write ADDRESS:PORT"),
    ],
)
def test_wrong_values_of_the_fleet(option: str, value: object, text: str) -> None:
    problems = values.read_variables({**IN_FLEET, f"packetwatch_fleet{option}": value}).problems
    assert any(text in problem for problem in problems), problems
    assert "SECRET" not in "".join(problems)


def test_secrets_of_the_fleet_stay_on_the_controller() -> None:
    sent = without_secrets(IN_FLEET)
    assert "secret" not in sent.values()
    assert sent["packetwatch_fleet_certificate"] == "-----BEGIN "
    assert values.read_variables(sent).problems == []
    wrong = without_secrets({**IN_FLEET, "packetwatch_fleet_certificate": "hunter2"})
    assert "hunter2" not in wrong.values()
    assert values.read_variables(wrong).problems != []
    assert without_secrets({"packetwatch_fleet": "none"}) == {"packetwatch_fleet": "none"}


def test_secrets_of_the_bus_stay_on_the_controller() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nx\n"
    sent = without_secrets({**ON_BUS, "packetwatch_bus_certificate": key})
    assert "SECRET" not in sent.values() and key not in sent.values()
    assert values.read_variables(sent).problems == []


ON_BUS: dict[str, object] = {
    "packetwatch_bus": "rabbitmq",
    "packetwatch_bus_endpoints": ["node1=192.0.2.11:5671"],
    "packetwatch_bus_ca": "-----BEGIN CERTIFICATE-----\nx\n",
    "packetwatch_bus_account": "web1",
    "packetwatch_bus_password": "SECRET",
}


def test_a_host_that_publishes_events() -> None:
    assert values.read_variables(ON_BUS).problems == []
    assert values.read_variables({"packetwatch_bus": "mine"}).problems == []


@pytest.mark.parametrize("fleet", [{}, IN_FLEET])
def test_the_name_of_a_host_begins_its_topics(fleet: dict[str, object]) -> None:
    named = {**ON_BUS, **fleet, "packetwatch_fleet_host": "Web 1"}
    [problem] = values.read_variables(named).problems
    assert problem.startswith("packetwatch_fleet_host is 'Web 1': write up to 64 of ")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"packetwatch_bus_metrics_listen": "127.0.0.1:9478"}, "packetwatch_fleet_metrics_listen"),
        ({"packetwatch_bus_metrics_listen": "0.0.0.0:9477"}, "packetwatch_metrics_listen"),
        ({"packetwatch_bus_metrics_listen": "192.0.2.1:9477"}, ""),
        ({"packetwatch_bus_metrics_listen": ""}, ""),
        ({"packetwatch_bus": "none", "packetwatch_bus_metrics_listen": "127.0.0.1:9478"}, ""),
    ],
)
def test_processes_have_ports_of_their_own(changes: dict[str, object], problem: str) -> None:
    ports = {"packetwatch_metrics_listen": "127.0.0.1:9477"}
    ports["packetwatch_fleet_metrics_listen"] = "127.0.0.1:9478"
    found = values.read_variables({**IN_FLEET, **ON_BUS, **ports, **changes}).problems
    text = (
        f"packetwatch_bus_metrics_listen is {changes['packetwatch_bus_metrics_listen']!r}, whose port {problem} has "
        "too: give each of them a port of its own"
    )
    assert found == [text] * bool(problem)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("", "Not A Name", "packetwatch_bus is 'Not A Name'"),
        ("_endpoints", "", "packetwatch_bus_endpoints is empty"),
        ("_endpoints", ["node1:5671"], "write NAME=ADDRESS:PORT"),
        ("_ca", "", "packetwatch_bus_ca is empty"),
        ("_ca", "/etc/ssl/ca.pem", "packetwatch_bus_ca is not in PEM"),
        ("_certificate", "SECRET", "packetwatch_bus_certificate is not in PEM"),
        ("_password", "", "packetwatch_bus_password is empty"),
        ("_account", "", "packetwatch_bus_account is empty, and so is packetwatch_fleet_host"),
        ("_account", "web/1", "packetwatch_bus_account is 'web/1'"),
        ("_vhost", "a b", "packetwatch_bus_vhost is 'a b'"),
        ("_metrics_listen", "9480", "write ADDRESS:PORT"),
    ],
)
def test_wrong_values_of_the_bus(option: str, value: object, text: str) -> None:
    problems = values.read_variables({**ON_BUS, f"packetwatch_bus{option}": value}).problems
    assert any(text in problem for problem in problems), problems
    assert "SECRET" not in "".join(problems)


def test_the_events_that_may_be_published_are_those_of_the_log() -> None:
    text = (ROLE / "meta/argument_specs.yml").read_text()
    found = re.search(r"packetwatch_bus_events:.*?choices: \[(.*?)\]", text, re.DOTALL)
    assert found and tuple(found[1].split(", ")) == wire.ACTIONS
