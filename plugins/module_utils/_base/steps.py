# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Work in steps, for a caller that has other things to do between them."""

from __future__ import annotations

import typing as t

_T = t.TypeVar("_T")

Steps = t.Generator[None, None, _T]
"""It yields after each step of a few milliseconds, and returns the result."""


def finish(steps: Steps[_T]) -> _T:
    """Take all steps at once; return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
