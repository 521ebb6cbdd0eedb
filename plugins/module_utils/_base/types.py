# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Types of what callers pass to the library, and of what modules return."""

from __future__ import annotations

import typing as t

Run = t.Callable[[t.Sequence[str], t.Optional[str]], tuple[int, str, str]]
"""Runs a command: (argv, standard input) -> (exit status, standard output, standard error)."""
Result = dict[str, t.Any]
"""What a module returns: values that JSON can hold."""
