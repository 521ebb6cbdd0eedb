# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role fleet_node, run as users run it, on containers: from one node to three and back to none.

The tests are one story and need their order. node1 has etcd 3.4, the others have 3.5.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.fleet import Fleet
from lab.machine import Machine
from lab.play import environment, fleet_variables, tool
from lab.topology import Topology, ipv4
from lab.traffic import Answer, connect

pytestmark = pytest.mark.slow(13)

ROOT = Path(__file__).resolve().parents[2]
BUS_PAGE = ROOT / "docs/bus.md"
MACHINES = {"node1": ("bookworm", 21), "node2": ("trixie", 22), "node3": ("trixie", 23)}
HOST = ("web1", "bookworm", 24)
CLIENT = 101
FLEET, LISTS = "packetwatch-fleet.service", "packetwatch-fleet-lists.path"
LISTED = "198.51.100.7"
SECRET_FILES = ("hosts/*/password", "users/*/password", "tokens/*/token")
TOKENS = {"ann": {"role": "ban", "expires": "2099-12-31T00:00:00Z"}, "siem": {"role": "read"}}
API_CALL = (
    "curl -sS --max-time 10 --cacert /etc/packetwatch-fleet/ca.pem --resolve {node}:443:{address} -w '\\n%{{http_code}}'"
    " -H @- -X {method} https://{node}/v1/{path}"
)
CALL = (
    "curl -sS --max-time 5 --cacert /etc/packetwatch-fleet/ca.pem --cert /etc/packetwatch-fleet/host.pem"
    " --resolve {node}:2378:{address} https://{node}:2378{path} -d '{body}' -H 'Authorization: {token}'"
)
ETCD, GATE = "packetwatch-fleet-etcd.service", "packetwatch-fleet-gate.service"
ENFORCER = "packetwatch-enforcer@enforcer-{}.service"
API = "packetwatch-api.service"
BROKER, BUS = "packetwatch-fleet-rabbitmq.service", "packetwatch-bus.service"
PUBLISHER = "packetwatch-fleet-bus.service"
RABBITMQ = {
    "fleet_node_rabbitmq": "managed",
    "fleet_node_rabbitmq_subscribers": ["siem"],
    "fleet_node_rabbitmq_operators": {"ann": {"role": "ban"}},
    "fleet_node_rabbitmq_disk": "50MB",
}
# The programs of the page about the bus, in its order, and the accounts that run them.
USERS_OF_BUS = {"subscribe": "bus-siem", "command": "bus-ann"}
_SECRET = "{{{{ lookup('ansible.builtin.file', fleet_node_secrets ~ '/{}') }}}}"
# A server that is not the fleet's: RabbitMQ as Debian starts it on web1, with an authority of its own, which wants certificates
# of clients too.
SERVER = "mq1"
INSTALL_SERVER = """
set -eu
mkdir -p /etc/rabbitmq /root/passwords
cd /etc/rabbitmq
key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -subj /CN=$1 "${@:2}" 2>/dev/null; }
key ca -x509 -days 30 -out ca.pem
for name in mq1 client; do
    key $name -addext subjectAltName=DNS:$name -out $name.csr
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -copy_extensions copy -days 30 2>/dev/null >$name.pem
    cat $name.key >>$name.pem
done
chmod 644 *.pem
cat >rabbitmq.conf <<END
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = /etc/rabbitmq/ca.pem
ssl_options.certfile = /etc/rabbitmq/mq1.pem
ssl_options.keyfile = /etc/rabbitmq/mq1.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
END
for name in packetwatch-bus web1 siem ann; do openssl rand -hex 16 >/root/passwords/$name; done
# The lab's images have the package, and keep its units from starting.
systemctl unmask rabbitmq-server.service epmd.socket epmd.service
systemctl start rabbitmq-server.service
"""
EVENTS = {
    "packetwatch_bus": "rabbitmq",
    "packetwatch_bus_endpoints": [
        f"{name}={ipv4(number)}:5671" for name, (_suite, number) in MACHINES.items()
    ],
    "packetwatch_bus_ca": _SECRET.format("hosts-ca.pem"),
    # Brokers of nodes do not ask for it.
    "packetwatch_bus_certificate": _SECRET.format("hosts/web1/host.pem"),
    "packetwatch_bus_password": _SECRET.format("hosts/web1/password"),
}
DATA = "/var/lib/packetwatch-fleet-node"
BROKEN = f"/etc/systemd/system/{GATE}.d"
# A repository with a newer package of etcd, whose program can be told from the former one by its end.
NEWER = """
set -eu
mkdir -p /srv/newer/tree/DEBIAN /srv/newer/tree/usr/bin
cd /srv/newer
cp /usr/bin/etcd tree/usr/bin
printf newer >>tree/usr/bin/etcd
version=$(dpkg-query -W -f '${Version}' etcd-server)+newer
printf 'Package: etcd-server\\nVersion: %s\\nArchitecture: %s\\nMaintainer: root <root@localhost>\\nDescription: newer\\n' \\
  "$version" "$(dpkg --print-architecture)" >tree/DEBIAN/control
dpkg-deb -Znone --build tree etcd.deb
{ cat tree/DEBIAN/control
  printf 'Filename: ./etcd.deb\\nSize: %s\\nSHA256: %s\\n' "$(stat -c %s etcd.deb)" "$(sha256sum etcd.deb | cut -d' ' -f1)"
} >Packages
rm -rf /etc/apt/sources.list*
echo 'deb [trusted=yes] file:/srv/newer ./' >/etc/apt/sources.list
"""
# Exposure as systemd-analyze computes it: from 0, which can do nothing, to 10.
MAX_EXPOSURE = {ETCD: 1.0, GATE: 1.5, ENFORCER: 0.9, API: 1.2, BROKER: 1.5, BUS: 1.4}
MAX_EXPOSURE_OF_HOSTS = 1.4


class Site:
    """The containers, an inventory of them, and a folder of secrets."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.secrets = folder / "secrets"
        self._folder = folder
        self.nodes: dict[str, dict[str, Any]] = {}
        self.hosts = ["web1"]

    def play(self, book: str, *options: str, good: bool = True) -> str:
        """Run a playbook with the present inventory; return its output."""
        known = json.loads(self.fleet.access.inventory.read_text())["all"]["hosts"]
        groups = {
            "packetwatch_fleet_nodes": {
                "hosts": {
                    name: {"fleet_node_address": ipv4(MACHINES[name][1]), **variables}
                    for name, variables in self.nodes.items()
                },
                "vars": {"fleet_node_api_tokens": TOKENS, **RABBITMQ},
            },
            "packetwatch": {"hosts": {name: {} for name in self.hosts}},
        }
        everything = {"hosts": known, "children": groups}
        (self._folder / "inventory.json").write_text(json.dumps({"all": everything}))
        extra = json.dumps({"fleet_node_secrets": str(self.secrets)})
        return self._run(f"packetwatch.xdp.{book}", "-e", extra, *options, good=good)

    def _run(self, book: str, *options: str, good: bool = True) -> str:
        argv = [tool("ansible-playbook"), "-i", str(self._folder / "inventory.json"), book]
        done = subprocess.run(
            [*argv, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
            env=environment(),
        )
        assert (done.returncode == 0) is good, done.stdout[-6000:]
        return done.stdout

    def converge(self, **variables: object) -> str:
        """Run the playbook for hosts, with what the page says; `let_in` has written that. Return its output."""
        page = self._folder / "variables.yml"
        own = json.dumps({"fleet_node_secrets": str(self.secrets), **variables})
        return self.play("site", "-vvv", "-e", f"@{page}", "-e", own)

    def ban(self, address: str, **options: str) -> None:
        """Ban for the whole fleet, as a play does it on a node."""
        password = (self.secrets / "users/api/password").read_text().strip()
        wanted = {"address": address, "password": password, **options}
        play = {"hosts": "node1", "tasks": [{"packetwatch.xdp.fleet_ban": wanted}]}
        book = self._folder / "ban.yml"
        book.write_text(json.dumps([play | {"gather_facts": False}]))
        self._run(str(book))

    def reaches(self) -> Answer:
        """The answer of web1 to the client."""
        return connect(self.fleet.station("client"), ipv4(HOST[2]), 22)

    def wait(self, name: str, condition: str, seconds: int = 60) -> str:
        """Wait until a command succeeds on a machine; return its output."""
        script = f"for i in $(seq {seconds * 5}); do {condition} && exit; sleep 0.2; done; exit 1"
        return self.shell(name, script)

    def machine(self, name: str) -> Machine:
        return self.fleet.host(name)

    def let_in(self) -> None:
        """Give web1 what the page says that it needs."""
        page = self._folder / "variables.yml"
        page.write_text(fleet_variables())
        own = json.dumps({"fleet_node_secrets": str(self.secrets)})
        values = {"ca.pem": "ca", "host.pem": "certificate", "password": "password"}
        tasks = [
            {
                "ansible.builtin.copy": {
                    "content": f"{{{{ packetwatch_fleet_{value} }}}}\n",
                    "dest": f"/etc/packetwatch-fleet/{name}",
                    "mode": "0600",
                }
            }
            for name, value in values.items()
        ]
        tasks += [
            {
                "ansible.builtin.copy": {
                    "content": "{{ packetwatch_fleet_endpoints | join(',') }}",
                    "dest": "/etc/packetwatch-fleet/endpoints",
                    "mode": "0600",
                }
            }
        ]
        folder = {"ansible.builtin.file": {"path": "/etc/packetwatch-fleet", "state": "directory"}}
        book = self._folder / "let_in.yml"
        play = {"hosts": "web1", "gather_facts": False, "tasks": [folder, *tasks]}
        book.write_text(json.dumps([play]))
        self._run(str(book), "-e", f"@{page}", "-e", own)

    def shell(self, name: str, script: str, check: bool = True) -> str:
        """Run a script on a machine as root; return its output."""
        return self.machine(name).ssh(["sh", "-c", script], check=check).stdout

    def run(self, name: str, script: str) -> None:
        """Run a script of bash on a machine as root, for up to five minutes."""
        self.machine(name).ssh(["bash", "-c", script], timeout=300.0)

    def call(self, node: str, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Call a gate from the host web1 with what the role has given to it."""
        address = ipv4(MACHINES[node][1])
        script = CALL.format(
            node=node, address=address, path=path, body=json.dumps(body), token=token
        )
        return dict(json.loads(self.shell("web1", script)))

    def api(self, node: str, method: str, path: str, token: str, body: str = "") -> tuple[int, Any]:
        """Call the API of a node from the host web1; return status and body."""
        address = ipv4(MACHINES[node][1])
        script = API_CALL.format(node=node, address=address, method=method, path=path)
        if body:
            script += f" --json {shlex.quote(body)}"
        header = shlex.quote(f"Authorization: Bearer {token}")
        output = self.shell("web1", f"echo {header} | {script}")
        text, _newline, status = output.strip().rpartition("\n")
        return int(status), json.loads(text or "{}")

    def secret(self, name: str) -> str:
        """A token of the inventory."""
        return (self.secrets / f"tokens/{name}/token").read_text().strip()

    def token(self, node: str, password: str = "") -> str:
        """Log in at a gate as web1."""
        password = password or self.shell("web1", "cat /etc/packetwatch-fleet/password").strip()
        answer = self.call(node, "/v3/auth/authenticate", {"name": "web1", "password": password})
        return str(answer.get("token", ""))

    def values(self, node: str, key: str) -> list[str]:
        """The values of one of the keys that hosts may read, through a gate."""
        body = {"key": encoded(f"/packetwatch/v1/{key}")}
        answer = self.call(node, "/v3/kv/range", body, self.token(node))
        assert "header" in answer, answer
        return [kv["value"] for kv in answer.get("kvs", ())]

    def etcdctl(self, words: str) -> str:
        """Run etcdctl as root of the store on the first node."""
        password = (self.secrets / "users/root/password").read_text().strip()
        files = "--cacert nodes-ca.pem --cert etcd.pem --key etcd.pem --endpoints https://127.0.0.1:2379"
        command = f"ETCDCTL_API=3 etcdctl {files} --user root:{password} {words}"
        return self.shell("node1", f"cd /etc/packetwatch-fleet-node && {command}")

    def put(self, key: str, value: str) -> None:
        self.etcdctl(f"put /packetwatch/v1/{key} {shlex.quote(value)}")

    def get(self, key: str) -> str:
        return self.etcdctl(f"get --print-value-only /packetwatch/v1/{key}").strip()

    def passwords(self) -> set[str]:
        paths = [path for pattern in SECRET_FILES for path in self.secrets.glob(pattern)]
        return {path.read_text().strip() for path in paths}


class Spy(threading.Thread):
    """Collects the command lines of all processes, those in containers included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.lines: set[bytes] = set()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.lines.add(path.read_bytes())
                except OSError:
                    continue

    def __enter__(self) -> Spy:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.join()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def changed(output: str) -> int:
    """How many tasks of a play have changed something, on all hosts."""
    return sum(int(number) for number in re.findall(r" changed=(\d+) ", output))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("role")
    machines = {
        name: {"suite": suite, "address": number, "kind": "nspawn", "groups": ["lab"]}
        for name, suite, number in (*((n, *m) for n, m in MACHINES.items()), HOST)
    }
    plan = Topology.parse({"machines": machines, "stations": {"client": CLIENT}})
    with Fleet(plan, folder / "lab") as fleet:
        fleet.up()
        fleet.wait_ssh()
        site = Site(fleet, folder)
        site.nodes["node1"] = {}
        yield site


def test_check_mode_changes_nothing(site: Site) -> None:
    output = site.play("fleet", "--check", "--diff")
    assert changed(output) > 0
    assert not site.secrets.exists()
    assert site.shell("node1", "ls -d /etc/packetwatch-fleet-node || true") == ""


def test_one_node_is_set_up_and_no_secret_is_shown(site: Site) -> None:
    with Spy() as spy:
        output = site.play("fleet", "-vvv", "--diff")
    shown = {"output": output, "processes": b"\n".join(spy.lines).decode(errors="replace")}
    shown["journal"] = site.shell("node1", "journalctl --boot --no-pager")
    assert any("etcd" in line.decode(errors="replace") for line in spy.lines)
    assert len(site.passwords()) == 10
    for where, text in shown.items():
        assert "PRIVATE KEY" not in text, where
        assert not [word for word in site.passwords() if word in text], where
    site.let_in()
    assert site.values("node1", "bans/api/a") == []


def test_others_on_the_node_read_no_secret(site: Site) -> None:
    folders = f"/etc /run /tmp /var/tmp /var/log {DATA}"
    for word in (*site.passwords(), "BEGIN PRIVATE KEY"):
        script = f"runuser -u nobody -- grep -rlsF -e '{word}' {folders} || true"
        assert site.shell("node1", script) == ""
    modes = {
        path.stat().st_mode & 0o077 for path in site.secrets.rglob("*") if path.suffix != ".pem"
    }
    assert modes == {0}
    assert site.secrets.stat().st_mode & 0o077 == 0


def test_a_second_run_changes_nothing(site: Site) -> None:
    assert changed(site.play("fleet")) == 0


def test_check_mode_of_a_node_that_is_set_up_changes_nothing(site: Site) -> None:
    assert changed(site.play("fleet", "--check")) == 0


def test_an_enforcer_runs_its_rules_and_bans_nobody_at_first(site: Site) -> None:
    unit = ENFORCER.format("node1")
    site.wait("node1", f"journalctl --unit {unit} | grep -q 'following the store'")
    owner = site.shell("node1", f"stat -c %U /proc/$(systemctl show -P MainPID {unit})")
    assert owner.strip() == "packetwatch-enforcer"
    for _attempt in range(100):
        if text := site.get("rules/enforcer-node1"):
            break
        time.sleep(0.2)
    rules = json.loads(text)["rules"]
    assert {name: (rule["action"], rule["fault"]) for name, rule in rules.items()} == dict.fromkeys(
        ("quorum", "sweep", "slow", "crowd"), ("monitor", None)
    )
    script = "curl -sS http://127.0.0.1:9482/metrics | grep '^packetwatch_enforcer_connected'"
    assert site.shell("node1", script).split() == ["packetwatch_enforcer_connected", "1"]


def test_a_wrong_threshold_is_refused_before_anything_changes(site: Site) -> None:
    site.nodes["node1"] = {"fleet_node_rules": {"sweep": {"hosts": 1}}}
    output = site.play("fleet", good=False)
    assert "sweep.hosts is 1: write a whole number from 2 to 1000" in " ".join(output.split())
    assert changed(output) == 0
    # Another threshold restarts the enforcer alone.
    site.nodes["node1"] = {"fleet_node_rules": {"sweep": {"hosts": 2, "action": "enforce"}}}
    started = site.shell("node1", f"systemctl show -P ExecMainPID {ETCD}")
    site.play("fleet")
    assert site.shell("node1", f"systemctl show -P ExecMainPID {ETCD}") == started
    for _attempt in range(100):
        rules = json.loads(site.get("rules/enforcer-node1"))["rules"]
        if "slow" not in rules:
            break
        time.sleep(0.2)
    assert rules["sweep"]["action"] == "enforce" and rules["sweep"]["thresholds"]["hosts"] == 2
    site.nodes["node1"] = {}
    site.play("fleet")


def test_hosts_reach_no_port_of_etcd(site: Site) -> None:
    for port in (2379, 2380):
        script = f"timeout 3 bash -c '</dev/tcp/{ipv4(21)}/{port}' 2>/dev/null && echo open || true"
        assert site.shell("web1", script) == "", port
    ports = site.shell("node1", "ss -Hltn | awk '{print $4}'").split()
    assert {f"{ipv4(21)}:2378", f"{ipv4(21)}:443"} <= set(ports)
    assert [port for port in ports if port.endswith(":2379")] == ["127.0.0.1:2379"]
    # Debian's own web server and etcd do not run.
    assert not [port for port in ports if port.endswith(":80")]


def test_the_api_knows_tokens_of_the_inventory_and_of_the_node(site: Site) -> None:
    ann, siem = site.secret("ann"), site.secret("siem")
    address = "bans/203.0.113.77"
    status, made = site.api("node1", "PUT", address, ann, '{"seconds": 600}')
    assert (status, made["rule"]) == (201, "ann")
    assert site.api("node1", "GET", address, siem) == (200, made)
    assert site.api("node1", "DELETE", address, siem)[0] == 403
    assert site.api("node1", "DELETE", address, ann)[0] == 204
    command = "packetwatch-api token"
    own = site.shell("node1", f"{command} add bob --role lists --for 1h").strip()
    assert site.api("node1", "PUT", "lists/own/deny/203.0.113.77", own, "{}")[0] == 201
    assert site.api("node1", "DELETE", "lists/own/deny/203.0.113.77", own)[0] == 204
    rows = site.shell("node1", f"{command} list").splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["ann", "ban", "valid"],
        ["bus-ann", "ban", "valid"],
        ["siem", "read", "valid"],
        ["bob", "lists", "valid"],
    ]
    site.shell("node1", f"{command} revoke bob")
    assert site.api("node1", "GET", "bans", own)[0] == 401
    audit = site.shell("node1", f"journalctl -o cat -u {API} | grep '\"audit\"'").splitlines()
    names = [(row.get("user.name"), row["packetwatch.command"]) for row in map(json.loads, audit)]
    assert names == [
        ("ann", "putBan"),
        ("siem", "deleteBan"),
        ("ann", "deleteBan"),
        ("bob", "putEntry"),
        ("bob", "deleteEntry"),
    ]
    owner = site.shell("node1", f"stat -c %U /proc/$(systemctl show -P MainPID {API})").strip()
    assert owner == "packetwatch-api"
    # Other users of the node do not reach the API past the gate.
    reach = "runuser -u nobody -- curl -sS --unix-socket /run/packetwatch-api/api.sock http://x/"
    site.shell("node1", f"! {reach}")


def on_page(kind: str) -> list[str]:
    """The examples of a kind on the page about the bus."""
    page = BUS_PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def server_of_operators(
    site: Site, definitions: str, script: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Set up a server on web1 as the page says; return how nodes reach it, and the files of a client for `ann`."""
    site.run("web1", INSTALL_SERVER)
    document = f"cat >/etc/rabbitmq/packetwatch.json <<'END'\n{definitions}END\n"
    site.run("web1", f"set -eu\n{document}{script}")
    found = {
        name: site.shell("web1", f"cat {path}")
        for name, path in (
            ("ca", "/etc/rabbitmq/ca.pem"),
            ("client", "/etc/rabbitmq/client.pem"),
            ("bus", "/root/passwords/packetwatch-bus"),
            ("ann", "/root/passwords/ann"),
        )
    }
    folder = site.secrets.parent
    for name in ("ca", "client"):
        (folder / f"mq-{name}.pem").write_text(found[name])
    own = {
        "endpoints": [f"{SERVER}={ipv4(HOST[2])}:5671"],
        "ca": str(folder / "mq-ca.pem"),
        "certificate": str(folder / "mq-client.pem"),
        "password": found["bus"].strip(),
    }
    files = {"hosts-ca.pem": "ca", "client.pem": "client", "password": "ann"}
    return own, {name: found[key] for name, key in files.items()}


def test_a_node_takes_commands_from_a_server_of_the_operators(site: Site) -> None:
    [definitions], [script] = on_page("json"), on_page("bash")
    own, ann = server_of_operators(site, definitions, script)
    # What is wrong is refused before anything changes.
    site.nodes["node1"] = {
        "fleet_node_rabbitmq": "external",
        "fleet_node_rabbitmq_external": own | {"endpoints": ["mq.example:5671"]},
        "fleet_node_enforcer_metrics_port": 9481,
    }
    output = " ".join(site.play("fleet", good=False).split())
    assert "fleet_node_rabbitmq_external.endpoints[0] has 'mq.example:5671': write NAME=" in output
    assert "fleet_node_bus_metrics_listen is '127.0.0.1:9481', whose port" in output
    assert changed(output) == 0
    site.nodes["node1"] = {"fleet_node_rabbitmq": "external", "fleet_node_rabbitmq_external": own}
    with Spy() as spy:
        output = site.play("fleet", "-vvv", "--diff")
    shown = output + b"\n".join(spy.lines).decode(errors="replace")
    assert own["password"] not in shown and "PRIVATE KEY" not in shown
    assert site.shell("node1", "ss -Hltn '( sport = :5671 or sport = :4369 )'") == ""
    metric = "curl -sS http://127.0.0.1:9481/metrics | grep -qx 'packetwatch_fleet_bus_connected 1'"
    site.wait("node1", metric, 20)
    # The example of the page, with the certificate that this server wants.
    program = on_page("python")[1].replace('"ca_certs"', '"certfile": "client.pem", "ca_certs"')
    for name, text in {**ann, "command.py": program}.items():
        site.run("node1", f"mkdir -p /srv/command; cat >/srv/command/{name} <<'END'\n{text}\nEND\n")
    send = f"cd /srv/command; python3 command.py {ipv4(HOST[2])}:5671 {SERVER} ann"
    answer = json.loads(site.shell("node1", f"{send} ban 203.0.113.99 600"))
    assert answer["status"] == 201 and answer["revision"], answer
    status, ban = site.api("node1", "GET", "bans/203.0.113.99", site.secret("siem"))
    assert (status, ban["rule"]) == (200, "bus-ann")
    assert "ACCESS_REFUSED" in site.shell("node1", f"{send} deny 203.0.113.99 600 2>&1 || true")
    assert site.api("node1", "DELETE", "bans/203.0.113.99", site.secret("ann"))[0] == 204
    lines = site.shell("node1", f"journalctl -o cat -u {BUS} | grep '^{{'").splitlines()
    [command] = [line for line in map(json.loads, lines) if "event.action" in line]
    assert (command["user.name"], command["packetwatch.answered"]) == ("ann", True)
    assert changed(site.play("fleet")) == 0
    site.shell("node1", "rm -r /srv/command")
    units = "rabbitmq-server.service epmd.socket epmd.service"
    site.shell("web1", f"systemctl stop {units}; systemctl mask {units}")
    site.nodes["node1"] = {}


def test_two_more_nodes_join_and_get_all_data(site: Site) -> None:
    site.put("bans/api/a", "kept")
    site.nodes |= {"node2": {}, "node3": {}}
    site.play("fleet")
    for node in site.nodes:
        assert site.values(node, "bans/api/a") == [encoded("kept")]
        assert site.api(node, "GET", "healthz", "")[0] == 200
    site.let_in()
    gates = ",".join(f"{name}={ipv4(number)}:2378" for name, (_suite, number) in MACHINES.items())
    assert site.shell("web1", "cat /etc/packetwatch-fleet/endpoints") == gates


def test_a_host_joins_and_its_kernel_drops_what_the_fleet_bans(site: Site) -> None:
    output = site.converge(**EVENTS)
    assert "PRIVATE KEY" not in output
    assert not [word for word in site.passwords() if word in output]
    assert site.shell("web1", f"systemctl is-active {FLEET} {LISTS}").split() == ["active"] * 2
    # systemd has handed it the credentials, which it cannot read in root's folder.
    owner = site.shell("web1", f"stat -c %U /proc/$(systemctl show -P MainPID {FLEET})")
    assert owner.strip() == "packetwatch-fleet"
    site.shell("web1", "! runuser -u packetwatch-fleet -- cat /etc/packetwatch-fleet/password")
    assert site.reaches() == Answer.OPEN
    client = ipv4(CLIENT)
    site.ban(client, duration="10m")
    site.wait("web1", f"packetwatchctl bans | grep -qwF {client}")
    assert site.reaches() == Answer.NONE
    found = json.loads(site.shell("web1", f"packetwatchctl why {client} --json"))
    assert found["verdict"] == "new connections are dropped"
    assert (found["fleet"]["ban"]["enforcer"], found["fleet"]["ban"]["rule"]) == ("api", "play")
    state = json.loads(site.shell("web1", "packetwatchctl fleet --json"))
    assert state["store"]["connected"] and state["store"]["declared"] == 1
    assert state["reports"]["host"] == "web1" and not state["reports"]["problem"]
    site.ban(client, state="absent")
    site.wait("web1", f"! packetwatchctl bans | grep -qwF {client}")
    assert site.reaches() == Answer.OPEN
    ann = site.secret("ann")
    assert site.api("node3", "PUT", f"bans/{client}", ann, '{"seconds": 600}')[0] == 201
    site.wait("web1", f"packetwatchctl bans | grep -qwF {client}")
    assert site.api("node1", "DELETE", f"bans/{client}", ann)[0] == 204
    site.wait("web1", f"! packetwatchctl bans | grep -qwF {client}")
    # The host's own address is in the never-list as soon as it has reported.
    assert site.api("node2", "PUT", f"bans/{ipv4(HOST[2])}", ann, '{"seconds": 600}')[0] == 409


def test_brokers_take_the_events_of_a_host_and_the_commands_of_an_operator(site: Site) -> None:
    for name, account, program in zip(
        USERS_OF_BUS, USERS_OF_BUS.values(), on_page("python"), strict=True
    ):
        password = (site.secrets / f"users/{account}/password").read_text().strip()
        script = f"mkdir /srv/{name}; cd /srv/{name}; printf %s {shlex.quote(program)} >{name}.py"
        files = f"cp /etc/packetwatch-fleet/ca.pem hosts-ca.pem; echo {password} >password"
        site.shell("web1", f"{script}; {files}")
    # A host publishes on one of the brokers.
    for node, (_suite, number) in MACHINES.items():
        run = f"systemd-run --quiet --unit=subscribe-{node} --working-directory=/srv/subscribe"
        argv = f"python3 subscribe.py {ipv4(number)}:5671 {node} siem '#.ban'"
        site.shell("web1", f"{run} {argv}")
    connected = len(MACHINES) + 1
    site.wait("web1", f"test $(ss -Htn state established dport = :5671 | wc -l) = {connected}")
    for node, (_suite, number) in MACHINES.items():
        address = f"203.0.113.{number}"
        command = f"python3 command.py {ipv4(number)}:5671 {node} ann ban {address} 600"
        answer = json.loads(site.shell("web1", f"cd /srv/command; {command}"))
        assert answer["status"] == 201 and answer["revision"], answer
        audit = site.shell(node, f"journalctl -o cat -u {API} | grep bus-ann").splitlines()
        assert json.loads(audit[-1])["packetwatch.command"] == "putBan"
        site.wait("web1", f"journalctl -o cat -u 'subscribe-*' | grep -qF {address}")
        assert f"{address} " in site.shell("web1", "packetwatchctl bans")
    site.shell("web1", "systemctl stop 'subscribe-*'; rm -r /srv/subscribe /srv/command")


def test_a_list_of_the_fleet_becomes_a_drop_in(site: Site) -> None:
    site.put("lists/common", json.dumps({"v": 1, "allow": [], "deny": [{"address": LISTED}]}))
    site.wait("web1", f"packetwatchctl why {LISTED} | grep -q \"deny list 'fleet'\"")
    found = json.loads(site.shell("web1", f"packetwatchctl why {LISTED} --json"))
    assert [entry["owner"] for entry in found["declared"]["entries"]] == ["fleet"]


def test_a_host_leaves_and_has_neither_process_nor_unit(site: Site) -> None:
    site.converge(packetwatch_fleet="none")
    assert (
        site.shell("web1", "ls -d /etc/packetwatch-fleet /etc/packetwatch-fleet-bus || true") == ""
    )
    assert changed(site.converge(packetwatch_fleet="none")) == 0
    units = f"{FLEET} {LISTS} {PUBLISHER}"
    assert set(site.shell("web1", f"systemctl is-active {units} || true").split()) == {"inactive"}
    enabled = site.shell("web1", f"systemctl is-enabled {FLEET} || true").strip()
    assert enabled == "disabled"
    site.shell("web1", "! pgrep -f '[p]acketwatch_fleet'")
    assert site.shell("web1", "ss -Htn '( dst :2378 or dst :5671 )'").strip() == ""
    found = json.loads(site.shell("web1", f"packetwatchctl why {LISTED} --json"))
    assert found["declared"]["entries"] == []


def exposure(site: Site, name: str, unit: str) -> float:
    output = site.shell(name, f"systemd-analyze security --no-pager {unit} | tail -1")
    found = re.search(r"exposure level for .*: ([0-9.]+)", output)
    assert found, output
    print(f"{name}: {unit} {found[1]}")
    return float(found[1])


def test_exposure_of_the_units(site: Site) -> None:
    for node, unit in itertools.product(("node1", "node2"), MAX_EXPOSURE):
        assert exposure(site, node, unit.format(node)) <= MAX_EXPOSURE[unit], node


@pytest.mark.parametrize("unit", [FLEET, PUBLISHER])
def test_exposure_of_the_units_of_hosts(site: Site, unit: str) -> None:
    assert exposure(site, "web1", unit) <= MAX_EXPOSURE_OF_HOSTS
    # As a host with Debian 13 rates the same file.
    text = site.shell("web1", f"systemctl cat {unit}")
    site.run("node2", f"cat >/run/{unit} <<'END'\n{text}END\n")
    assert exposure(site, "node2", f"--offline=true /run/{unit}") <= MAX_EXPOSURE_OF_HOSTS


def times(site: Site, node: str) -> tuple[int, int]:
    """When a node's etcd was started, and when it was ready, in microseconds of the machine's clock."""
    names = "-p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic"
    rows = site.shell(node, f"systemctl show {names} {ETCD}").splitlines()
    found = dict(row.split("=") for row in rows)
    return int(found["ExecMainStartTimestampMonotonic"]), int(
        found["ActiveEnterTimestampMonotonic"]
    )


def test_no_node_restarts_while_another_one_is_silent(site: Site) -> None:
    broken = (
        f"mkdir {BROKEN}; printf '[Service]\\nExecStartPre=/bin/false\\n' >{BROKEN}/broken.conf"
    )
    site.shell("node3", f"{broken}; systemctl daemon-reload; systemctl stop {GATE}")
    # The silent one itself may restart, because that could make it answer again.
    before = {node: times(site, node) for node in ("node1", "node2")}
    for variables in site.nodes.values():
        variables["fleet_node_history"] = "6m"
    assert "node3 does not answer through its gate" in site.play("fleet", good=False)
    assert {node: times(site, node) for node in before} == before


RENEWED = ("-e", "fleet_node_certificate_days=500", "-e", "fleet_node_renew_days=400")


def test_certificates_and_packages_are_renewed_and_nodes_restart_one_by_one(site: Site) -> None:
    site.shell("node3", f"rm -r {BROKEN}; systemctl daemon-reload")
    for node in site.nodes:
        site.shell(node, NEWER)
    before = {node: times(site, node) for node in site.nodes}
    former = (site.secrets / "hosts/web1/host.pem").read_text()
    site.play("fleet", *RENEWED, "-e", "fleet_node_update=true")
    for node in site.nodes:
        script = f"tail -c 5 /proc/$(systemctl show -P MainPID {ETCD})/exe"
        assert site.shell(node, script) == "newer", node
    assert (site.secrets / "hosts/web1/host.pem").read_text() != former
    script = (
        f"openssl s_client -connect {ipv4(22)}:2378 </dev/null 2>/dev/null | openssl x509 -noout"
    )
    assert "will not expire" in site.shell("node2", f"{script} -checkend {450 * 24 * 3600}")
    after = sorted(times(site, node) for node in site.nodes)
    assert min(after)[0] > max(before.values())[1]
    for (_started, ready), (next_started, _ready) in itertools.pairwise(after):
        assert ready <= next_started
    site.let_in()
    for node in site.nodes:
        assert site.values(node, "bans/api/a") == [encoded("kept")]


def test_a_second_run_on_three_nodes_changes_nothing(site: Site) -> None:
    assert changed(site.play("fleet", *RENEWED)) == 0


def test_a_backup_brings_back_the_state_of_its_time(site: Site) -> None:
    assert changed(site.play("fleet_backup", "--check")) == 0
    assert not (site.secrets / "backups").exists()
    with Spy() as spy:
        output = site.play("fleet_backup", "-vvv")
    text = output + b"\n".join(spy.lines).decode(errors="replace")
    assert not [word for word in site.passwords() if word in text]
    (backup,) = (site.secrets / "backups").iterdir()
    assert backup.stat().st_mode & 0o777 == 0o600
    site.put("bans/api/a", "later")
    # As if all nodes had lost their disks.
    for node in site.nodes:
        site.shell(node, f"systemctl kill -s KILL {ETCD}; systemctl stop {ETCD}; rm -r {DATA}/etcd")
    site.play("fleet_restore", "-e", f"fleet_node_backup={backup}")
    for node in site.nodes:
        assert site.values(node, "bans/api/a") == [encoded("kept")]


def test_a_lost_node_is_removed_and_another_one_takes_its_place(site: Site) -> None:
    remains = f"{DATA} /etc/packetwatch-fleet-node /etc/systemd/system/packetwatch-*"
    site.shell(
        "node2",
        f"systemctl disable {GATE} {ETCD}; systemctl stop 'packetwatch-*'; rm -r {remains};"
        " systemctl daemon-reload; systemctl reset-failed",
    )
    own = site.nodes["node2"]
    # Nothing answers there.
    site.nodes["node2"] = own | {"fleet_node_state": "lost", "ansible_port": 1}
    site.play("fleet")
    assert "node2" not in site.etcdctl("member list")
    for node in ("node1", "node3"):
        assert site.values(node, "bans/api/a") == [encoded("kept")]
    # The role asks the first node first, but only the leader gives a vote. An error means that another one leads already.
    found = re.search(r"^(\w+), started, node3,", site.etcdctl("member list"), re.M)
    assert found
    site.etcdctl(f"move-leader {found[1]} || true")
    site.nodes["node2"] = own
    site.play("fleet")
    for node in site.nodes:
        assert site.values(node, "bans/api/a") == [encoded("kept")]


def test_a_host_and_two_nodes_leave_and_nothing_of_them_stays(site: Site) -> None:
    password = site.shell("web1", "cat /etc/packetwatch-fleet/password").strip()
    assert site.token("node1", password)
    site.hosts = []
    site.nodes["node1"]["fleet_node_rabbitmq"] = "none"
    site.nodes["node2"] = site.nodes["node3"] = {"fleet_node_state": "absent"}
    site.play("fleet")
    for node in MACHINES:
        site.shell(node, "! pgrep -u rabbitmq && ! pgrep -f '[p]acketwatch_bus'")
        assert not site.shell(node, "ss -Hltn '( sport = :5671 or sport = :4369 )'"), node
    for folder in ("/etc/packetwatch-fleet-node", "/etc/systemd/system", "/var/lib"):
        names = site.shell("node1", f"ls {folder}").split()
        assert not [
            name for name in names if re.match(r"bus|rabbitmq\.|packetwatch.*(bus|rabbitmq)", name)
        ]
    assert site.token("node1", password) == ""
    assert site.get("bans/api/a") == "kept"
    # What they have reported is gone too: nobody waits for them.
    for key in ("hosts/web1/status", "rules/enforcer-node2", "rules/enforcer-node3"):
        assert not site.get(key), key
    assert site.get("rules/enforcer-node1")
    assert "node2" not in site.etcdctl("member list")
    paths = "-not -path '/root/.ansible/*' -not -path '/proc/*'"
    assert (
        site.shell("node3", f"find / -xdev -name '*packetwatch*' {paths} 2>/dev/null || true") == ""
    )


def test_the_last_node_is_removed(site: Site) -> None:
    site.nodes = {"node1": {"fleet_node_state": "absent"}}
    site.play("fleet")
    script = "systemctl list-unit-files --no-legend 'packetwatch*' || true"
    assert site.shell("node1", script) == ""
    assert changed(site.play("fleet")) == 0
