# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""A real Prometheus in a network namespace that scrapes an agent's metrics."""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.parse
from typing import TYPE_CHECKING, Any

from lab import dial

if TYPE_CHECKING:
    from pathlib import Path

# The caller's own namespace.
HERE = "/proc/self/ns/net"
_SECONDS = 30.0


def get(namespace: str, address: str, port: int, path: str) -> bytes:
    """Fetch a page by plain HTTP from inside a namespace, given by its file; OSError if that fails."""
    connection = http.client.HTTPConnection(address, port)
    connection.sock = dial.connect(namespace, address, port, _SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"{address} port {port} answers {answer.status}: {text[:200]!r}")
        return text
    finally:
        connection.close()


def parse(page: bytes) -> dict[str, float]:
    """Parse a page in the text format: values by name with labels."""
    rows = (row.rsplit(" ", 1) for row in page.decode().splitlines() if row[0] != "#")
    return {name: float(value) for name, value in rows}


def complaints(page: bytes) -> str:
    """The complaints of promtool about a page of metrics; empty if there are none."""
    argv = ["promtool", "check", "metrics"]
    done = subprocess.run(
        argv, input=page, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.stdout.decode() or "failed" * bool(done.returncode)


class Prometheus:
    """A Prometheus that scrapes a target, ADDRESS:PORT, every five seconds, with a file of rules."""

    def __init__(
        self, folder: Path, rules: Path, target: str, port: int, namespace: str = HERE
    ) -> None:
        self._namespace = namespace
        self._port = port
        config = {
            # A scrape may take five seconds, because an emulated processor may need more than one.
            "global": {
                "scrape_interval": "5s",
                "scrape_timeout": "5s",
                "evaluation_interval": "1s",
            },
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": "packetwatch", "static_configs": [{"targets": [target]}]}
            ],
        }
        path = folder / "prometheus.yml"
        path.write_text(json.dumps(config))
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "nsenter",
                    f"--net={namespace}",
                    "--",
                    "prometheus",
                    f"--config.file={path}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path: str, **words: str) -> Any:
        query = urllib.parse.urlencode(words)
        found = json.loads(get(self._namespace, "127.0.0.1", self._port, f"/api/v1/{path}?{query}"))
        assert found["status"] == "success", found
        return found["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.ask("query", query=text)["result"]
        return result

    def is_scraping(self) -> bool:
        try:
            return len(self.query("packetwatch_build_info")) == 1
        except OSError:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
