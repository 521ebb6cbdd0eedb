# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control by operators: the agent's socket, the one-shot that edits lists, and ``packetwatchctl``.

The agent loads `server`, `requests`, `channel`, `follow`, `commands`, `watch` and what these import.
They import nothing that only the other programs need, because the agent's memory is limited.
"""
