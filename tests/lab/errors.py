# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The one exception that the lab raises for everything a user can do something about."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked; the text says what and, where known, the remedy."""
