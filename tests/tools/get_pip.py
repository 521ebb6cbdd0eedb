# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installer for pip that ansible-test runs in its environments instead of one that it would download."""

from __future__ import annotations

import ensurepip

if __name__ == "__main__":
    ensurepip.bootstrap(default_pip=True)
