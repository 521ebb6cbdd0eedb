# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Virtual machines on a network of their own, for the demo and the tests. It needs root.

`image` and `guest` make disk images, `network` makes the namespaces. `machine` is one guest, `fleet` all
guests. `access` makes keys and ssh configuration, `state` records what must be removed at the end.
`traffic` sends packets from stations to machines, `forgery` sends them with forged sources. `observe` and
`prometheus` read what a machine logs and exports. The command line:

    PYTHONPATH=tests python3 -m lab up|down|shell|inventory|list|gc|images
"""
