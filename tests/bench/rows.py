# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of the table: what is compared with what, and the ratio to reach."""

from __future__ import annotations

from bench.figures import Row, Value

_DROP, _PASS = "bare drop", "bare pass"
_SYN_LIMIT_NS = 350.0
_COUNTED, _WRITTEN = 1e6, 6e5
_KINDS = {
    "counted": _COUNTED,
    "written, 1,000 sources": _WRITTEN,
    "written, a source each": _WRITTEN,
}


def _net(name: str) -> Value:
    return Value(name, f"{name}, floor")


def _drained(kind: str, limit: float) -> list[Row]:
    """Return rows for the events that the agent reads: beside the required rate, and beside callbacks."""
    ours = Value(f"agent, {kind}")
    rows = [Row(f"events {kind} : {limit:,.0f}/s", ours, limit, 1.0, "min", "events/s")]
    for rival in ("bcc", "libbpf"):
        theirs = Value(f"{rival} callback, {kind}")
        rows.append(Row(f"events {kind} : {rival} callback", ours, theirs, 1.0, "min", "events/s"))
    return rows


def _random(name: str, case: str, goal: float) -> Row:
    """Return a row for random sources: ours beside a hash of the same hosts, both without the generator's cost."""
    return Row(name, _net(case), Value(f"{case}, hash", f"{case}, floor"), goal)


ROWS = (
    Row(
        "denied IPv4 source, 10k list : xdp-filter",
        Value("denied, 10k list", _DROP),
        Value("denied, xdp-filter 10k", _DROP),
        0.3,
    ),
    Row(
        "established TCP, everything on : xdp-filter",
        Value("established, everything on", _PASS),
        Value("established, xdp-filter 10k", _PASS),
        0.3,
    ),
    Row(
        "established TCP, no options : timestamps",
        Value("established without options", _PASS),
        Value("established, everything on", _PASS),
        1.5,
    ),
    Row(
        "ACK to a closed port, detection : 350 ns",
        Value("ACK to a closed port", _PASS),
        _SYN_LIMIT_NS,
        1.0,
    ),
    Row(
        "no next program : a program without the call",
        Value("next: none", _PASS),
        Value("next: a program without the call", _PASS),
        1.05,
    ),
    Row(
        "a next program that passes : none",
        Value("next: one that passes", _PASS),
        Value("next: none", _PASS),
        None,
    ),
    Row(
        "dispatcher, one member : alone",
        Value("dispatcher: one member", _PASS),
        Value("next: none", _PASS),
        None,
    ),
    Row(
        "dispatcher, two members : alone",
        Value("dispatcher: two members", _PASS),
        Value("next: none", _PASS),
        None,
    ),
    _random("random unlisted IPv4, 1M + 10k prefixes : hash", "random unlisted", 0.33),
    _random("random denied IPv4, 1M + 10k prefixes : hash", "random denied", 0.33),
    _random("random unlisted IPv6, 1M uniform : hash", "IPv6 uniform, unlisted", 0.4),
    _random("random denied IPv6, 1M uniform : hash", "IPv6 uniform, denied", 0.4),
    _random("random unlisted IPv6, 1M in 5,000 /32s : hash", "IPv6 clustered, unlisted", 0.5),
    _random("random denied IPv6, 1M in 5,000 /32s : hash", "IPv6 clustered, denied", 0.5),
    Row(
        "random unlisted IPv4, 1M : one random read",
        _net("random unlisted"),
        Value("random array read", "random unlisted, floor"),
        None,
    ),
    Row(
        "random denied, 16 lists : 1 list",
        Value("random denied, 16 lists", "random denied, floor"),
        _net("random denied"),
        1.05,
    ),
    Row(
        "random unlisted, 16 lists : 1 list",
        Value("random unlisted, 16 lists", "random unlisted, floor"),
        _net("random unlisted"),
        1.05,
    ),
    Row(
        "SYN, detection and event : 350 ns",
        Value("SYN, detection and event", "SYN, detection off"),
        _SYN_LIMIT_NS,
        1.0,
    ),
    Row(
        "one event to user space : perf buffer",
        Value("SYN, detection and event", "SYN, no event"),
        Value("perf buffer, SYN", "perf buffer, no event"),
        0.02,
    ),
    Row(
        "drops, 10k list : xdp-filter",
        Value("drops, 10k list"),
        Value("drops, xdp-filter 10k"),
        1.15,
        "min",
        "packets/s",
    ),
    Row(
        "drops, 100k list : XDP drop-all",
        Value("drops, 100k list"),
        Value("XDP drop-all, 100k sources"),
        0.7,
        "min",
        "packets/s",
    ),
    Row(
        "drops, 100k list : best of nft and ipset",
        Value("drops, 100k list"),
        Value("drops, best of nft and ipset"),
        3.3,
        "min",
        "packets/s",
    ),
    Row("load 1M IPv4 : ipset", Value("load IPv4"), Value("load IPv4, ipset"), 0.45, unit="s"),
    Row("load 1M IPv4 : nft", Value("load IPv4"), Value("load IPv4, nft"), 0.25, unit="s"),
    Row(
        "load 1M IPv4, kernel part : ipset",
        Value("load IPv4, kernel part"),
        Value("load IPv4, ipset"),
        0.02,
        unit="s",
    ),
    Row(
        "load 1M IPv4, sorted : ipset",
        Value("load IPv4, sorted"),
        Value("load IPv4, ipset"),
        0.3,
        unit="s",
    ),
    Row("load 1M IPv6 : ipset", Value("load IPv6"), Value("load IPv6, ipset"), 0.5, unit="s"),
    Row(
        "load 1M, half IPv6 : ipset",
        Value("load half IPv4, half IPv6"),
        Value("load half IPv4, half IPv6, ipset"),
        0.5,
        unit="s",
    ),
    Row("1M, half IPv6, unchanged : 1 s", Value("nothing to load"), 1.0, 1.0, unit="s"),
    Row("host_info, all of 1M : 2 s", Value("tell everything"), 2.0, 1.0, unit="s"),
    Row(
        "SYNs/s : bcc perf buffer",
        Value("SYNs, detection on"),
        Value("SYNs, bcc perf buffer"),
        3.5,
        "min",
        "SYNs/s",
    ),
    Row(
        "SYNs/s : nftables recipe",
        Value("SYNs, detection on"),
        Value("SYNs, nftables recipe"),
        1.2,
        "min",
        "SYNs/s",
    ),
    Row(
        "SYNs/s : XDP pass",
        Value("SYNs, detection on"),
        Value("SYNs, XDP pass-all"),
        0.8,
        "min",
        "SYNs/s",
    ),
    Row(
        "kernel memory, 1M IPv4 : ipset",
        Value("kernel memory, 1M"),
        Value("kernel memory, ipset 1M"),
        0.3,
        unit="MiB",
    ),
    Row(
        "kernel memory, ten entries : 1 MiB",
        Value("kernel memory, ten entries"),
        1.0,
        1.0,
        unit="MiB",
    ),
    *(row for kind, limit in _KINDS.items() for row in _drained(kind, limit)),
)
