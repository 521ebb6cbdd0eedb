# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Virtual machines on a network of their own, for the demo and the tests. It needs root.

`image` and `guest` make disk images, `network` the namespaces, `machine` is one guest, `fleet` all
of them together; `access` says how to get in, `state` what there is to clear away; `traffic` is
what stations do to machines, `forgery` what they do in the name of others, `telling` and `prometheus`
what a machine tells of it. Each runs as

    PYTHONPATH=tests python3 -m lab up|down|shell|inventory|list|gc|images
"""
