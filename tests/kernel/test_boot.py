# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that was filtered before it went down is filtered when it comes up, whatever is damaged."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.hosting import DENIED, XDP_DROP, XDP_PASS, Site, run, source_text
from kernel.timers import Timers

from packetwatch_core._active.images import Images
from packetwatch_core._active.lists import read_known
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import NotDeclared, PacketwatchError
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._host.boot import Filtered, filter_interface
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.programs import attached
from packetwatch_core._network import protect

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"),
    # Each boot loads the program anew, which takes half a second.
    pytest.mark.slow,
]

OTHER = "198.51.100.9"
PROTECTED = "192.0.2.77"
SCAN_PORTS = 7
NOBODY = 65534
SETTINGS = {"PW_PROTECT": PROTECTED, "PW_LIST_MEMORY": "96"}

Damage = Callable[[Path], None]


def boot(site: Site) -> Filtered:
    """Reboot: nothing is left in the kernel and under /run; then filter the interface."""
    power_off(site)
    shutil.rmtree(site.paths.pending, ignore_errors=True)
    shutil.rmtree(Path(site.paths.status).parent, ignore_errors=True)
    return filter_interface(run, site.paths, "pw0", 1.0)


def power_off(site: Site) -> None:
    if attached(socket.if_nametoindex("pw0")).program_id:
        site.power_off()


def in_force(site: Site) -> dict[str, object]:
    """What decides on packets."""
    with Loaded(site.host.pins) as loaded, loaded.generation() as current:
        policy = current.policy(socket.if_nametoindex("pw0"))
    maps = site.host.pins.open_run_maps(("hosts", "nets"))
    listed = {entry.prefix: entry.reason for entry in protect.listed(maps)}
    return {
        "denied": site.verdict(DENIED),
        "other": site.verdict(OTHER),
        "scan_ports": policy["scan_ports"],
        "protected": listed.get(PROTECTED),
    }


EXPECTED = {
    "denied": XDP_DROP,
    "other": XDP_PASS,
    "scan_ports": SCAN_PORTS,
    "protected": "declared",
}


def reports(site: Site, done: Filtered) -> str:
    """All that the boot and the verification after it say."""
    try:
        found = site.host.verify()
    except PacketwatchError as error:
        found = [str(error)]
    apply = site.host.status.read().get("apply", {})
    return "\n".join([done.problem, *found, apply.get("why", "")])


@pytest.fixture(scope="module")
def declared(standing: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of a host with lists, a policy and settings."""
    with standing.wire.host.entered():
        standing.settings(**SETTINGS)
        standing.policy(scan_ports=str(SCAN_PORTS))
    copy = tmp_path_factory.mktemp("copy") / "host"
    shutil.copytree(standing.state.parent, copy, symlinks=True)
    return copy


@pytest.fixture
def host(standing: Site, declared: Path) -> Iterator[Site]:
    """That host, as it was confirmed."""
    folder = standing.state.parent
    shutil.rmtree(folder)
    shutil.copytree(declared, folder, symlinks=True)
    with standing.wire.host.entered():
        yield standing


# Kinds of damage


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(4096))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def other_kind(path: Path) -> None:
    path.write_text('{"version": 3, "lists": [["198.51.100.0/24"]]}\n')


def newer(path: Path) -> None:
    data = path.read_bytes()
    first = b"packetwatch boot image 1 "
    path.write_bytes(data.replace(first, b"packetwatch boot image 2 ") + b"PW_FUTURE=1\n")


def long_line(path: Path) -> None:
    path.write_bytes(b"9" * 3_000_000)


def missing(path: Path) -> None:
    path.unlink()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = (
    *(cut, empty, binary, zeros, flipped, other_kind, newer, long_line),
    *(missing, dangling, loop, folder, fifo),
)
TEXTS = {
    "settings": "settings",
    "list": "etc/current/deny.d/ansible.list",
    "policy": "etc/current/policy.d/default.conf",
    "interfaces": "etc/current/interfaces",
    "program": "etc/current/program.c",
}
# A missing settings file means that all settings have their defaults, as does an empty one.
AS_DEFAULT = {(missing, "settings"), (empty, "settings")}
# The same text with another bit may mean something else, and still be right.
MAY_BE_RIGHT = {cut, flipped, newer}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", TEXTS)
def test_a_damaged_text_changes_nothing_and_is_reported(
    host: Site, file: str, damage: Damage
) -> None:
    path = host.state.parent / TEXTS[file]
    path = path.parent.resolve() / path.name
    damage(path)
    done = boot(host)
    expected = EXPECTED | ({"protected": None} if (damage, file) in AS_DEFAULT else {})
    found = in_force(host)
    if file == "settings" and damage in MAY_BE_RIGHT:
        found["protected"] = expected["protected"]
    assert found == expected
    said = reports(host, done)
    if file == "settings":
        is_named = "a setting is not in force" in said
        assert is_named or (damage, file) in AS_DEFAULT or damage in MAY_BE_RIGHT, said
    else:
        assert str(path) in said or path.name in said or "edited by hand" in said, said


@pytest.mark.parametrize(
    "line", ["198.51.100.0 /25", "198.51.100.0/24: scrapers", "203.0.113.7 expires=soon"]
)
def test_a_list_edited_by_hand_waits_for_an_apply(host: Site, line: str) -> None:
    (host.state / "current/deny.d/local.list").write_text(f"{OTHER}\n{line}\n")
    done = boot(host)
    assert in_force(host) == EXPECTED
    assert "local.list:2" in reports(host, done) or "local.list, line 2" in reports(host, done)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PW_PROTECT", "1,9,2,.,0,.,2,.,9"),
        ("PW_LIST_MEMORY", "128.0"),
        ("PW_PROTECT_AUTO", "True"),
        ("PW_PROTECT", "None"),
    ],
)
def test_a_wrong_setting_is_reported_by_name(host: Site, key: str, value: str) -> None:
    host.settings(**SETTINGS | {key: value})
    done = boot(host)
    assert in_force(host) == EXPECTED
    assert f"a setting is not in force: {host.paths.settings}: {key}" in reports(host, done)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_without_the_boot_image_the_files_decide(host: Site, damage: Damage) -> None:
    path = Path(host.paths.images) / "confirmed"
    damage(path)
    done = boot(host)
    assert in_force(host) == EXPECTED
    assert str(path) in reports(host, done)
    # What was activated has made the image anew, unless something else is in its place.
    if not path.is_dir():
        assert not boot(host).problem
        assert in_force(host) == EXPECTED


def test_one_wrong_byte_anywhere_in_the_boot_image_is_found(host: Site) -> None:
    folder = host.paths.images
    path = Path(folder, "confirmed")
    data = path.read_bytes()
    line = data.index(b"\n") + 1
    lists = data.index(host.host.status.read()["lists"].encode())
    steps = [*range(line), line + 5, lists, *range(line, len(data), 5000), len(data) - 1]
    for at in steps:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        kept, problem = Images(folder).find(None)
        assert kept is None and str(path) in problem, at
    for other in (data + b"\0", data[:-1], data.replace(b" 2 ", b" 1 ", 1)):
        path.write_bytes(other)
        assert Images(folder).find(None)[0] is None
    path.write_bytes(data[: line - 1] + b"9" * 5000 + data[line - 1 :])
    assert Images(folder).find(None)[0] is None
    path.write_bytes(data)
    assert Images(folder).find(None)[0]


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_an_image_that_others_can_write_is_not_believed(host: Site, mode: int) -> None:
    path = Path(host.paths.images) / "confirmed"
    path.chmod(mode)
    assert "another user" in boot(host).problem
    assert in_force(host) == EXPECTED


def test_an_image_of_another_user_is_not_believed(host: Site) -> None:
    path = Path(host.paths.images) / "confirmed"
    os.chown(path, NOBODY, NOBODY)
    assert "another user" in boot(host).problem
    assert in_force(host) == EXPECTED


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_lost_link_to_the_confirmed_state(host: Site, damage: Damage) -> None:
    path = host.state / "current"
    if damage in (missing, dangling, loop, folder, fifo):
        damage(path)
    else:
        path.unlink()
        path.write_text("7\n")
        damage(path)
    done = boot(host)
    assert in_force(host) == EXPECTED
    assert str(path) in reports(host, done)


@pytest.mark.parametrize("name", ["etc", "etc/lock", "spared", "pending/change.json"])
@pytest.mark.parametrize("damage", [missing, folder, fifo, binary, loop])
def test_other_files_of_the_host(host: Site, name: str, damage: Damage) -> None:
    path = host.state.parent / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    damage(path)
    power_off(host)
    done = filter_interface(run, host.paths, "pw0", 1.0)
    assert in_force(host) == EXPECTED
    if name == "etc":
        assert "cannot be activated" in reports(host, done)


def test_a_host_without_its_compiler_and_cache(host: Site) -> None:
    shutil.rmtree(host.state)
    lost = host.paths._replace(cache=str(host.state.parent / "none"), source="/nowhere")
    power_off(host)

    def refuse(argv: object, stdin: object) -> tuple[int, str, str]:
        raise AssertionError(f"a process is started: {argv}")

    done = filter_interface(refuse, lost, "pw0", 1.0)
    assert in_force(host) == EXPECTED
    assert "cannot be activated" in done.problem


# Which state a boot activates


def pend(site: Site) -> Host:
    """Begin a change: only `OTHER` is denied."""
    shutil.rmtree(site.paths.runtime, ignore_errors=True)
    shutil.rmtree(site.paths.units, ignore_errors=True)
    host = Timers(site).host
    edit = set_lists("ansible", {"deny": f"{OTHER}\n"}, True)
    host.apply(edit, terms=Terms(60, token="t"))
    return host


def test_a_pending_change_is_not_booted(host: Site) -> None:
    boot(host)
    pend(host)
    assert host.verdict(OTHER) == XDP_DROP
    assert not boot(host).problem
    assert in_force(host) == EXPECTED


def test_a_confirmed_change_is_booted(host: Site) -> None:
    boot(host)
    pend(host).confirm("t")
    (host.state / "current/deny.d/ansible.list").write_text("nonsense\n")
    assert not boot(host).problem
    assert in_force(host) == EXPECTED | {"denied": XDP_PASS, "other": XDP_DROP}


def test_a_change_whose_confirmation_died_is_booted(host: Site) -> None:
    boot(host)
    pend(host)
    # The link was renamed, and nothing else was done.
    number = host.host.store.number() + 1
    host.host.store.confirm(number)
    (host.state / "current/deny.d/ansible.list").write_text("nonsense\n")
    assert not boot(host).problem
    assert in_force(host) == EXPECTED | {"denied": XDP_PASS, "other": XDP_DROP}


def test_an_interface_that_was_detached_stays_so(host: Site) -> None:
    boot(host)
    host.host.detach("pw0")
    with pytest.raises(NotDeclared):
        filter_interface(run, host.paths, "pw0", 1.0)


def test_an_expired_allow_is_not_booted(host: Site) -> None:
    boot(host)
    host.lists(deny=DENIED, allow=f"{DENIED} expires=2020-01-01T00:00:00Z")
    assert not boot(host).problem
    assert host.verdict(DENIED) == XDP_DROP


def test_a_small_change_after_a_boot_edits_the_tables(host: Site) -> None:
    Path(host.paths.tables).unlink()
    boot(host)
    with Loaded(host.host.pins) as loaded, loaded.generation() as current:
        areas = current.areas()
    known = read_known(host.paths.tables, areas)
    assert known is not None and known.counts["deny"] == 1


def test_a_renamed_program_source_needs_no_compiler(host: Site) -> None:
    boot(host)
    text = source_text() + "/* another version */\n"
    host.host.attach("pw0", source=text)
    shutil.copytree(host.paths.cache, host.state.parent / "cache")
    lost = host.paths._replace(cache=str(host.state.parent / "none"))
    power_off(host)
    assert not filter_interface(run, lost, "pw0", 1.0).problem
    assert in_force(host) == EXPECTED
