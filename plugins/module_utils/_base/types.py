# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Callable types that are handed into the library."""

from __future__ import annotations

import typing as t

# argv and standard input -> exit status, standard output, standard error.
Run = t.Callable[[t.Sequence[str], t.Optional[str]], tuple[int, str, str]]
