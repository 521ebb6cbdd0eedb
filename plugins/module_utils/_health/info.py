# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The subsets of host_info: declared state, kernel state, and the filter's counters."""

from __future__ import annotations

import errno
import os
import time
import typing as t

from .._active.lists import digest_of, pair_digest
from .._active.loaded import Loaded
from .._bans.bans import Bans
from .._base.digest import sha256_for
from .._change import pending as pending_module
from .._declared.describe import count_entries, format_ranges
from .._declared.policy import resolve_policies
from .._feeds.copies import Ages
from .._kernel.counters import Counters, connections, packets, read_pinned
from .._kernel.libbpf import KernelError
from .._kernel.programs import Program
from .._network import protect
from .._tables.reader import read_ranges
from .active import Active, Interface, read_active
from .chain import as_fields, read_chains

if t.TYPE_CHECKING:
    from .._change.panic import Panic
    from .._change.pending import Change
    from .._declared.store import State, Store
    from .._kernel.pins import Pins
    from .chain import Chain

_SECOND = 1e9


def gather(subset: set[str], pins: Pins, state: State) -> dict[str, t.Any]:
    """The requested subsets by name. While no filter is loaded, subsets of the filter are empty."""
    found: dict[str, t.Any] = {}
    if subset & {"interfaces", "lists", "ranges"}:
        with Loaded(pins) as loaded:
            active = read_active(loaded)
            names = {*state.interfaces, *loaded.links}
            found["interfaces"] = _interfaces(active, names, state, read_chains(loaded, state))
            found["lists"] = _lists(active, state)
            found["ranges"] = _ranges(loaded) if "ranges" in subset else {}
    if "policy" in subset:
        policies = resolve_policies(state.policy)
        found["policy"] = {name: item._asdict() for name, item in policies.items()}
    if "entries" in subset:
        found["entries"] = {"allow": dict(state.allow), "deny": dict(state.deny)}
    loaded_maps = pins.loaded()
    if "counters" in subset:
        found["counters"] = _counters(read_pinned(pins)) if loaded_maps else {}
    if "bans" in subset:
        found["bans"] = _bans(Bans.open(pins)) if loaded_maps else []
    if "protected" in subset:
        found["protected"] = _protected(pins) if loaded_maps else {}
    return {name: value for name, value in found.items() if name in subset}


def change(
    store: Store, state: State, last: Change | None, pending: Change | None
) -> dict[str, t.Any]:
    """The confirmed state, and the pending change or the last one.

    last: the recorded change, pending or not. It is left out if a later change was confirmed.
    """
    confirmed_at = store.confirmed_at()
    if last and not pending and last.ended < confirmed_at:
        last = None
    return {
        "number": store.number(),
        "confirmed_at": _moment(confirmed_at),
        "took_back": store.took_back() or None,
        "program": program_digest(state.program),
        "status": last.status if last else "none",
        "owner": last.owner if last else "",
        "remaining": max(0.0, pending.left) if pending else None,
        "ended_at": _moment(last.ended) if last else None,
    }


def feeds(state: State, note: str) -> dict[str, t.Any]:
    """How old the copies of feeds are. note: path of the note of their times."""
    now = time.time()
    return {
        name: {
            "age": max(0.0, now - times.fetched),
            "fetched_at": _moment(times.fetched),
            "published_at": _moment(times.published or 0),
            "expires_at": _moment(times.end or 0),
        }
        for name, times in sorted(Ages(note).of(state).items())
    }


def panic(found: Panic | None) -> dict[str, t.Any] | None:
    """The panic, if there is one."""
    return {"since": _moment(found.since), "owner": found.owner} if found else None


def program_digest(source: str) -> str:
    """First 16 hex digits of a source's SHA-256; empty for an empty source."""
    data = source.encode()
    check = sha256_for(len(data))
    check.update(data)
    return str(check.hexdigest())[:16] if data else ""


def version(source: str) -> str:
    """``VERSION-DIGEST`` of the installed software, read from the folder of its C source; "" if none is."""
    try:
        return os.path.basename(os.readlink(os.path.dirname(source)))
    except OSError:
        return ""


def _moment(seconds: float) -> str | None:
    return pending_module.moment(seconds) if seconds else None


def _counters(found: Counters) -> dict[str, t.Any]:
    """Packets by verdict, reason and family (without zeros), connections by family, all other counters."""
    numbers: dict[str, dict[str, dict[str, int]]] = {"pass": {}, "drop": {}}
    for verdict, reason, family, number in packets(found):
        if number:
            numbers[verdict].setdefault(reason, {})[family] = number
    return found | {"packets": numbers, "connections": connections(found)}


def _interfaces(
    active: Active, names: set[str], state: State, chains: t.Mapping[str, Chain]
) -> dict[str, t.Any]:
    none = Interface(0, 0, "none", 0, 0)
    result = {}
    for name in sorted(names):
        there = active.interfaces.get(name, none)
        number = there.program if there.is_ours else there.attached
        result[name] = {
            "wanted": state.interfaces.get(name),
            "mode": there.mode,
            "program_id": number,
            "verified_instructions": _verified(number),
            "chain": as_fields(chains.get(name, ())),
        }
    return result


def _verified(program_id: int) -> int:
    """Number of instructions that the verifier processed to load a program; 0 without a program."""
    try:
        with Program.by_id(program_id) as program:
            return program.info().verified
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return 0  # There is no program, or a writer has replaced it since its id was read.
        raise


def _lists(active: Active, state: State) -> dict[str, t.Any]:
    return {
        "live": bool(active.interfaces),
        "digest": active.digest,
        "current": bool(active.interfaces) and active.lists == digest_of(state),
        "declared": {
            name: pair_digest(state, name) for name in sorted({*state.allow, *state.deny})
        },
        "allow": {name: count_entries(text) for name, text in sorted(state.allow.items())},
        "deny": {name: count_entries(text) for name, text in sorted(state.deny.items())},
    }


def _ranges(loaded: Loaded) -> dict[str, str]:
    """The ranges of the tables in the kernel, read back."""
    with loaded.generation() as current:
        tables = current.areas().tables()
    return format_ranges(read_ranges(tables))


def _bans(bans: Bans) -> list[dict[str, t.Any]]:
    now = time.monotonic_ns()
    return [
        {
            "source": ban.source.text,
            "origin": ban.origin_name,
            "remaining": (ban.expires - now) / _SECOND if ban.expires else None,
            "ports": ban.ports,
            "dropped": ban.dropped,
        }
        for ban in sorted(bans.active(), key=lambda ban: ban.source)
    ]


def _protected(pins: Pins) -> dict[str, str]:
    maps = pins.open_run_maps(("hosts", "nets"))
    return {item.prefix: item.reason for item in protect.listed(maps)}
