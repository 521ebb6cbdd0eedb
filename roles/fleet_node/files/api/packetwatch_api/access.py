# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who sends a request: the token that it shows."""

from __future__ import annotations

import base64
import binascii
import typing as t

from packetwatch_core._base.errors import Unreadable

from .problem import Problem
from .tokens import Token, Tokens

_REALM = 'realm="packetwatch"'


class Forbidden(Problem):
    """The token has another role."""

    def __init__(self, token: Token, roles: t.Collection[str]) -> None:
        wanted = ", ".join(sorted(roles))
        super().__init__(
            403, f"the token {token.name} has the role {token.role}; this needs one of: {wanted}"
        )
        self.token = token


class Access:
    """Finds tokens in the header `Authorization`."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def token(
        self, authorization: str, roles: t.Collection[str], by_browser: bool, ask: str = "Bearer"
    ) -> Token:
        """The token that a request shows, which has one of the roles; raises `Problem`.

        by_browser: whether it may be the password of HTTP Basic, which a browser also sends with requests that another
        site has made. ask: the scheme for which the client is asked.
        """
        scheme, dummy, value = authorization.partition(" ")
        secret = value.strip(" ")
        if scheme.lower() == "basic":
            secret = _password(secret) if by_browser else ""
        elif scheme.lower() != "bearer":
            secret = ""
        try:
            found = self._tokens.find(secret)
        except Unreadable as error:
            raise Problem(503, str(error)) from None
        if found is None:
            detail = "there is no valid token: send the header Authorization: Bearer pw_..."
            raise Problem(401, detail, WWW_Authenticate=f"{ask} {_REALM}")
        if found.role not in roles:
            raise Forbidden(found, roles)
        return found


def _password(text: str) -> str:
    try:
        pair = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return pair.partition(":")[2]
