# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libxdp's dispatcher where it is refused, and what is read of a foreign one.

Membership needs a kernel that loads extensions: molecule/default/tests/test_neighbours.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.datapath import wait_for
from kernel.hosting import Namespace, Site, dummy_program, ip

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import Foreign, InvalidInput, Unsupported
from packetwatch_core._dispatcher import builder, chain
from packetwatch_core._dispatcher.chain import Dispatchers
from packetwatch_core._dispatcher.extension import check_kernel
from packetwatch_core._dispatcher.member import Member
from packetwatch_core._health.verify import unsettled
from packetwatch_core._kernel.libbpf import KernelError
from packetwatch_core._kernel.pins import Pins
from packetwatch_core._kernel.programs import XDP_NATIVE, Program, attached, exchange

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

MODE = "dispatcher:7:pass"


def has_extensions() -> bool:
    try:
        check_kernel()
    except Unsupported:
        return False
    return True


class Neighbour:
    """A dispatcher on pw0, with up to two programs that only its pins and constants name."""

    def __init__(self, site: Site, *programs: Program) -> None:
        self.folder = Path(Pins(site.paths.bpffs).dispatchers)
        self.ifindex = socket.if_nametoindex("pw0")
        self.programs = programs
        infos = [program.info() for program in self.programs]
        self.members = tuple(
            Member(info.id, info.name, info.tag, info.loaded, priority, actions, has_frags)
            for info, priority, actions, has_frags in zip(
                infos, (10, 50), (1 << 2, 1 << 2 | 1), (True, False), strict=False
            )
        )
        self.program, _functions = builder._load(self.members)
        exchange(self.ifindex, self.program, None, XDP_NATIVE)
        self.pins = self.folder / f"dispatch-{self.ifindex}-{self.program.info().id}"
        self.pins.mkdir(parents=True)
        for at, program in enumerate(self.programs):
            program.pin(str(self.pins / f"prog{at}-prog"))

    @property
    def dispatchers(self) -> Dispatchers:
        return Dispatchers(str(self.folder))

    def close(self) -> None:
        exchange(self.ifindex, None, self.program, XDP_NATIVE)
        shutil.rmtree(self.pins, ignore_errors=True)
        for program in (*self.programs, self.program):
            program.close()


@pytest.fixture
def neighbour(site: Site) -> Iterator[Neighbour]:
    found = Neighbour(site, dummy_program(), dummy_program())
    yield found
    found.close()


@pytest.fixture
def joined(filtered: Site) -> Iterator[Site]:
    """A host whose program is in the dispatcher of pw0, as far as can be read."""
    pins = filtered.host.pins
    os.unlink(pins.link("pw0"))
    ifindex = socket.if_nametoindex("pw0")
    os.makedirs(pins.member("pw0", ifindex))
    # The kernel lets go of a link some time after its pin.
    wait_for(lambda: not attached(ifindex).program_id)
    found = Neighbour(filtered, Program.open(pins.program))
    yield filtered
    found.close()


# Refusals


@pytest.mark.skipif(has_extensions(), reason="this kernel loads extensions")
@pytest.mark.parametrize("check", [False, True], ids=["apply", "check mode"])
def test_a_kernel_without_extensions_is_named_with_the_way_that_works(
    site: Site, check: bool
) -> None:
    before = site.snapshot()
    with pytest.raises(Unsupported, match=r"this kernel loads no extensions.*native or generic"):
        site.host.attach("pw0", MODE, check=check)
    assert site.snapshot() == before
    assert not Path(site.paths.bpffs).exists()


@pytest.mark.skipif(has_extensions(), reason="this kernel loads extensions")
def test_a_refused_dispatcher_leaves_the_filter(filtered: Site) -> None:
    before = filtered.snapshot()
    with pytest.raises(Unsupported, match="this kernel loads no extensions"):
        filtered.host.attach("pw0", MODE)
    assert filtered.snapshot() == before


def test_a_process_without_the_right_is_told_apart_from_the_kernel(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with open(said, "w", encoding="utf-8") as file:
        child = os.fork()
        if not child:
            try:
                os.setresuid(65534, 65534, 65534)
                check_kernel()
            except OSError as error:
                print(error, file=file, flush=True)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert "this needs root with CAP_BPF" in said.read_text()


def test_without_libxdp_its_package_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_OBJECTS", "/nowhere/*.o")
    with pytest.raises(Unsupported, match="apt-get install libxdp1"):
        site.host.attach("pw0", MODE)
    assert site.host.attach("pw0", MODE, check=True).after == f"pw0: {MODE}\n"


def test_a_wrong_place_is_refused(site: Site) -> None:
    with pytest.raises(InvalidInput, match="write dispatcher, or as dispatcher:10:pass"):
        site.host.attach("pw0", "dispatcher:7")


def test_auto_does_not_join_and_names_the_mode_that_does(site: Site, neighbour: Neighbour) -> None:
    for mode in ("auto", "native", "generic"):
        with pytest.raises(Foreign, match=r"'xdp_dispatcher'.*join it with mode dispatcher"):
            site.host.attach("pw0", mode)
    assert attached(neighbour.ifindex).program_id == neighbour.program.info().id


# What is read


def test_the_programs_are_read_in_their_order(neighbour: Neighbour) -> None:
    found = neighbour.dispatchers.read(neighbour.ifindex)
    assert found is not None
    assert found.members == neighbour.members
    assert (found.mode, found.program_id) == ("native", neighbour.program.info().id)


def test_another_program_is_not_a_dispatcher(site: Site) -> None:
    dispatchers = Dispatchers(Pins(site.paths.bpffs).dispatchers)
    ifindex = socket.if_nametoindex("pw0")
    assert dispatchers.read(ifindex) is None
    with dummy_program() as program:
        exchange(ifindex, program, None, XDP_NATIVE)
        assert dispatchers.read(ifindex) is None
        exchange(ifindex, None, program, XDP_NATIVE)


def test_a_dispatcher_without_pins_is_named_with_the_way_out(
    site: Site, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_PAUSE", 0.0)
    shutil.rmtree(neighbour.pins)
    with pytest.raises(Foreign, match=r"has no pins in .*bpfman.*xdp off.*xdp-loader"):
        site.host.attach("pw0", MODE)


def test_a_dispatcher_of_another_version_is_refused(
    neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "VERSION", 3)
    with pytest.raises(Unsupported, match="dispatcher of version 2, and this is for version 3"):
        neighbour.dispatchers.read(neighbour.ifindex)


def test_a_mark_without_membership_is_not_a_filter(filtered: Site) -> None:
    host = filtered.host
    os.unlink(host.pins.link("pw0"))
    os.makedirs(host.pins.member("pw0", socket.if_nametoindex("pw0")))
    with Loaded(host.pins) as loaded:
        assert (loaded.links, [held.label for held in loaded.away]) == ({}, ["pw0"])
        assert unsettled(host.store.read_current()[1], loaded) == ["pw0"]
    assert "pw0 is not filtered" in host.verify()


def test_a_membership_lasts_while_its_device_is_in_another_namespace(joined: Site) -> None:
    pins, elsewhere = joined.host.pins, Namespace()
    (mark,) = pins.member_marks()
    with Loaded(pins) as loaded:
        assert loaded.links["pw0"].program_id
    try:
        ip(f"link set dev pw0 netns {elsewhere.path}")
        with Loaded(pins) as loaded:
            assert [held.pin for held in loaded.away] == [mark]
            loaded.tidy({"pw0"})
            assert pins.member_marks() == [mark]
    finally:
        with elsewhere.entered():
            ip(f"link set dev pw0 netns {joined.wire.host.path}")
        elsewhere.close()
    with Loaded(pins) as loaded:
        membership = loaded.links["pw0"].membership
        assert membership is not None
        assert membership.member is not None
        assert unsettled(joined.host.store.read_current()[1], loaded) == []


def test_it_leaves_a_dispatcher_whose_device_is_in_another_namespace(joined: Site) -> None:
    pins, elsewhere = joined.host.pins, Namespace()
    ifindex = socket.if_nametoindex("pw0")
    (folder,) = Path(pins.dispatchers).glob(f"dispatch-{ifindex}-*")
    # Instead of a link, which needs an extension.
    with Program.open(pins.program) as program:
        program.pin(str(folder / "prog0-link"))
    dispatchers = Dispatchers(pins.dispatchers)
    dispatchers.let_go(ifindex, "packetwatch")
    assert len(list(folder.iterdir())) == 2
    try:
        ip(f"link set dev pw0 netns {elsewhere.path}")
        joined.host.detach("pw0")
        assert pins.member_marks() == []
        assert [path.name for path in folder.iterdir()] == ["prog0-prog"]
    finally:
        with elsewhere.entered():
            ip(f"link set dev pw0 netns {joined.wire.host.path}")
        elsewhere.close()


def test_the_mark_of_an_absent_device_goes_with_its_declaration(joined: Site) -> None:
    pins = joined.host.pins
    os.rename(pins.member_marks()[0], pins.member("gone", 4095))
    for declared, left in (({"gone"}, 1), ({"pw0"}, 0)):
        with Loaded(pins) as loaded:
            loaded.tidy(declared)
        assert len(pins.member_marks()) == left


# The protocol


def test_an_exchange_fails_if_another_tool_was_faster(neighbour: Neighbour) -> None:
    with dummy_program() as stale, pytest.raises(KernelError) as refused:
        exchange(neighbour.ifindex, None, stale, XDP_NATIVE)
    assert refused.value.errno == errno.EEXIST
    with dummy_program() as late, pytest.raises(KernelError) as refused:
        exchange(neighbour.ifindex, late, None, XDP_NATIVE)
    assert refused.value.errno == errno.EBUSY


def test_libxdps_lock_is_waited_for_and_named(
    neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_PATIENCE", 0.05)
    folder = os.open(neighbour.folder, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(Foreign, match="another tool holds libxdp's lock"):
        neighbour.dispatchers.change(neighbour.ifindex, lambda members: members[:1], "native")
    os.close(folder)


def test_a_full_dispatcher_is_named() -> None:
    members = [Member(1, "full", "00" * 8, 0, 10, 4, True)] * 11
    with pytest.raises(Exception, match="it has 10 of 10"):
        builder.build(members)


def test_the_dispatcher_has_buffers_only_if_all_programs_have(neighbour: Neighbour) -> None:
    one, other = neighbour.members
    for members, has_frags in ((neighbour.members, False), ((one,), True), ((other,), False)):
        program, functions = builder._load(members)
        with program:
            assert len(functions) == len(members)
            config = chain._config_of(program.info().id)
        assert config is not None
        assert config[3] == has_frags
