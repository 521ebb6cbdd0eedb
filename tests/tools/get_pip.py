# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-test runs in its environments in place of the pip installer that it would download."""

from __future__ import annotations

import ensurepip

if __name__ == "__main__":
    ensurepip.bootstrap(default_pip=True)
