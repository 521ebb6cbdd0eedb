# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts processes for the host library, which never does so itself. Only one-shots use it."""

from __future__ import annotations

import os
import subprocess
import typing as t

_NOT_FOUND = 127


def run(argv: t.Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Run a command to its end; return its exit status, standard output and standard error.

    A command that cannot be started has status 127 and the reason on standard error, as in a
    shell. The locale is C, so that messages are the same on every host.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except OSError as error:
        return _NOT_FOUND, "", f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout, done.stderr
