# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's own etcd. Each thread has a connection of its own."""

from __future__ import annotations

import threading
import typing as t

from packetwatch_core._node.gateway import Gateway, Refused, Unreached

from .problem import Away, Problem

_T = t.TypeVar("_T")
_UNAUTHORIZED = 401
# Of etcd, for a transaction with more than 128 keys or 1.5 MB.
_TOO_LARGE = ("too many operations", "too large")


class Store:
    """connect: makes a connection."""

    def __init__(self, connect: t.Callable[[], Gateway]) -> None:
        self._connect = connect
        self._own = threading.local()

    def run(self, operation: t.Callable[[Gateway], _T]) -> _T:
        """Run an operation, which reads before it writes: it may run twice. Raises `Away`."""
        try:
            return operation(self._gateway())
        except Unreached:
            # The connection may have been idle for too long.
            pass
        except Refused as error:
            if not _is_token(error):
                raise _problem(error) from None
            # etcd forgets tokens when it restarts.
            self._gateway().token = ""
        try:
            return operation(self._gateway())
        except Unreached as error:
            raise Away(f"{error}: try again, or use another node") from None
        except Refused as error:
            raise _problem(error) from None

    def _gateway(self) -> Gateway:
        found: Gateway | None = getattr(self._own, "gateway", None)
        if found is None:
            found = self._own.gateway = self._connect()
        return found


def _problem(error: Refused) -> Problem:
    if any(words in error.reason for words in _TOO_LARGE):
        return Problem(
            422,
            f"this changes too much at once ({error.reason}): take the address off single lists first",
        )
    return Away(f"the store refuses: {error.reason}")


def _is_token(error: Refused) -> bool:
    return error.status == _UNAUTHORIZED or "auth token" in error.reason
