# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The REST API of a fleet, on its nodes: bans and lists for people and programs.

`openapi.json` is the contract: it makes the routes, says who may use them, and checks what comes in. `Fleet` reads and
folds the store, `Changes` writes to it; the web page needs only `Fleet` and `Access`.
"""
