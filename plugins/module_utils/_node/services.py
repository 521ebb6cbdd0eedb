# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Starts the services of a node, and restarts them if they run with other files than are there now.

A service copies its digest to its runtime folder when it starts, so what it runs with is known also if a run
of the role ended between a change and the restart.
"""

from __future__ import annotations

import hashlib
import os
import time
import typing as t

from .._base.errors import PacketwatchError, SetupFailed
from .._base.files import replace_file
from .gateway import Gateway, Refused, encoded
from .keys import KEYS

if t.TYPE_CHECKING:
    from .._base.types import Run

_PAUSE = 1.0
# Seconds for another node: it may have joined just now, or be slow.
_SILENCE = 30.0
_PIECE = 1 << 20


class Service(t.NamedTuple):
    """A unit, the files that it reads only when it starts, and where the two digests are."""

    unit: str
    files: t.Sequence[str]
    declared: str
    running: str


class Services:
    """The services of this node, in the order in which they start."""

    def __init__(self, run: Run, services: t.Sequence[Service], *, dry: bool = False) -> None:
        self._run = run
        self._services = services
        self._dry = dry

    def start(self) -> list[str]:
        """Enable and start what does not run; do not wait for it, because etcd waits for the other nodes."""
        self._reload()
        changes = []
        for service in self._services:
            if not self._is(service, "is-enabled"):
                changes.append(f"{service.unit} enabled")
                self._systemctl("enable", service.unit)
            if not self._is(service, "is-active"):
                changes.append(f"{service.unit} started")
                self._declare(service)
                self._systemctl("start", "--no-block", service.unit)
        return changes

    def due(self) -> list[Service]:
        """The services that run with other files than are there now."""
        return [
            service
            for service in self._services
            if _digest(service.files) != _read(service.running)
        ]

    def restart(self, services: t.Sequence[Service]) -> None:
        """Restart services."""
        for service in services:
            self._declare(service)
            self._systemctl("restart", service.unit)

    def _declare(self, service: Service) -> None:
        if not self._dry:
            replace_file(service.declared, _digest(service.files), 0o644)

    def _reload(self) -> None:
        changed = [service.unit for service in self._services if self._has_other_files(service)]
        if changed:
            self._systemctl("daemon-reload")
        for unit in changed:
            # systemd 257 leaves a running unit with its former filter of addresses until a property is set.
            self._systemctl("set-property", "--runtime", unit, "IPAccounting=no")

    def _has_other_files(self, service: Service) -> bool:
        question = ("systemctl", "show", "--property=NeedDaemonReload", "--value", service.unit)
        status, output, _errors = self._run(question, None)
        return status == 0 and output.strip() == "yes"

    def _is(self, service: Service, question: str) -> bool:
        return self._run(("systemctl", "--quiet", question, service.unit), None)[0] == 0

    def _systemctl(self, *words: str) -> None:
        if self._dry:
            return
        status, output, errors = self._run(("systemctl", *words), None)
        if status:
            raise SetupFailed(
                f"systemctl {' '.join(words)} failed: {errors.strip() or output.strip()}; "
                f"read journalctl --unit {words[-1]}"
            )


def healthy(gateway: Gateway) -> bool:
    """Whether a node answers through its gate, with the agreement of a majority."""
    try:
        try:
            gateway.login()
        except Refused as error:
            # The first run asks before the store has passwords.
            if "not enabled" not in error.reason:
                raise
        gateway.post("/v3/kv/range", {"key": encoded(KEYS)})
    except PacketwatchError:
        return False
    return True


def update(
    services: Services, own: Gateway, others: t.Mapping[str, Gateway], patience: float, dry: bool
) -> list[str]:
    """Restart what is due, and wait until this node answers; return the restarted units.

    A node that answers is not restarted while another one does not: then only a minority would be left.
    Raises SetupFailed.
    """
    due = services.due()
    if due and not dry:
        if others and healthy(own):
            _require(others)
        services.restart(due)
    if not dry:
        deadline = time.monotonic() + patience
        while not healthy(own):
            if time.monotonic() > deadline:
                raise SetupFailed(
                    f"this node does not answer through its gate within {patience:g} s, so no further node is "
                    "touched: read journalctl --unit packetwatch-fleet-etcd.service --unit packetwatch-fleet-gate.service"
                )
            time.sleep(_PAUSE)
    return [f"{service.unit} restarted" for service in due]


def _require(others: t.Mapping[str, Gateway]) -> None:
    deadline = time.monotonic() + _SILENCE
    while silent := [name for name, gateway in others.items() if not healthy(gateway)]:
        if time.monotonic() > deadline:
            raise SetupFailed(
                f"{', '.join(silent)} does not answer through its gate, so this node was not restarted: a minority would "
                "be left; repair that node, or remove it from the fleet, and run the playbook again"
            )
        time.sleep(_PAUSE)


def _digest(paths: t.Sequence[str]) -> str:
    """The digest of all files; a missing one counts as empty, and a link to a folder as the folder's name."""
    found = hashlib.sha256()
    for path in paths:
        own = hashlib.sha256()
        if os.path.isdir(path):
            own.update(os.path.realpath(path).encode())
        elif os.path.exists(path):
            with open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    own.update(piece)
        found.update(own.digest())
    return f"{found.hexdigest()}\n"


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
