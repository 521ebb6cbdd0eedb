# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RabbitMQ on a node of `servers`, with the template, the definitions and the certificate of the role.

It runs in the unpacked packages of a release. So do the processes that use it: they have that release's Python and
library for AMQP.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet import software
from fleet.api import unpack_library
from fleet.servers import ROLE, FleetNode, FleetNodes, Server, rendered
from kernel.hosting import Namespace

from packetwatch_core._node.broker import BUS, VHOST, Passwords, definitions

RELEASES = ("bookworm", "trixie")
VERSIONS = {"bookworm": "3.10", "trixie": "4.0"}
PORT = 5671
# Paths in the release's tree. Everything of a test is in one folder, which is bound there.
WORK = "/mnt/work"
_TREE = """
mount --make-rprivate /
mkdir -p {tree}{work} {tree}/proc {tree}/tmp
# Links that a package's script would make.
for name in lib lib64; do [ -e {tree}/$name ] || ln -sfn usr/$name {tree}/$name; done
# Erlang waits for its own name.
[ -s {tree}/etc/hosts ] || echo '127.0.0.1 localhost' >{tree}/etc/hosts
mount --bind {source} {tree}{work}
mount --bind /dev {tree}/dev
mount -t proc proc {tree}/proc
mount -t tmpfs tmpfs {tree}/tmp
{before}
exec env -i {environment} chroot {tree} "$@"
"""
# Of /proc/PID/pagemap.
PAGE = os.sysconf("SC_PAGESIZE")
PRESENT, FRAME = 1 << 63, (1 << 55) - 1
_PATIENCE = 180.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Erlang's own way of a remote call: it takes a fraction of the time of rabbitmqctl.
_CALL = "X = rpc:call('packetwatch@localhost', {module}, {function}, {arguments}), io:format(\"~0p~n\", [X]), halt()."


def in_tree(
    release: str,
    folder: Path,
    environment: Mapping[str, str],
    argv: Sequence[str],
    before: str = "",
) -> list[str]:
    """The command that runs another one in a release's tree, with `folder` as `WORK`. before: more mounts, in words of the shell."""
    given = {"PATH": _PATH, **environment}
    script = _TREE.format(
        tree=software.broker(release),
        work=WORK,
        source=folder,
        environment=" ".join(f"'{name}={value}'" for name, value in given.items()),
        before=before.format(tree=software.broker(release)),
    )
    return ["unshare", "--mount", "sh", "-euc", script, "sh", *argv]


class Broker:
    """The server of one node."""

    def __init__(self, nodes: FleetNodes, release: str, folder: Path, passwords: Passwords) -> None:
        self.nodes = nodes
        self.node: FleetNode = nodes.nodes[0]
        self.release = release
        self.passwords = passwords
        self.folder = folder
        self._config = folder / "config"
        self._config.mkdir(parents=True)
        for name in ("gate.pem", "hosts-ca.pem"):
            target = "rabbitmq.pem" if name == "gate.pem" else name
            (self._config / target).write_bytes((self.node.config / name).read_bytes())
        variables = {
            "fleet_node_address": self.node.address,
            "fleet_node_rabbitmq_port": PORT,
            "fleet_node_rabbitmq_memory": "256MB",
            "fleet_node_rabbitmq_disk": "50MB",
            "fleet_node_config": f"{WORK}/config",
        }
        (self._config / "rabbitmq.conf").write_text(rendered("rabbitmq.conf.j2", variables))
        (self._config / "rabbitmq.json").write_text(json.dumps(definitions(passwords)))
        (self._config / "rabbitmq.plugins").write_text("[].\n")
        argv = in_tree(
            release, folder, self._environment(), ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
        )
        self.log = folder / "broker.log"
        self.server = Server(self.node.namespace, argv, self.log, {"PATH": os.environ["PATH"]})

    def _environment(self) -> dict[str, str]:
        """That of the unit, with paths of the tree."""
        text = (ROLE / "files/packetwatch-fleet-rabbitmq.service").read_text()
        lines = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
        words = [word for line in lines for word in shlex.split(line)]
        found = dict(word.split("=", 1) for word in words)
        for path, place in (
            ("/etc/packetwatch-fleet-node", f"{WORK}/config"),
            ("/var/lib/packetwatch-fleet-rabbitmq", WORK),
        ):
            found = {name: value.replace(path, place) for name, value in found.items()}
        return {**found, "LANG": "C.UTF-8"}

    def start(self) -> None:
        self.server.start()
        self.wait()

    def wait(self) -> float:
        """Return the seconds until it answers."""
        began = time.monotonic()
        while not self.listens():
            assert time.monotonic() < began + _PATIENCE, self.server.words()
            assert self.server.running, self.server.words()
            time.sleep(0.1)
        return time.monotonic() - began

    def kill(self) -> None:
        self.server.kill()

    def listens(self) -> bool:
        with self.node.namespace.entered():
            found = subprocess.run(
                ["ss", "-Hltn", f"sport = :{PORT}"], capture_output=True, text=True, check=True
            )
        return bool(found.stdout)

    def call(self, module: str, function: str, arguments: str) -> str:
        """Call a function of the server; return its result as Erlang writes it."""
        code = _CALL.format(module=module, function=function, arguments=arguments)
        cookie = (self.folder / ".erlang.cookie").read_text().strip()
        argv = ["erl", "-sname", f"t{time.monotonic_ns()}@localhost", "-setcookie", cookie]
        argv += ["-noshell", "-eval", code]
        command = in_tree(self.release, self.folder, self._environment(), argv)
        with self.node.namespace.entered():
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 and "badrpc" not in done.stdout, done.stdout + done.stderr
        return done.stdout.strip()

    def memory_alarm(self, on: bool) -> None:
        self.call(
            "vm_memory_monitor", "set_vm_memory_high_watermark", "[0.00001]" if on else "[0.9]"
        )

    def disk_alarm(self, on: bool) -> None:
        limit = 1 << 60 if on else 1 << 20
        self.call("rabbit_disk_monitor", "set_disk_free_limit", f"[{limit}]")

    def unplug(self) -> None:
        self.nodes.unplug(0)

    def plug(self) -> None:
        self.nodes.plug(0)

    def settings(self, user: str, password: str) -> dict[str, str]:
        """The variables of a process in the tree that uses the server as `user`."""
        (self._config / f"{user}.password").write_text(password + "\n")
        return {
            "PW_BUS": "rabbitmq",
            "PW_BUS_ENDPOINTS": f"{self.node.name}={self.node.address}:{PORT}",
            "PW_BUS_ACCOUNT": user,
            "PW_BUS_VHOST": VHOST,
            "PW_BUS_PASSWORD_FILE": f"{WORK}/config/{user}.password",
            "PW_BUS_CA": f"{WORK}/config/hosts-ca.pem",
        }

    def install(self) -> None:
        """Install what the role does on a node, for processes in the tree, and compile it."""
        unpack_library(self.folder / "library")
        process = Process(
            self,
            "compiler",
            ["-c", "import packetwatch_fleet.bus.__main__, packetwatch_fleet.bus.rabbitmq"],
            {},
        )
        assert process.process.wait(_PATIENCE) == 0, process.log.read_text()


class Process:
    """A Python process in the tree of the broker's release, in the namespace of the hosts or of the node."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        argv: Sequence[str],
        variables: Mapping[str, str],
        namespace: Namespace | None = None,
        *,
        before: str = "",
        python: Sequence[str] = ("python3",),
    ) -> None:
        environment = {
            "PYTHONPATH": f"{WORK}/library",
            # As on a host, where everything is compiled: the memory that is measured must not be the compiler's.
            "PYTHONPYCACHEPREFIX": f"{WORK}/bytecode",
            "MALLOC_MMAP_THRESHOLD_": "131072",
            "MALLOC_TRIM_THRESHOLD_": "131072",
            **variables,
        }
        self.log = broker.folder / f"{name}.log"
        command = in_tree(broker.release, broker.folder, environment, [*python, *argv], before)
        self._namespace = namespace or broker.nodes.lan
        self._command = command
        self.start()

    def start(self) -> None:
        with self._namespace.entered(), self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(_PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def resident(self, key: str = "VmRSS") -> int:
        """Kilobytes of memory; `VmHWM`: the most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split(f"{key}:")[1].split()[0])

    def frames(self) -> set[int]:
        """The numbers of the frames of memory that it has pages in."""
        found: set[int] = set()
        folder = Path(f"/proc/{self.process.pid}")
        with (folder / "pagemap").open("rb", buffering=0) as pages:
            for row in (folder / "maps").read_text().splitlines():
                first, last = (int(word, 16) // PAGE for word in row.split()[0].split("-"))
                # The kernel's own ones have no entries.
                if last < 1 << 51:
                    pages.seek(first * 8)
                    entries = array.array("Q", pages.read((last - first) * 8))
                    found.update(entry & FRAME for entry in entries if entry & PRESENT)
        return found

    def cpu(self) -> float:
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def lines(self) -> list[dict[str, Any]]:
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


@contextlib.contextmanager
def running_broker(
    nodes: FleetNodes, release: str, passwords: Callable[[], Passwords]
) -> Iterator[Broker]:
    """A server on the first node."""
    with tempfile.TemporaryDirectory(prefix="pwbus-") as folder:
        os.chmod(folder, 0o755)
        broker = Broker(nodes, release, Path(folder), passwords())
        try:
            broker.server.start()
            broker.install()
            print(f"RabbitMQ {VERSIONS[release]} answers after {broker.wait():.1f} s")
            yield broker
        finally:
            broker.kill()


__all__ = ("BUS", "RELEASES", "VHOST", "WORK", "Broker", "Process", "running_broker")
