# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""psad and portsentry of Debian beside Packetwatch, on the same scans of the real nmap.

    make bench-peers

Each tool runs in a mount namespace: the packages are unpacked over the system's files, nothing is
installed. It sees the packets of the host's network namespace only. The table goes into docs/detection.md.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel.datapath import GRACE, Datapath, wait_for
from kernel.hosting import ip
from kernel.packets import HOST4, HOST6
from kernel.scanning import Job, Report, scanners
from kernel.scans import ADDRESSES, DECOYS, PROTOCOLS, SCANS, UNSEEN, Scan

pytest_plugins = ("kernel.conftest",)
pytestmark = pytest.mark.usefixtures("plugged_in")

PROBES = 40
PACKAGES = (
    *("psad", "portsentry", "net-tools", "psmisc", "whois", "libidn2-0"),
    *("libunix-syslog-perl", "libnet-ip-perl", "libdate-calc-perl", "libcarp-clan-perl"),
    *("libiptables-parse-perl", "libiptables-chainmgr-perl", "libnetaddr-ip-perl"),
)
# The mount namespace: the packages over the system's files, our folder with the log, nothing of /run.
ROOM = """
set -e
mount -t tmpfs room "$ROOM"
cd "$ROOM"
mkdir upper work root
cp -a "$PACKAGES" packages
mount -t overlay room -o "lowerdir=packages:/,upperdir=upper,workdir=work" root
cd root
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs dev dev
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mount -t tmpfs run run
mkdir peers
mount --bind "$FOLDER" peers
ln -s /peers/log dev/log
ln -sf /peers/messages var/log/messages
# Nobody reads mail here.
for name in mail sendmail; do ln -sf true "usr/bin/$name"; ln -sf ../bin/true "usr/sbin/$name"; done
exec chroot . sh -ec "$START"
"""
PORTSENTRY = """
/usr/lib/portsentry/portsentry-build-ignore-file
portsentry -tcp
portsentry -udp
exec cat
"""
STEALTH = """
/usr/lib/portsentry/portsentry-build-ignore-file
sed -i 's/^BLOCK_\\(TCP\\|UDP\\)=.*/BLOCK_\\1="1"/' /etc/portsentry/portsentry.conf
portsentry -atcp
portsentry -audp
exec cat
"""
PSAD = """
sed -i 's/_CHANGEME_/host/' /etc/psad/psad.conf
mkdir -p /run/psad /var/run/psad
psad
exec cat
"""
# The kernel logs for other network namespaces too; only the first one has this setting.
FIRST = os.open("/proc/self/ns/net", os.O_RDONLY)
KERNEL_LOG = "net.netfilter.nf_log_all_netns"
RULES = ("iptables", "ip6tables")


class Line(NamedTuple):
    when: float
    text: str


class Log:
    """What is written to /dev/log, and the kernel's log as a file of syslog's."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[Line] = []
        self._messages = (folder / "messages").open("a")
        self._kernel = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._kernel, 0, os.SEEK_END)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "log"))
        self._socket.settimeout(0.05)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._socket.close()
        self._messages.close()
        os.close(self._kernel)

    def _run(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                text = self._socket.recv(65536).decode(errors="replace")
                self.lines.append(Line(time.time(), text))
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                while True:
                    self._copy(os.read(self._kernel, 8192).decode(errors="replace"))

    def _copy(self, record: str) -> None:
        head, dummy, text = record.partition(";")
        if " SRC=" in text:
            seconds = int(head.split(",")[2]) / 1e6
            stamp = time.strftime("%b %e %H:%M:%S")
            line = text.splitlines()[0]
            self._messages.write(f"{stamp} host kernel: [{seconds:.6f}] {line}\n")
            self._messages.flush()

    def first(self, pattern: str, source: str) -> float | None:
        """When a line first said that the source has scanned."""
        forms = "|".join({re.escape(source), ipaddress.ip_address(source).exploded})
        wanted = re.compile(rf"{pattern}.*?(?<![\w.:])(?:{forms})(?![\w.:])", re.S)
        return next((line.when for line in self.lines if wanted.search(line.text)), None)


class Tool(NamedTuple):
    """name: in the table. start: in the room. pattern: of a line about a scan, before its source.

    logs_packets: it needs the kernel's log of all packets, by the two rules of its documentation. blocks:
    not as it is installed, but with the blocking of its documentation turned on.
    """

    name: str
    start: str
    pattern: str
    ready: Callable[[Log], bool]
    logs_packets: bool = False
    blocks: bool = False


def says(text: str) -> Callable[[Log], bool]:
    return lambda log: any(text in line.text for line in log.lines)


TOOLS = (
    Tool("psad", PSAD, "scan detected", says("starting up psad"), True),
    Tool("portsentry", PORTSENTRY, "attackalert: .* from host:", says("now active")),
    Tool(
        "portsentry, stealth",
        STEALTH,
        "attackalert: .* from host:",
        says("now active"),
        blocks=True,
    ),
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked packages."""
    folder = tmp_path_factory.mktemp("packages")
    fetched = folder / "fetched"
    fetched.mkdir()
    subprocess.run(["apt-get", "-qq", "download", *PACKAGES], cwd=fetched, check=True)
    for package in fetched.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "tree"], check=True)
    # The system's /lib and others are links, which a folder would hide.
    for name in ("bin", "sbin", "lib"):
        for item in folder.glob(f"tree/{name}/*"):
            shutil.copytree(item, folder / "tree/usr" / name / item.name, dirs_exist_ok=True) if (
                item.is_dir()
            ) else shutil.copy(item, folder / "tree/usr" / name)
        shutil.rmtree(folder / "tree" / name, ignore_errors=True)
    return folder / "tree"


@contextlib.contextmanager
def packets_logged() -> Iterator[None]:
    """The kernel logs all packets to the network namespace of this thread."""
    sysctl = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{FIRST}", "sysctl", "-n")
    former = subprocess.run([*sysctl, KERNEL_LOG], check=True, stdout=subprocess.PIPE, text=True)
    with contextlib.ExitStack() as stack:
        for name in RULES:
            rule = ("INPUT", "-j", "LOG")
            subprocess.run([name, "-w", "-A", *rule], check=True)
            stack.callback(subprocess.run, [name, "-w", "-D", *rule], check=True)
        before = [*sysctl, "-q", f"{KERNEL_LOG}={former.stdout.strip()}"]
        stack.callback(subprocess.run, before, check=True)
        subprocess.run([*sysctl, "-q", f"{KERNEL_LOG}=1"], check=True)
        yield


@contextlib.contextmanager
def running(tool: Tool, packages: Path, folder: Path) -> Iterator[Log]:
    """The tool in the network namespace of this thread."""
    for name in ("room", "shared"):
        (folder / name).mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "ROOM": str(folder / "room"),
        "FOLDER": str(folder / "shared"),
        "PACKAGES": str(packages),
        "START": tool.start,
    }
    with contextlib.ExitStack() as stack:
        log = Log(folder / "shared")
        stack.callback(log.close)
        if tool.logs_packets:
            stack.enter_context(packets_logged())
        with (folder / "output").open("wb") as output:
            # All that it starts ends with the namespace of its processes.
            process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ROOM],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        wait_for(lambda: tool.ready(log))
        time.sleep(3)
        assert process.poll() is None, (folder / "output").read_text()
        yield log


def address(family: int, number: int) -> str:
    return f"10.77.6.{number}" if family == 4 else f"fd77:6::{number:x}"


def job(scan: Scan, family: int) -> Job:
    ports, targets = ["--top-ports", str(PROBES)], [HOST4 if family == 4 else HOST6]
    if scan.name == ADDRESSES:
        ports, targets = ["-p", "143"], [address(family, number) for number in range(PROBES)]
    elif scan.name == PROTOCOLS:
        ports = ["-p", f"146-{146 + PROBES - 1}"]
    elif scan.kind == "sctp":
        ports = ["-p", f"1-{PROBES}"]
    option = scan.option.replace("DECOYS", DECOYS[family])
    speed = ("-T2", "--max-rtt-timeout", "500ms")
    return Job(family, (*option.split(), *speed, *ports, *targets))


CASES = [(scan, family) for scan in SCANS for family in scan.families]


@pytest.fixture
def target(closed: Datapath) -> Iterator[Datapath]:
    for name in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"):
        Path("/proc/sys/net", name).write_text("0")
    with contextlib.ExitStack() as stack:
        for number in range(PROBES):
            for family, length in ((4, 32), (6, 128)):
                one = f"{address(family, number)}/{length} dev v0"
                ip(f"address add {one}" + (" nodad" if family == 6 else ""))
                stack.callback(ip, f"address delete {one}")
        yield closed


class Result(NamedTuple):
    """How many probes were answered before the scan was seen (UNSEEN: it was not), and in all."""

    before: int | None
    answered: int


def result(report: Report, seen: float | None) -> Result:
    before = UNSEEN if seen is None else sum(moment < seen for moment in report.answers)
    return Result(before, report.answered)


def ours(target: Datapath) -> list[Result]:
    kinds = ["syn", "stealth", "ack", "udp", "sctp", "proto"]
    target.policy(scan_counts="closed", scan_ports=5, scan_grace=GRACE, scan_kinds=kinds)
    with scanners(target) as run:
        reports = run([job(*case) for case in CASES])
    return [
        Result(report.answered if target.ban_of(report.source) else UNSEEN, report.answered)
        for report in reports
    ]


def theirs(target: Datapath, tool: Tool, packages: Path, folder: Path) -> list[Result]:
    target.policy(action="off")
    folder.mkdir()
    with scanners(target) as run, running(tool, packages, folder) as log:
        reports = run([job(*case) for case in CASES])
        # psad reads its log every five seconds.
        time.sleep(12)
        shutil.copytree(folder / "shared", folder / "kept", ignore=shutil.ignore_patterns("log"))
        return [result(report, log.first(tool.pattern, report.source)) for report in reports]


def cell(found: Result) -> str:
    if found.before is UNSEEN:
        return f"not seen ({found.answered})"
    return f"{found.before} ({found.answered})"


def test_every_scan_that_peers_see_is_banned_with_fewer_answers(
    target: Datapath, packages: Path, tmp_path: Path
) -> None:
    columns = {"Packetwatch": ours(target)}
    for number, tool in enumerate(TOOLS):
        columns[tool.name] = theirs(target, tool, packages, tmp_path / str(number))
    lines = [f"| scan | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for place, (scan, family) in enumerate(CASES):
        cells = [cell(found[place]) for found in columns.values()]
        lines.append(f"| {scan.name}, IPv{family} | {' | '.join(cells)} |")
    print("\n" + "\n".join(lines))
    for place, case in enumerate(CASES):
        mine, *others = (found[place] for found in columns.values())
        for tool, other in zip(TOOLS, others):
            if other.before is not UNSEEN:
                assert mine.before is not UNSEEN, (case, tool.name)
                assert tool.blocks or mine.answered <= min(PROBES / 4, other.answered), case
