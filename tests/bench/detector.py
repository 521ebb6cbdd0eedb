# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reference for events: SYNs handed to Python one by one through bcc's perf buffer.

Run by the system's Python, which has bcc: detector.py INTERFACE PORTS SECONDS.
"""

from __future__ import annotations

import collections
import ctypes
import sys
import time
from typing import Any

from bcc import BPF

PROGRAM = """
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/tcp.h>

struct attempt {
    u32 source;
    u16 port;
    u16 padding;
};

BPF_HASH(banned, u32, u8, 65536);
BPF_PERF_OUTPUT(attempts);

int detector(struct xdp_md *context)
{
    void *data = (void *)(long)context->data;
    void *end = (void *)(long)context->data_end;
    struct ethhdr *ethernet = data;
    struct iphdr *ip = (void *)(ethernet + 1);
    if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    u32 source = ip->saddr;
    if (banned.lookup(&source))
        return XDP_DROP;
    struct tcphdr *tcp = (void *)ip + ip->ihl * 4;
    if (ip->protocol != IPPROTO_TCP || (void *)(tcp + 1) > end || !tcp->syn || tcp->ack)
        return XDP_PASS;
    struct attempt attempt = {.source = source, .port = bpf_ntohs(tcp->dest)};
    attempts.perf_submit(context, &attempt, sizeof(attempt));
    return XDP_PASS;
}
"""


class Attempt(ctypes.Structure):
    _fields_ = [
        ("source", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("padding", ctypes.c_uint16),
    ]


class Detector:
    """Bans a source at its PORTS-th port within SECONDS."""

    def __init__(self, interface: str, ports: int, seconds: float) -> None:
        self._bpf = BPF(text=PROGRAM)
        self._ports = ports
        self._seconds = seconds
        self._seen: dict[int, dict[int, float]] = collections.defaultdict(dict)
        self._bpf.attach_xdp(interface, self._bpf.load_func("detector", BPF.XDP), 0)
        self._bpf["attempts"].open_perf_buffer(self._attempt, page_cnt=64)

    def _attempt(self, _cpu: int, data: Any, _size: int) -> None:
        attempt = ctypes.cast(data, ctypes.POINTER(Attempt)).contents
        now = time.monotonic()
        seen = self._seen[attempt.source]
        seen[attempt.port] = now
        if len(seen) < self._ports:
            return
        recent = [port for port, when in seen.items() if now - when < self._seconds]
        if len(recent) >= self._ports:
            self._bpf["banned"][ctypes.c_uint32(attempt.source)] = ctypes.c_uint8(1)

    def run(self) -> None:
        while True:
            self._bpf.perf_buffer_poll()


if __name__ == "__main__":
    detector = Detector(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    print("ready", flush=True)
    detector.run()
