# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The one exception that the lab raises for errors that a user can fix."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked. The text says what failed and, if known, the remedy."""
