# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The users of a fleet's etcd, and what each may read and write.

A host writes three keys of its own, each granted exactly: with a prefix it could fill the store with keys. It
reads decisions, but no reports of other hosts.
"""

from __future__ import annotations

import base64
import dataclasses
import time
import typing as t

from .._base.errors import InvalidInput, PacketwatchError
from .gateway import Gateway, Refused, below, encoded, may_pass
from .keys import FOLLOWED, HOSTS, KEYS, REPORTS, RULES

Connect = t.Callable[[t.Optional[tuple[str, str]]], Gateway]

ROOT = "root"
_READ, _WRITE, _BOTH = "READ", "WRITE", "READWRITE"
_PAUSE = 0.5


@dataclasses.dataclass(frozen=True)
class Grant:
    """What a role may do with a key, or with all keys that begin with a prefix ending in a slash."""

    key: str
    kind: str

    def request(self) -> dict[str, str]:
        """The permission as the gateway wants it."""
        if not self.key.endswith("/"):
            return {"permType": self.kind, "key": encoded(self.key)}
        key, end = below(self.key)
        return {"permType": self.kind, "key": key, "range_end": end}


@dataclasses.dataclass(frozen=True)
class Account:
    """A user with its role, which has the user's name."""

    name: str
    password: str
    grants: frozenset[Grant]


def host_account(name: str, password: str) -> Account:
    """A host's account: it writes its own reports, and reads what was decided."""
    own = {Grant(f"{HOSTS}{name}/{report}", _WRITE) for report in REPORTS}
    return Account(name, password, frozenset(own | {Grant(key, _READ) for key in FOLLOWED}))


def service_account(name: str, password: str, writes: t.Iterable[str]) -> Account:
    """The account of a service or a person: it reads everything, and writes below these keys."""
    own = {Grant(KEYS + part, _BOTH) for part in writes}
    return Account(name, password, frozenset(own | {Grant(KEYS, _READ)}))


class Accounts:
    """The accounts in a store. connect: makes a connection of a user, or of nobody."""

    def __init__(self, connect: Connect, password: str, *, dry: bool = False) -> None:
        self._connect = connect
        self._password = password
        self._dry = dry
        self._changes: list[str] = []
        self._gateway: Gateway
        self._protected = False

    def settle(
        self, accounts: t.Sequence[Account], patience: float = 60.0, *, forget: bool = False
    ) -> list[str]:
        """Make the store's accounts equal to these, and require passwords; return changes, without secrets.

        forget: whether the reports of hosts and enforcers without an account are deleted. A store that is slow, or that
        chooses a leader, is asked again for `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                self._settle(accounts)
                if forget:
                    self._forget(accounts)
                return self._changes
            except PacketwatchError as error:
                if not may_pass(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def _settle(self, accounts: t.Sequence[Account]) -> None:
        self._protected = self._log_in()
        users = self._names("user")
        roles = self._names("role")
        for account in accounts:
            self._settle_role(account, account.name in roles)
            self._settle_user(account, account.name in users)
        kept = {ROOT, *(account.name for account in accounts)}
        for name in sorted(users - kept):
            self._change(f"user {name} deleted", "/v3/auth/user/delete", {"name": name})
        for name in sorted(roles - kept):
            self._change(f"role {name} deleted", "/v3/auth/role/delete", {"role": name})
        if not self._protected:
            self._require_passwords(ROOT in users, ROOT in roles)

    def _forget(self, accounts: t.Sequence[Account]) -> None:
        grants = (grant for account in accounts for grant in account.grants)
        written = {grant.key for grant in grants if grant.kind != _READ}
        folders = tuple(key for key in written if key.endswith("/"))
        for prefix in (HOSTS, RULES):
            key, end = below(prefix)
            body = {"key": key, "range_end": end, "keys_only": True}
            for item in self._gateway.call("/v3/kv/range", body).get("kvs", ()):
                name = base64.b64decode(item["key"]).decode(errors="replace")
                if name not in written and not name.startswith(folders):
                    self._change(f"{name} deleted", "/v3/kv/deleterange", {"key": item["key"]})

    def _log_in(self) -> bool:
        """Whether the store requires passwords; if it does not yet, go on without one."""
        self._gateway = self._connect((ROOT, self._password))
        try:
            self._gateway.login()
        except Refused as error:
            if may_pass(error):
                raise
            if "not enabled" in error.reason:
                self._gateway = self._connect(None)
                return False
            raise InvalidInput(
                f"the store refuses the password of root: {error.reason}; "
                "restore the folder of the fleet's secrets on the controller from its backup"
            ) from None
        return True

    def _require_passwords(self, has_user: bool, has_role: bool) -> None:
        if not has_user:
            self._add_user(ROOT, self._password)
        if not has_role:
            self._change("role root added", "/v3/auth/role/add", {"name": ROOT})
        if not has_user or ROOT not in self._held(ROOT):
            self._grant_role(ROOT)
        self._change("authentication enabled", "/v3/auth/enable", {})
        # From now on, a connection of nobody may do nothing.
        self._protected = self._log_in()

    def _settle_role(self, account: Account, known: bool) -> None:
        name = account.name
        if not known:
            self._change(f"role {name} added", "/v3/auth/role/add", {"name": name})
        present = self._granted(name) if known else {}
        wanted = {_identity(grant.request()): grant for grant in account.grants}
        for identity in present.keys() - wanted.keys():
            body: dict[str, t.Any] = {"role": name, **present[identity]}
            self._change(f"role {name} narrowed", "/v3/auth/role/revoke", body)
        for identity in sorted(wanted.keys() - present.keys()):
            grant = wanted[identity]
            body = {"name": name, "perm": grant.request()}
            self._change(f"role {name} may {grant.kind} {grant.key}", "/v3/auth/role/grant", body)

    def _settle_user(self, account: Account, known: bool) -> None:
        name = account.name
        if not known:
            self._add_user(name, account.password)
        elif not self._accepts(name, account.password):
            body = {"name": name, "password": account.password}
            self._change(f"password of {name} set", "/v3/auth/user/changepw", body)
        held = self._held(name) if known else set()
        if name not in held:
            self._grant_role(name)
        for role in sorted(held - {name}):
            body = {"name": name, "role": role}
            self._change(f"user {name} lost role {role}", "/v3/auth/user/revoke", body)

    def _add_user(self, name: str, password: str) -> None:
        body = {"name": name, "password": password}
        self._change(f"user {name} added", "/v3/auth/user/add", body)

    def _grant_role(self, name: str) -> None:
        body = {"user": name, "role": name}
        self._change(f"user {name} got its role", "/v3/auth/user/grant", body)

    def _accepts(self, name: str, password: str) -> bool:
        """Whether a user has this password; if no passwords are required yet, that cannot be asked."""
        if not self._protected:
            return False
        gateway = self._connect((name, password))
        try:
            gateway.login()
        except Refused as error:
            if may_pass(error):
                raise
            return False
        finally:
            gateway.close()
        return True

    def _names(self, kind: str) -> set[str]:
        return set(self._gateway.call(f"/v3/auth/{kind}/list", {}).get(f"{kind}s", ()))

    def _held(self, user: str) -> set[str]:
        """The roles of a user."""
        return set(self._gateway.call("/v3/auth/user/get", {"name": user}).get("roles", ()))

    def _granted(self, role: str) -> dict[tuple[str, str, str], dict[str, str]]:
        """What a role has, by kind, key and end of the range."""
        permissions = self._gateway.call("/v3/auth/role/get", {"role": role}).get("perm", ())
        return {
            _identity(found): {key: found[key] for key in ("key", "range_end") if key in found}
            for found in permissions
        }

    def _change(self, what: str, path: str, body: dict[str, t.Any]) -> None:
        self._changes.append(what)
        if not self._dry:
            self._gateway.call(path, body)


def _identity(permission: t.Mapping[str, str]) -> tuple[str, str, str]:
    # The gateway leaves out the first of the kinds, READ.
    kind = permission.get("permType", _READ)
    return kind, permission.get("key", ""), permission.get("range_end", "")
