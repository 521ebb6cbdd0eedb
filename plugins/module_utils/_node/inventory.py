# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What is wrong with what an inventory says of a node, for as far as texts have a form."""

from __future__ import annotations

import typing as t

from .._base.errors import InvalidInput, InvalidInputs
from .._network.endpoints import (
    check_ports,
    parse_endpoints,
    parse_label,
    parse_listen,
    parse_vhost,
)
from .._preflight.values import served_metrics

_EXTERNAL = "fleet_node_rabbitmq_external"


def check_node(
    metrics: t.Mapping[str, str], host: t.Mapping[str, t.Any], external: t.Mapping[str, t.Any]
) -> None:
    """Raise `InvalidInputs` with all that is wrong.

    metrics: ``ADDRESS:PORT`` of each process of the node, by the name of the setting. host: variables of the other
    role, if the machine is a host, too. external: the operator's own broker, without its password. Empty: there is
    none.
    """
    whole = {**(served_metrics(host) if host else {}), **metrics}
    problems = [*_refused(parse_listen, metrics), *check_ports(whole)]
    if external:
        endpoints = [str(one) for one in external.get("endpoints") or ()]
        problems += _refused(
            parse_endpoints,
            {f"{_EXTERNAL}.endpoints[{number}]": one for number, one in enumerate(endpoints)},
        )
        problems += _refused(parse_label, _given(external, "account"))
        problems += _refused(parse_vhost, _given(external, "vhost"))
    if problems:
        raise InvalidInputs(problems)


def _given(external: t.Mapping[str, t.Any], option: str) -> dict[str, str]:
    return {f"{_EXTERNAL}.{option}": str(external[option])} if option in external else {}


def _refused(parse: t.Callable[[str, str], object], texts: t.Mapping[str, str]) -> t.Iterator[str]:
    for name, text in texts.items():
        try:
            parse(text, name)
        except InvalidInput as error:
            yield str(error)
