# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Everything that the role declares for a host, as one edit."""

from __future__ import annotations

import time
import typing as t

from .._base.digest import digest_text
from .._change.links import Wish
from .._declared.edits import (
    in_turn,
    list_text,
    set_interfaces,
    set_lists,
    set_policies,
    set_program,
    set_settings,
)
from .._declared.fleet import limit_fleet
from .._declared.nexts import Next, check_path, check_source
from .._declared.policy import OVERRIDES, keys_from_options
from .._declared.store import ROLE
from .._dispatcher.place import mode_from_options
from .._feeds.copies import Ages, FeedRun, gather_wanted
from .._kernel.source import read_source
from .._network.fleet import OFF, parse_lists, permitted_lists
from .._network.settings import format_values

if t.TYPE_CHECKING:
    from .._declared.edits import Edit
    from .._declared.store import State

Options = t.Mapping[str, t.Any]

_HEAD = """\
# The role packetwatch.xdp.packetwatch has declared these settings, and replaces them when its variables change.
# A setting that is missing has its default in the program.
"""


class Whole(t.NamedTuple):
    """The edit, and the interfaces to attach. feeds: reports on each feed after the edit was applied."""

    edit: Edit
    feeds: FeedRun
    wish: Wish


def read_whole(options: Options, state: State, ages: Ages) -> tuple[Whole | None, list[str]]:
    """The edit that a role's options describe, and the files that must be sent first.

    options: those of the module. state: confirmed state. ages: the host's note of the times of feeds'
    copies. A file is `src`, or `feed NAME`.
    """
    source = _source(options, state)
    wanted, lacks = gather_wanted(
        options["feeds"], state, options["sources"], options["force_feeds"]
    )
    missing = ["src"] * (source is None) + [f"feed {name}" for name in lacks]
    if source is None or missing:
        return None, missing
    feeds = FeedRun(options["feeds"], wanted, state, ages, options["now"] or time.time())
    nexts = {found["name"]: _next(found) for found in options["interfaces"]}
    modes = {found["name"]: mode_from_options(found) for found in options["interfaces"]}
    policies: dict[str | None, dict[str, str]] = {None: keys_from_options(options["policy"])}
    for found in options["interfaces"]:
        own = {option: found[option] for option in OVERRIDES if option in found}
        policies[found["name"]] = keys_from_options(own)
    texts = {kind: list_text(options[kind], kind).text for kind in ("allow", "deny")}
    edit = in_turn(
        set_interfaces(modes, {name: item for name, item in nexts.items() if item}),
        set_policies(policies, replace=True),
        set_lists(ROLE, texts, allow_empty=True),
        feeds.edit,
        limit_fleet(_fleet_lists(options["settings"])),
        set_program(source),
        set_settings(_HEAD + format_values(options["settings"])),
    )
    return Whole(edit, feeds, Wish(attach=list(modes))), []


def _next(interface: t.Mapping[str, t.Any]) -> Next | None:
    """The next program of an interface; `next_source` is the text of `next_src`."""
    path, source = interface.get("next"), interface.get("next_source")
    if source is not None:
        return Next(source=check_source(source))
    return Next(path=check_path(path)) if path is not None else None


def _fleet_lists(settings: t.Mapping[str, str]) -> tuple[str, ...]:
    """The kinds of lists that the fleet may set by these settings."""
    kinds = parse_lists(settings.get("PW_FLEET_LISTS", "deny"), "packetwatch_fleet_lists")
    return permitted_lists(settings.get("PW_FLEET", OFF), kinds)


def _source(options: Options, state: State) -> str | None:
    """The program's source; None if it must be sent."""
    if digest_text(state.program) == options["program"]:
        return state.program
    if options["src"] is None:
        return None
    return read_source(options["src"])
