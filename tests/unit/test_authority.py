# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates and passwords of a fleet, made by the real openssl."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from packetwatch_core._base.errors import InvalidInput, SetupFailed
from packetwatch_core._node.authority import HOSTS, NODES, Node, Vault

NODE = Node("node1", "192.0.2.11")
SIXTH = Node("node2", "2001:db8::11")


def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    done = subprocess.run(argv, input=stdin or "", capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def vault(folder: Path, **options: Any) -> Vault:
    return Vault(run, str(folder / "fleet"), **options)


def shown(path: str, *what: str) -> str:
    return run(["openssl", "x509", "-in", path, "-noout", *what], None)[1]


def verified(authority: str, path: str) -> bool:
    return run(["openssl", "verify", "-CAfile", authority, path], None)[0] == 0


def test_all_is_made_once(tmp_path: Path) -> None:
    made = vault(tmp_path).provide([NODE, SIXTH], ["web1"], ["root"])
    assert sorted(made) == [
        "hosts-ca.pem",
        "hosts/web1/host.pem",
        "hosts/web1/password",
        "nodes-ca.pem",
        "nodes/node1/etcd.pem",
        "nodes/node1/gate.pem",
        "nodes/node1/inner.pem",
        "nodes/node2/etcd.pem",
        "nodes/node2/gate.pem",
        "nodes/node2/inner.pem",
        "users/root/password",
    ]
    assert vault(tmp_path).provide([NODE, SIXTH], ["web1"], ["root"]) == []


def test_an_authority_opens_only_its_own_doors(tmp_path: Path) -> None:
    fleet = vault(tmp_path)
    fleet.provide([NODE], ["web1"], [])
    for path in (fleet.gate("node1"), fleet.host("web1")):
        assert verified(fleet.authority(HOSTS), path)
        assert not verified(fleet.authority(NODES), path)
    for path in (fleet.etcd("node1"), fleet.inner("node1")):
        assert verified(fleet.authority(NODES), path)
        assert not verified(fleet.authority(HOSTS), path)


def test_no_certificate_has_a_common_name(tmp_path: Path) -> None:
    fleet = vault(tmp_path)
    fleet.provide([NODE], ["web1"], [])
    for path in (
        fleet.gate("node1"),
        fleet.etcd("node1"),
        fleet.inner("node1"),
        fleet.host("web1"),
    ):
        assert shown(path, "-subject").strip() == "subject="
        assert "DNS:" in shown(path, "-ext", "subjectAltName")
    assert "TLS Web Server" not in shown(fleet.host("web1"), "-ext", "extendedKeyUsage")


def test_only_their_owner_reads_keys_and_passwords(tmp_path: Path) -> None:
    vault(tmp_path).provide([NODE], ["web1"], ["root"])
    public = {"hosts-ca.pem", "nodes-ca.pem"}
    for path in (tmp_path / "fleet").rglob("*"):
        assert path.name in public or path.stat().st_mode & 0o077 == 0
        if path.name in public:
            assert "PRIVATE KEY" not in path.read_text()


def test_what_ends_soon_or_has_another_address_is_renewed(tmp_path: Path) -> None:
    vault(tmp_path, days=30, renew=10).provide([NODE], ["web1"], [])
    assert vault(tmp_path, days=60, renew=20).provide([NODE], ["web1"], []) == []
    moved = vault(tmp_path).provide([Node("node1", "192.0.2.99")], ["web1"], [])
    assert "nodes/node1/gate.pem" in moved and "nodes/node1/etcd.pem" in moved


def test_a_certificate_is_renewed_before_its_end(tmp_path: Path) -> None:
    vault(tmp_path, days=30, renew=10).provide([NODE], ["web1"], [])
    renewed = vault(tmp_path, days=60, renew=31).provide([NODE], ["web1"], [])
    assert sorted(renewed) == [
        "hosts/web1/host.pem",
        "nodes/node1/etcd.pem",
        "nodes/node1/gate.pem",
        "nodes/node1/inner.pem",
    ]


def test_what_has_left_is_removed(tmp_path: Path) -> None:
    fleet = vault(tmp_path)
    fleet.provide([NODE, SIXTH], ["web1", "web2"], ["root"])
    assert fleet.provide([NODE], ["web2"], ["root"]) == ["nodes/node2", "hosts/web1"]
    assert not Path(fleet.host("web1")).exists()


def test_a_trial_changes_nothing_and_names_the_same(tmp_path: Path) -> None:
    planned = vault(tmp_path, dry=True).provide([NODE], ["web1"], ["root"])
    assert not (tmp_path / "fleet").exists()
    assert vault(tmp_path).provide([NODE], ["web1"], ["root"]) == planned


def test_an_authority_of_the_owner_signs_hosts_and_gates(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "own.key"), str(tmp_path / "own.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=own"]
    assert run([*argv, "-keyout", key, "-out", certificate], None)[0] == 0
    fleet = vault(tmp_path, own=(certificate, key))
    assert "hosts-ca.pem" not in fleet.provide([NODE], ["web1"], [])
    assert verified(certificate, fleet.gate("node1")) and verified(certificate, fleet.host("web1"))
    assert verified(fleet.authority(NODES), fleet.etcd("node1"))
    assert fleet.provide([NODE], ["web1"], []) == []


def test_another_authority_renews_what_the_former_has_signed(tmp_path: Path) -> None:
    fleet = vault(tmp_path)
    fleet.provide([NODE], ["web1"], [])
    for name in ("hosts-ca.pem", "hosts-ca.key"):
        (tmp_path / "fleet" / name).unlink()
    assert sorted(fleet.provide([NODE], ["web1"], [])) == [
        "hosts-ca.pem",
        "hosts/web1/host.pem",
        "nodes/node1/gate.pem",
    ]


def test_a_key_with_a_passphrase_is_an_error_that_says_so(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "own.key"), str(tmp_path / "own.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret"]
    assert run([*argv, "-subj", "/CN=own", "-keyout", key, "-out", certificate], None)[0] == 0
    with pytest.raises(SetupFailed, match="without a passphrase"):
        vault(tmp_path, own=(certificate, key)).provide([NODE], ["web1"], [])


@pytest.mark.parametrize("name", ["", "..", "a/b", "Web1", "-a", "a" * 64, "web1\n", "a..b"])
def test_names_that_paths_or_keys_cannot_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be the name"):
        vault(tmp_path).provide([NODE], [name], [])
    assert not (tmp_path / "fleet").exists()


def test_a_node_needs_an_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"node1 is gate\.example"):
        vault(tmp_path).provide([Node("node1", "gate.example")], [], [])
    assert not (tmp_path / "fleet").exists()


def test_a_missing_authority_is_named_before_anything_is_made(tmp_path: Path) -> None:
    own = (str(tmp_path / "none.pem"), str(tmp_path / "none.key"))
    with pytest.raises(InvalidInput, match=r"none\.pem cannot be read"):
        vault(tmp_path, own=own).provide([NODE], [], [])
    assert not (tmp_path / "fleet").exists()


def test_a_renewal_that_never_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="fewer days"):
        vault(tmp_path, days=60, renew=60)


def test_secrets_beside_an_inventory_are_no_hosts(tmp_path: Path) -> None:
    """A folder is an inventory with all its files, and a password would be the name of a host."""
    defaults = Path(__file__).resolve().parents[2] / "roles/fleet_node/defaults/main.yml"
    folder = yaml.safe_load(defaults.read_text())["fleet_node_secrets"]
    secrets = folder.replace("{{ inventory_dir }}", str(tmp_path))
    Vault(run, secrets).provide([NODE], ["web1"], ["root"])
    (tmp_path / "hosts.yml").write_text("packetwatch_fleet_nodes: {hosts: {node1: }}\n")
    inventory = InventoryManager(DataLoader(), [str(tmp_path)])
    assert [host.name for host in inventory.get_hosts("all")] == ["node1"]
    assert Path(secrets, "users/root/password").is_file()
