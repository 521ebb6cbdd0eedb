# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which feeds a run fetches, and the errors in what hosts declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.packetwatch.xdp.plugins.action._fetch import gather
from ansible_collections.packetwatch.xdp.plugins.modules import feed

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
    assert set(variable) - {"max_change"} == set(documented) - {"dest"}
    for name in set(variable) & set(documented):
        for key in ("default", "choices", "required"):
            assert variable[name].get(key) == documented[name].get(key), (name, key)
