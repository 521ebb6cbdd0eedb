# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A namespace behind the host, with ports that the host redirects to it, as Docker does."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.datapath import join
from kernel.hosting import Namespace, ip

ADDRESS = "10.78.0.2"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@contextlib.contextmanager
def published(rule: str) -> Iterator[Namespace]:
    """Make the namespace, from the host's; it has `ADDRESS`. rule: of nft, what goes to it."""
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    inner = Namespace()
    rules = f"""table ip packetwatch_test {{
        chain before {{
            type nat hook prerouting priority dstnat;
            {rule}
        }}
    }}"""
    try:
        ip(f"link add c0 type veth peer name c1 netns {inner.path}")
        join("c0", "10.78.0.1/24")
        with inner.entered():
            join("c1", f"{ADDRESS}/24")
            ip("route add default via 10.78.0.1")
        _FORWARDING.write_text("1")
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        yield inner
    finally:
        _FORWARDING.write_text("0")
        subprocess.run(["nft", "delete", "table", "ip", "packetwatch_test"], check=False)
        ip("link delete c0")
        inner.close()
