# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet's API on a node of `servers`: gunicorn with the libraries of a release, behind the node's gate.

It runs in the unpacked packages of that release, with that release's Python, and has the programs that the role
installs.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import NODE, collect
from fleet import software
from fleet.servers import FleetNodes, Server

COLLECTION = Path(__file__).resolve().parents[2]
RELEASES = ("bookworm", "trixie")
# Paths in the release's tree.
_LIBRARY, _CONFIG, _RUN = "/mnt/library", "/mnt/config", "/mnt/run"
_TREE = """
mount --make-rprivate /
mkdir -p {tree}{library} {tree}{config} {tree}{run} {tree}/proc
# Links that a package's script would make.
for name in lib lib64; do [ -e {tree}/$name ] || ln -sfn usr/$name {tree}/$name; done
mount --bind {source} {tree}{library}
mount --bind {settings} {tree}{config}
mount --bind {runtime} {tree}{run}
mount --bind /dev {tree}/dev
mount -t proc proc {tree}/proc
exec env -i {environment} chroot {tree} {command}
"""
_PATIENCE = 120.0
PORT = 443
ROLES = ("read", "ban", "lists", "admin")
PROTECTED = "192.0.2.128/28"


class Reply(NamedTuple):
    """What the API has answered."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def etag(self) -> str:
        return self.headers["ETag"]


def unpack_library(folder: Path) -> Path:
    """Write what the role installs on a node."""
    for path, data in collect(COLLECTION, NODE).files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


class Api:
    """The API of one node, behind its gate."""

    def __init__(self, nodes: FleetNodes, release: str, folder: Path, number: int = 0) -> None:
        self.nodes = nodes
        self.node = nodes.nodes[number]
        self.release = release
        self.tokens = folder / "config/tokens"
        self._folder = folder
        self._config = folder / "config"
        self.tokens.mkdir(parents=True)
        unpack_library(folder / "library")
        (self._config / "never").write_text(nodes.never(PROTECTED))
        (self._config / "api.password").write_text(nodes.service_credentials("api").password)
        for name in ("nodes-ca.pem", "inner.pem"):
            (self._config / name).write_bytes((self.node.config / name).read_bytes())
        self.secrets = {role: self.add_token(f"test-{role}", role) for role in ROLES}

    def add_token(self, name: str, role: str, expires: float | None = None) -> str:
        """Make a token as the command does; return its secret."""
        secret = f"pw_{base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip('=')}"
        path = self.tokens / "made.json"
        rows = json.loads(path.read_text())["tokens"] if path.exists() else []
        digest = hashlib.sha256(secret.encode()).hexdigest()
        rows.append({"name": name, "role": role, "digest": digest, "expires": expires})
        self._write(path, rows)
        return secret

    def revoke(self, name: str) -> None:
        path = self.tokens / "made.json"
        rows = [row for row in json.loads(path.read_text())["tokens"] if row["name"] != name]
        self._write(path, rows)

    def start(self, *options: str) -> None:
        """Start gunicorn with the unit's options and further ones; return when it answers."""
        command = [*self._gunicorn(), *options, "packetwatch_api.wsgi"]
        script = _TREE.format(
            tree=software.api(self.release),
            library=_LIBRARY,
            config=_CONFIG,
            run=_RUN,
            source=self._folder / "library",
            settings=self._config,
            runtime=self.node.runtime,
            environment=" ".join(
                f"'{name}={value}'" for name, value in self._environment().items()
            ),
            command=" ".join(command),
        )
        argv = ["unshare", "--mount", "sh", "-euc", script]
        path = {"PATH": os.environ["PATH"]}
        self.server = Server(self.node.namespace, argv, self._folder / "api.log", path)
        self.server.start()
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline, self.server.words()
            assert self.server.running, self.server.words()
            time.sleep(0.05)

    def stop(self) -> None:
        self.server.kill()
        (self.node.runtime / "api.sock").unlink(missing_ok=True)

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if '"event.action":"audit"' in line]

    @property
    def log(self) -> Path:
        return self._folder / "api.log"

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.nodes.ca))

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection through the gate, for what a library would not send."""
        with self.nodes.lan.entered():
            plain = socket.create_connection((self.node.address, PORT), timeout=60)
        return (context or self.context()).wrap_socket(plain, server_hostname=self.node.name)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: str = "admin",
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request through the gate. token: in place of that of the role; empty: none."""
        secret = self.secrets[role] if token is None else token
        given = {"Authorization": f"Bearer {secret}"} if secret else {}
        if body is not None:
            given["Content-Type"] = "application/json"
        data = json.dumps(body) if isinstance(body, dict) else body
        given |= headers or {}
        connection = http.client.HTTPSConnection(self.node.address, PORT, timeout=60)
        connection.sock = self.connect()
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def _gunicorn(self) -> list[str]:
        """The command of the unit, with paths of the tree."""
        unit = (COLLECTION / "roles/fleet_node/files/packetwatch-api.service").read_text()
        line = unit.replace("\\\n", " ").partition("ExecStart=")[2].partition("\n")[0]
        # The gate's workers are another user here.
        words = line.replace("/run/packetwatch-api", _RUN).replace("--umask 7", "--umask 0").split()
        return words[:-1]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": _LIBRARY,
            "PYTHONDONTWRITEBYTECODE": "1",
            "CREDENTIALS_DIRECTORY": _CONFIG,
            "PW_API_AUTHORITY": f"{_CONFIG}/nodes-ca.pem",
            "PW_API_TOKENS": f"{_CONFIG}/tokens",
            "PW_FLEET_NEVER": f"{_CONFIG}/never",
        }

    def _answers(self) -> bool:
        try:
            return self.call("GET", "/v1/healthz", token="").status == 200
        except OSError:
            return False

    def _write(self, path: Path, rows: list[dict[str, Any]]) -> None:
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({"tokens": rows}))
        draft.rename(path)


@contextmanager
def running_api(nodes: FleetNodes, release: str, *options: str) -> Iterator[Api]:
    """The API on the first node. options: further ones of gunicorn."""
    with tempfile.TemporaryDirectory(prefix="pwapi-") as folder:
        api = Api(nodes, release, Path(folder))
        api.start(*options)
        try:
            yield api
        finally:
            api.stop()
