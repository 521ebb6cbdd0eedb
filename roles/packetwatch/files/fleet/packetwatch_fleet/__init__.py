# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet's state in a store that all hosts share: keys, values, fold, store.

`host` is the process on each filtered host. Everything else serves enforcers too, and does not need the agent's files
but its loop and its log.
"""
