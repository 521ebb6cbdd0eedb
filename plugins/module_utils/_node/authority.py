# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The fleet's certificates and passwords, in a folder on the controller.

Two authorities sign, so that a certificate opens only one kind of door. The authority `hosts` signs what
hosts and gates show each other. The authority `nodes` signs what the etcd of the nodes shows its peers and
its own gate: a host's certificate is refused at the ports of etcd.

A file holds a certificate together with its key, so that one rename renews both. No certificate has a common
name: etcd's gateway refuses clients that have one.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import secrets
import shutil
import typing as t

from .._base.errors import InvalidInput, SetupFailed
from .._base.files import make_own_folder, replace_file

if t.TYPE_CHECKING:
    from .._base.types import Run

HOSTS, NODES = "hosts", "nodes"
_DAY = 24 * 60 * 60
_AUTHORITY_DAYS = 3650
# A name is part of a path, of a key in etcd, and of a name in a certificate.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?\Z")
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-sha256")
_REQUEST = """\
[req]
distinguished_name = subject
x509_extensions = extensions
[subject]
[extensions]
"""
_AUTHORITY = """\
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_LEAF = """\
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = {usage}
authorityKeyIdentifier = keyid
subjectAltName = critical, {names}
"""
_ALL_USES = "serverAuth, clientAuth"


@dataclasses.dataclass(frozen=True)
class Node:
    """A node with the address at which its gate and its peers' port listen."""

    name: str
    address: str


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A certificate as it should be."""

    path: str
    authority: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    usage: str

    @property
    def alternatives(self) -> list[str]:
        """The subject's alternative names, as openssl reads them."""
        return [f"DNS:{name}" for name in self.names] + [f"IP:{ip}" for ip in self.addresses]


class Vault:
    """The folder with everything that the fleet's members must not know of each other.

    days: how long certificates are valid. renew: days before their end at which they are made anew.
    own: paths of a certificate and a key of an authority for hosts and gates that was handed in.
    dry: change nothing, and only report what would change.
    """

    def __init__(
        self,
        run: Run,
        folder: str,
        *,
        days: int = 365,
        renew: int = 60,
        own: tuple[str, str] | None = None,
        dry: bool = False,
    ) -> None:
        if renew >= days:
            raise InvalidInput(
                f"certificates are valid for {days} days and would be renewed {renew} days before their end: "
                "choose fewer days for the renewal"
            )
        self._run = run
        self._folder = os.path.abspath(folder)
        self._days = days
        self._renew = renew
        self._own = own
        self._dry = dry

    # Paths

    def authority(self, name: str) -> str:
        """The path of an authority's certificate, which is no secret."""
        if name == HOSTS and self._own:
            return self._own[0]
        return self._path(f"{name}-ca.pem")

    def gate(self, node: str) -> str:
        """The path of what a gate shows to hosts."""
        return self._path("nodes", checked(node), "gate.pem")

    def etcd(self, node: str) -> str:
        """The path of what a node's etcd shows to its peers and clients."""
        return self._path("nodes", checked(node), "etcd.pem")

    def inner(self, node: str) -> str:
        """The path of what a gate shows to its node's etcd."""
        return self._path("nodes", checked(node), "inner.pem")

    def host(self, name: str) -> str:
        """The path of what a host shows to gates."""
        return self._path("hosts", checked(name), "host.pem")

    def token(self, name: str) -> str:
        """The path of what a client shows to the API."""
        return self._path("tokens", checked(name), "token")

    def password(self, kind: str, name: str) -> str:
        """The path of the password of one of the `hosts` or `users`."""
        return self._path(kind, checked(name), "password")

    def _path(self, *parts: str) -> str:
        return os.path.join(self._folder, *parts)

    # Changes

    def provide(
        self,
        nodes: t.Sequence[Node],
        hosts: t.Sequence[str],
        users: t.Sequence[str],
        tokens: t.Sequence[str] = (),
    ) -> list[str]:
        """Make what is missing, renew what ends soon or has other names, and remove what nobody has any more.

        Returns the paths of what changed, relative to the folder.
        """
        names_of_nodes = [node.name for node in nodes]
        members = {"nodes": names_of_nodes, "hosts": hosts, "users": users, "tokens": tokens}
        for name in (name for names in members.values() for name in names):
            checked(name)
        wanted = [want for node in nodes for want in self._of_node(node)]
        wanted += [Wanted(self.host(name), HOSTS, (name,), (), "clientAuth") for name in hosts]
        changed = self._authorities()
        changed += [want.path for want in wanted if self._issued(want)]
        random = [
            (self.password(kind, name), "") for kind in ("hosts", "users") for name in members[kind]
        ]
        random += [(self.token(name), "pw_") for name in tokens]
        changed += [path for path, prefix in random if self._made(path, prefix)]
        for kind, names in members.items():
            changed += [
                self._forget(kind, name) for name in self._present(kind) if name not in names
            ]
        return [os.path.relpath(path, self._folder) for path in changed]

    def _present(self, kind: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(kind)))
        except FileNotFoundError:
            return []

    def _forget(self, kind: str, name: str) -> str:
        path = self._path(kind, name)
        if not self._dry:
            shutil.rmtree(path)
        return path

    def _of_node(self, node: Node) -> t.Iterator[Wanted]:
        try:
            address = str(ipaddress.ip_address(node.address))
        except ValueError:
            raise InvalidInput(
                f"the address of node {node.name} is {node.address}, which is no address: "
                "write an IPv4 or IPv6 address, because hosts must not depend on name resolution"
            ) from None
        yield Wanted(self.gate(node.name), HOSTS, (node.name,), (address,), _ALL_USES)
        yield Wanted(self.inner(node.name), NODES, (node.name,), (), "clientAuth")
        local = (address, "127.0.0.1")
        yield Wanted(self.etcd(node.name), NODES, (node.name, "localhost"), local, _ALL_USES)

    def _authorities(self) -> list[str]:
        if self._own:
            for path in self._own:
                if not os.access(path, os.R_OK):
                    raise InvalidInput(
                        f"the authority's file {path} cannot be read; correct the path"
                    )
        names = [NODES] if self._own else [NODES, HOSTS]
        missing = [name for name in names if not os.path.exists(self.authority(name))]
        if missing and not self._dry:
            make_own_folder(self._folder)
        for name in missing:
            if not self._dry:
                subject = f"/CN=Packetwatch fleet {name}"
                made = self._make(name, subject, _AUTHORITY, _AUTHORITY_DAYS)
                # The certificate comes last: where it is, its key is too.
                replace_file(self._key(name), _part(made, "PRIVATE KEY"), 0o600)
                replace_file(self.authority(name), _part(made, "CERTIFICATE"), 0o644)
        return [self.authority(name) for name in missing]

    def _key(self, name: str) -> str:
        """The path of an authority's key."""
        if name == HOSTS and self._own:
            return self._own[1]
        return self._path(f"{name}-ca.key")

    def _issued(self, want: Wanted) -> bool:
        if self._good(want):
            return False
        if not self._dry:
            self._make_folder(want.path)
            extensions = _LEAF.format(usage=want.usage, names=", ".join(want.alternatives))
            signer = ("-CA", self.authority(want.authority), "-CAkey", self._key(want.authority))
            made = self._make(want.path, "/", extensions, self._days, *signer)
            replace_file(want.path, made, 0o600)
        return True

    def _good(self, want: Wanted) -> bool:
        """Whether a certificate is there, is signed by its authority, has its names, and does not end soon."""
        if not os.path.exists(want.path):
            return False
        authority = self.authority(want.authority)
        verify = ("openssl", "verify", "-partial_chain", "-CAfile", authority, want.path)
        if not os.path.exists(authority) or self._run(verify, None)[0]:
            return False
        soon = str(self._renew * _DAY)
        show = ("openssl", "x509", "-in", want.path, "-noout", "-checkend", soon)
        status, output, _errors = self._run((*show, "-ext", "subjectAltName"), None)
        return status == 0 and _alternatives(output) == sorted(want.alternatives)

    def _make(self, what: str, subject: str, extensions: str, days: int, *signer: str) -> str:
        """Return a new key and its certificate."""
        argv = ("openssl", "req", "-x509", *_CURVE, "-subj", subject, "-days", str(days), *signer)
        # Both go to standard output, so no file ever holds a key that others can read.
        pipe = ("-config", "/dev/stdin", "-keyout", "/dev/stdout", "-out", "/dev/stdout")
        status, output, errors = self._run((*argv, *pipe), _REQUEST + extensions)
        if status:
            raise SetupFailed(
                f"openssl cannot make the certificate of {what}: {errors.strip() or f'exit status {status}'}; "
                "the controller needs OpenSSL 3, and the key of the authority without a passphrase"
            )
        return output

    @staticmethod
    def _make_folder(path: str) -> None:
        """Make the folders of a member's file, for nobody else to read."""
        own = os.path.dirname(path)
        for folder in (os.path.dirname(own), own):
            make_own_folder(folder)

    def _made(self, path: str, prefix: str) -> bool:
        """Make a random text, unless it is there."""
        if os.path.exists(path):
            return False
        if not self._dry:
            self._make_folder(path)
            replace_file(path, f"{prefix}{secrets.token_urlsafe(32)}\n", 0o600)
        return True


def checked(name: str) -> str:
    """The name of a node, host or user; raises `InvalidInput` if paths or certificates cannot have it."""
    if not _NAME.match(name) or ".." in name:
        raise InvalidInput(
            f"{name!r} cannot be the name of a member of the fleet: use at most 63 lower-case letters, digits, "
            "dots, hyphens and underscores, with a letter or digit at both ends"
        )
    return name


def _part(text: str, kind: str) -> str:
    """The block of a kind in a text of PEM."""
    found = re.search(rf"-----BEGIN {kind}-----.*?-----END {kind}-----\n", text, re.DOTALL)
    if not found:
        raise SetupFailed(f"the output of openssl has no {kind}; the controller needs OpenSSL 3")
    return found[0]


def _alternatives(output: str) -> list[str]:
    """The alternative names that openssl shows, in the form that it reads."""
    found = re.findall(r"\b(DNS|IP Address):([^,\s]+)", output)
    return sorted(
        f"DNS:{text}" if kind == "DNS" else f"IP:{ipaddress.ip_address(text)}"
        for kind, text in found
    )
