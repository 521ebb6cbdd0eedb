# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent while a filter is loaded: its parts, and what each part depends on."""

from __future__ import annotations

import typing as t

from packetwatch_core._bans.bans import Bans
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.ring import RingBuffer
from packetwatch_core._network.fleet import OFF

from .confirmed import Confirmed
from .control.commands import Commands
from .control.talkers import Talkers
from .control.watch import Watch
from .counters import Counters
from .drift import Drift
from .episodes import Episodes
from .following import Following
from .guard import Guard
from .keeper import Keeper
from .lines import Lines
from .links import Links
from .listeners import Listeners
from .loop import FLEET_PAUSE, MAX_PAUSE, Loop
from .losses import Losses
from .networks import Networks
from .outlook import Outlook
from .output import Complaints, Output
from .part import Part, Parts
from .presence import Presence
from .process import Process
from .quota import Quota
from .room import Room
from .service import Service
from .settings import Settings
from .slow import Slow
from .stream import Stream

if t.TYPE_CHECKING:
    from packetwatch_core._kernel.libbpf import Map
    from packetwatch_core._kernel.pins import Pins


def assemble(
    pins: Pins, maps: t.Mapping[str, Map], settings: Settings, output: Output, drift: Drift
) -> Service:
    """Make an agent. maps: those of `following.MAPS`, by name."""
    complain = Complaints(output)
    confirmed = Confirmed(settings.config_dir)
    outlook = Outlook(settings, confirmed, complain)
    following = Following(pins, maps, confirmed, outlook, drift, complain)
    process = Process()
    counters = Counters(maps["counters4"])
    links = Links(output)
    lines = Lines(output.host, links.name, settings.community_id)
    keeper = Keeper(Bans(maps), settings.state_dir, confirmed, lines, output)
    networks = Networks(settings, output)
    guard = Guard(maps, settings, output, keeper.lift, networks.check)
    links.on_change = guard.changed
    quota = Quota()
    losses = Losses(maps["counters4"], quota, output)
    talkers = Talkers()
    episodes = Episodes(lines, confirmed, links.name, quota)
    stream = Stream(
        RingBuffer(maps["events"]),
        lines,
        output,
        episodes,
        talkers,
        quota,
        lambda event: keeper.note(event, links.name(event.ifindex)),
        lambda ifindex: confirmed.policy(links.name(ifindex)).log_connections != "none",
    )
    slow = Slow(confirmed, links.name, keeper.impose, stream.report, output)
    keeper.on_forget = slow.forget
    if settings.log_probes:
        stream.consume(abi.EVENT_PROBE, stream.log_probe)
    stream.consume(abi.EVENT_PROBE, slow.probe)
    stream.consume(abi.EVENT_BAN, slow.scan)
    commands = Commands(maps, process, outlook, keeper, guard, talkers, links.name)
    listeners = Listeners(maps, output, lambda: confirmed.counts("udp"))
    fleet = (
        [] if settings.fleet == OFF else [_join(maps, keeper, stream, commands, settings, output)]
    )
    # A part may use the parts before it, because they stop after it.
    parts = Parts(
        *(
            process,
            drift,
            outlook,
            following,
            counters,
            links,
            guard,
            listeners,
            keeper,
            quota,
            losses,
        ),
        *(
            episodes,
            slow,
            stream,
            Room(maps, counters, keeper, guard, outlook),
            commands,
            Watch(output),
        ),
        *fleet,
    )
    loop = Loop(stream.poll, MAX_PAUSE if settings.fleet == OFF else FLEET_PAUSE)
    return Service(loop, parts, Presence(loop, settings, output, parts), output)


def _join(
    maps: t.Mapping[str, Map],
    keeper: Keeper,
    stream: Stream,
    commands: Commands,
    settings: Settings,
    output: Output,
) -> Part:
    """Make the part that answers the fleet process."""
    # Imported here: it costs memory, and most hosts have no fleet.
    from .fleet import Fleet
    from .sightings import Sightings

    sightings = Sightings()
    fleet = Fleet(Bans(maps), keeper, sightings, settings, output)
    stream.consume(abi.EVENT_PROBE, sightings.probe)
    stream.consume(abi.EVENT_BAN, sightings.scan)
    keeper.on_end = sightings.end
    commands.on_ban, commands.on_unban = fleet.banned, fleet.unbanned
    return fleet
