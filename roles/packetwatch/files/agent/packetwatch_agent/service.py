# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent: ring → log lines and counts; bans, protected addresses and metrics beside it."""

from __future__ import annotations

import signal
import time
import typing as t

from packetwatch_core._bans.bans import Bans
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._health.problems import find
from packetwatch_core._kernel import netlink
from packetwatch_core._kernel.ring import RingBuffer

from . import __version__, metrics
from .confirmed import Confirmed
from .control.commands import FOLLOWING, Commands, about, packets
from .control.talkers import Talkers
from .drift import Drift
from .episodes import Episodes
from .events import Event
from .guard import Guard
from .keeper import Keeper
from .lines import Lines
from .loop import IDLE, Loop
from .losses import PERIOD as LOSSES_PERIOD
from .losses import Losses
from .networks import Networks
from .outlook import Outlook
from .output import Output
from .presence import Presence
from .quota import Quota
from .settings import Settings
from .stream import Stream

if t.TYPE_CHECKING:
    from packetwatch_core._bans.bans import Ban
    from packetwatch_core._kernel.libbpf import Map
    from packetwatch_core._kernel.pins import Pins

MAPS = (
    "bans",
    "scan_bans",
    "overflow",
    "hosts",
    "nets",
    "local",
    "events",
    "counters",
    "shared",
)
_LAST_BATCHES = 64
_CONFIRMED_PERIOD = 5.0
_PINS_PERIOD = 2.0
_EPISODES_PERIOD = 5.0
_TROUBLES = 100
_ZERO = (0).to_bytes(4, "little")


class Service:
    """Everything that runs in the agent's loop, on the maps of `MAPS` by name."""

    def __init__(
        self,
        pins: Pins,
        maps: t.Mapping[str, Map],
        settings: Settings,
        output: Output,
        drift: Drift,
    ) -> None:
        self._pins = pins
        self._maps = maps
        self._settings = settings
        self._output = output
        self._drift = drift
        self._started = time.time()
        self._troubles: set[str] = set()
        self._ring = RingBuffer(maps["events"])
        self._loop = Loop(self._poll)
        self._changes = netlink.Changes()
        self._talkers = Talkers()
        self._confirmed = Confirmed(settings.config_dir)
        self._outlook = Outlook(settings, self._confirmed, self._complain)
        self._quota = Quota()
        self._losses = Losses(maps["counters"], self._quota, output)
        networks = Networks(settings, output)
        self._guard = Guard(maps, settings, output, self._on_lift, networks.look)
        self._lines = Lines(output.host, self._guard.name, settings.community_id)
        self._keeper = Keeper(Bans(maps), settings.state_dir, self._confirmed, self._lines, output)
        self._episodes = Episodes(self._lines, self._confirmed, self._guard.name, self._quota)
        self._stream = Stream(
            self._ring,
            self._lines,
            output,
            self._episodes,
            self._talkers,
            self._quota,
            self._on_ban,
            self._is_logged,
        )
        commands = Commands(maps, self._talkers, self._guard, self._about, self._keeper.look_soon)
        self._presence = Presence(
            self._loop, settings, output, self.page, self._problems, commands.table()
        )

    def run(self) -> bool:
        """Serve until SIGTERM or until the filter is unloaded; returns whether the agent is to end.

        What is in the ring then is still written, and bans are saved.
        """
        self._presence.begin()
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._read_confirmed()
        self._guard.refresh()
        self._keeper.restore()
        self._loop.watch(self._changes, self._on_change)
        self._loop.after(0, self._guard.tick)
        self._loop.after(0, self._keeper.tick)
        self._loop.after(_CONFIRMED_PERIOD, self._read_confirmed)
        self._loop.after(_PINS_PERIOD, self._check_pins)
        self._loop.after(_EPISODES_PERIOD, self._end_episodes)
        self._loop.after(LOSSES_PERIOD, self._losses.tick)
        self._drift.watch(self._loop, self._outlook, self._look)
        self._output.say("info", f"started, version {__version__}")
        self._presence.ready("following the program")
        self._loop.run()
        self._stop()
        return self._presence.stopping

    def page(self) -> str:
        """The metrics as text."""
        values = metrics.of_counters(self._maps["counters"].lookup(_ZERO) or b"")
        keeper = self._keeper
        values["packetwatch_bans_total"] += metrics.by_label("origin", keeper.made)
        values |= metrics.of_build() | metrics.of_process(self._started)
        values |= self._outlook.values() | self._presence.values() | self._fill(values)
        values |= self._drift.values()
        values |= {
            "packetwatch_bans_active": metrics.by_label("origin", keeper.active),
            "packetwatch_bans_expired_total": [({}, keeper.expired)],
            "packetwatch_bans_lifted_total": [({}, keeper.lifted)],
            "packetwatch_protected_addresses": metrics.by_label("origin", self._guard.counts()),
            "packetwatch_episodes_total": metrics.by_label("kind", self._episodes.begun),
            "packetwatch_agent_suppressed_total": metrics.by_label("kind", self._quota.suppressed),
            "packetwatch_ring_backlog_bytes": [({}, self._ring.backlog())],
            "packetwatch_agent_records_total": metrics.by_label("type", self._stream.records),
            "packetwatch_agent_last_save_timestamp_seconds": [({}, keeper.saved_at)],
        }
        return metrics.render(values)

    def _about(self) -> dict[str, t.Any]:
        """What the control socket tells of the agent."""
        found = about(FOLLOWING, self._started, self._outlook.modes())
        return found | {
            "bans": self._keeper.active,
            "protected": self._guard.counts(),
            "packets": packets(self._maps["counters"]),
        }

    def _fill(self, values: metrics.Values) -> metrics.Values:
        """How full the maps are, and how many tracks may have been pushed out of theirs."""
        entries = self._keeper.entries | {
            "hosts": len(self._guard.protection.hosts),
            "nets": len(self._guard.protection.nets),
            "local": len(self._guard.protection.local),
        }
        capacity = {name: self._maps[name].info.max_entries for name in entries}
        return metrics.of_maps(entries, capacity, self._outlook.tracks(), values)

    def _poll(self) -> int:
        return self._stream.poll()

    def _on_ban(self, event: Event) -> Event:
        return self._keeper.note(event, self._guard.name(event.ifindex))

    def _is_logged(self, ifindex: int) -> bool:
        policy = self._confirmed.policy(self._guard.name(ifindex))
        return policy.log_connections != "none"

    def _end_episodes(self) -> float:
        self._output.write(self._episodes.end(time.monotonic_ns()))
        return _EPISODES_PERIOD

    def _problems(self) -> list[str]:
        """For the heartbeat: why the host is not well."""
        facts = self._outlook.facts()._replace(are_events_lost=self._losses.grown())
        return [problem.text for problem in find(facts)]

    def _look(self) -> list[str]:
        """What has drifted."""
        unpinned = [name for name in MAPS if not self._pins.holds(name, self._maps[name])]
        return self._outlook.drift(unpinned)

    def _on_lift(self, ban: Ban) -> None:
        self._keeper.lift(ban)

    def _on_change(self) -> None:
        if self._changes.drain():
            self._guard.changed()

    def _check_pins(self) -> float:
        """End when the maps are no longer those that are pinned: no program writes to them."""
        try:
            if not self._pins.holds("shared", self._maps["shared"]):
                self._loop.stop()
        except PacketwatchError as error:
            self._complain(str(error))
        return _PINS_PERIOD

    def _read_confirmed(self, force: bool = False) -> float:
        try:
            self._confirmed.refresh(force)
        except PacketwatchError as error:
            self._complain(f"confirmed state cannot be read: {error}")
        return _CONFIRMED_PERIOD

    def _reload(self) -> None:
        """SIGHUP: read again what is not watched. Settings need a restart."""
        self._read_confirmed(force=True)
        self._guard.refresh()
        self._output.say("info", "reloaded")

    def _complain(self, trouble: str) -> None:
        """Tell it once in the agent's life."""
        if trouble not in self._troubles and len(self._troubles) < _TROUBLES:
            self._troubles.add(trouble)
            self._output.say("warn", trouble)

    def _stop(self) -> None:
        # What is left after these stays in the ring, for the next start.
        for dummy in range(_LAST_BATCHES):
            if self._poll() == IDLE:
                break
        self._output.write(self._episodes.end(None))
        self._losses.tick()
        self._keeper.save()
        self._presence.end()
        self._changes.close()
        self._ring.close()
        self._loop.close()
        for bpf_map in self._maps.values():
            bpf_map.close()
        self._output.say("info", "stopped" if self._presence.stopping else "the filter is unloaded")
