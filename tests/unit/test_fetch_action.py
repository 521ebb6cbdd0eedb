# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which feeds a run fetches, and the errors in what hosts declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.packetwatch.xdp.plugins.action.__private.fetch import _FOR_HOSTS, gather
from ansible_collections.packetwatch.xdp.plugins.modules import feed
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._variables import check_feeds

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._feeds.parse import FORMATS
from packetwatch_core._feeds.presets import PRESETS, fill_in

ROOT = Path(__file__).resolve().parents[2]
A, B = {"name": "a", "url": "https://a.example/"}, {"name": "b", "path": "b.list"}


def test_each_feed_once() -> None:
    assert gather({"web1": [A], "web2": [A, B], "mx1": []}) == {"a": A, "b": B}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"web1": A}, "packetwatch_feeds of web1 is of type dict: write a list"),
        ({"web1": [A, "b"]}, r"packetwatch_feeds\[1\] of web1 has no name"),
        ({"web1": [{"url": "https://a.example/"}]}, r"packetwatch_feeds\[0\] of web1 has no name"),
        (
            {"web1": [A, B, A]},
            r"packetwatch_feeds\[2\] of web1: a is listed twice; keep one of them",
        ),
        (
            {"web1": [A], "web2": [A | {"bogons": True}]},
            "feed a is declared differently on web1 and on web2: rename one of the two",
        ),
    ],
)
def test_what_is_declared_wrongly_is_named(declared: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gather(declared)


def test_the_variable_takes_what_the_module_takes() -> None:
    specs = yaml.safe_load((ROOT / "roles/packetwatch/meta/argument_specs.yml").read_text())
    variable = specs["argument_specs"]["main"]["options"]["packetwatch_feeds"]["options"]
    documented = yaml.safe_load(feed.DOCUMENTATION)["options"]
    assert set(variable) - set(_FOR_HOSTS) == set(documented) - {"cache", "dest"}
    for name in set(variable) & set(documented):
        for key in ("default", "choices", "required"):
            assert variable[name].get(key) == documented[name].get(key), (name, key)


def test_the_page_describes_every_format() -> None:
    page = (ROOT / "docs/feeds.md").read_text()
    assert [name for name in FORMATS if f"\n| `{name}` |" not in page] == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"header": True, "widest": {"ipv4": 7}, "widest_sum": {"ipv6": 12}}, ""),
        ({"header": "auto", "preset": "dshield", "url": None}, ""),
        ({"header": "perhaps"}, "value of header must be one of: true, false, auto"),
        ({"widest": {"ipv5": 7}}, "widest.ipv5. Supported parameters include: ipv4, ipv6"),
        ({"max_bad": "few"}, "max_bad"),
        ({"interval": "1 hour"}, "interval is '1 hour'"),
        ({"expire_after": "never"}, "expire_after is 'never'"),
    ],
)
def test_the_role_checks_the_options(options: Any, error: str) -> None:
    usual = {"name": "x", "url": "https://example.org/"}
    found = list(check_feeds([usual | options]))
    assert bool(found) == bool(error)
    assert error in " ".join(found)


def test_presets_are_options_of_the_module_and_of_hosts() -> None:
    options = yaml.safe_load(feed.DOCUMENTATION)["options"]
    page = (ROOT / "docs/feeds.md").read_text()
    for name, preset in PRESETS.items():
        assert set(preset) <= set(options) | set(_FOR_HOSTS)
        assert f"`{name}`" in page
        assert preset.get("url", "https://").startswith("https://")
        assert preset.get("format", "plain") in FORMATS


def test_an_own_option_comes_before_that_of_a_preset() -> None:
    filled = fill_in({"preset": "dshield", "max_change": 30, "format": None, "path": "x"})
    assert (filled["max_change"], filled["format"], filled["path"]) == (30, "ranges", "x")
    assert "url" not in filled
    assert fill_in({"name": "x"})["max_change"] == 50
    with pytest.raises(InvalidInput, match=r"preset is \['dshield'\]: write one of aws"):
        fill_in({"preset": ["dshield"]})
