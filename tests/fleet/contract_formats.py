# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For schemathesis: values of the formats that the API's contract has of its own."""

from __future__ import annotations

import base64
import ipaddress
import json

import schemathesis
from hypothesis import strategies as st

for number, addresses, bits in ((4, st.ip_addresses(v=4), 32), (6, st.ip_addresses(v=6), 128)):
    pairs = st.tuples(addresses, st.integers(0, bits))
    schemathesis.openapi.format(
        f"ipv{number}-network",
        pairs.map(lambda pair: str(ipaddress.ip_network(pair, strict=False))),
    )
schemathesis.openapi.format("etag", st.integers(0, 10**19 - 1).map(lambda n: f'"{n}"'))
schemathesis.openapi.format(
    "page-token",
    st.text(max_size=40).map(
        lambda text: base64.urlsafe_b64encode(json.dumps([text]).encode()).decode()
    ),
)
