# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings: defaults, and errors that name the variable and the fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from packetwatch_agent import __main__ as program
from packetwatch_agent import __version__, settings
from packetwatch_core._base.paths import Paths

ROOT = Path(__file__).resolve().parents[2]


def test_defaults() -> None:
    found = settings.read({})
    assert found.metrics_listen == ("127.0.0.1", 9477)
    assert found.protect == []
    assert found.protect_auto is True
    assert found.state_dir == "/var/lib/packetwatch/bans"


def test_defaults_are_where_the_library_puts_things() -> None:
    found, paths = settings.read({}), Paths()
    places = (found.pins, found.config_dir, found.status_file, found.spared_file)
    assert places == (paths.bpffs, paths.state, paths.status, paths.spared)


def test_the_request_is_where_systemd_looks_for_it() -> None:
    unit = ROOT / "roles/packetwatch/files/units/packetwatch-apply.path"
    assert f"PathExists={settings.read({}).apply_request}\n" in unit.read_text()


def test_values() -> None:
    found = settings.read(
        {
            "PW_METRICS_LISTEN": "[::1]:9000",
            "PW_PROTECT": "192.0.2.0/24, 2001:db8::1",
            "PW_PROTECT_AUTO": "0",
            "PW_STATE_DIR": "/srv/bans/",
        }
    )
    assert found.metrics_listen == ("::1", 9000)
    assert len(found.protect) == 2
    assert found.protect_auto is False
    assert found.state_dir == "/srv/bans"


def test_a_fleet_decides_nothing_by_default() -> None:
    found = settings.read({})
    assert (found.fleet, found.fleet_longest, found.fleet_most) == ("off", 604800, 10_000)
    assert found.fleet_lists == ("deny",)
    assert settings.read({"PW_FLEET_LONGEST": "3d"}).fleet_longest == 3 * 86400
    assert "PW_FLEET_LONGEST" in settings.read({"PW_FLEET_LONGEST": "2y"}).problems


def test_metrics_off() -> None:
    assert settings.read({"PW_METRICS_LISTEN": " "}).metrics_listen is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PW_METRICS_LISTEN", "9477"),
        ("PW_METRICS_LISTEN", ":9477"),
        ("PW_METRICS_LISTEN", "localhost:9477"),
        ("PW_METRICS_LISTEN", "127.0.0.1:0"),
        ("PW_METRICS_LISTEN", "127.0.0.1:99999"),
        ("PW_METRICS_LISTEN", "127.0.0.1:x"),
        ("PW_METRICS_LISTEN", "::1:9477"),
        ("PW_METRICS_LISTEN", "[127.0.0.1]:9477"),
        ("PW_METRICS_LISTEN", "127.0.0.0/8:9477"),
        ("PW_PROTECT", "192.0.2.1/24"),
        ("PW_PROTECT", "resolver"),
        ("PW_PROTECT_AUTO", "perhaps"),
        ("PW_COMMUNITY_ID", "yes"),
        ("PW_STATUS_FILE", "status.json"),
        ("PW_STATE_DIR", "bans"),
        ("PW_STATE_DIR", ""),
        ("PW_FLEET", "yes"),
        ("PW_FLEET_MOST", "0"),
        ("PW_FLEET_MOST", "12289"),
        ("PW_FLEET_LISTS", "allow"),
    ],
)
def test_bad_value_names_the_variable_and_the_fix(name: str, value: str) -> None:
    found = settings.read({name: value})
    assert re.match(f"{name}.*write", found.problems[name])
    # The default is in force, for it alone.
    field = name.removeprefix("PW_").lower()
    assert getattr(found, field) == getattr(settings.read({}), field)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["attach"], ["run", "eth0"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        program.main(arguments)
    assert error.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_version_is_the_collection_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        program.main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out.strip() == __version__
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert __version__ == galaxy["version"]


def test_agent_files_are_no_scripts() -> None:
    folder = ROOT / "roles/packetwatch/files/agent/packetwatch_agent"
    for path in folder.glob("*.py"):
        assert not path.stat().st_mode & 0o111
        assert not re.match("#!", path.read_text())
