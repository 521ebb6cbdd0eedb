# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fills a map with many entries by one system call."""

from __future__ import annotations

import ctypes

from packetwatch_core._kernel.libbpf import Map, _BatchOpts, call


def update_many(bpf_map: Map, keys: bytes, values: bytes, count: int) -> None:
    """Set `count` keys at once; keys and values are the items one after the other."""
    done = ctypes.c_uint32(count)
    opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
    arguments = (keys, values, ctypes.byref(done), ctypes.byref(opts))
    call("bpf_map_update_batch", bpf_map.fd, *arguments, what=f"update {bpf_map.info.name}")
