# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list from a text file made live, in a process of its own as ipset's and nft's is.

Run by the system's Python: apply.py LIBRARY LIST NAMED-PATHS-OF-THE-HOST... The library lies there under
its installed name, and nothing but it is imported.
"""

from __future__ import annotations

import sys


def main(library: str, text: str, *paths: str) -> None:
    """Declare the list and make it live, as the module access_lists does."""
    sys.path.insert(0, library)
    from packetwatch_core._edits import set_lists
    from packetwatch_core._host import Host
    from packetwatch_core._pins import Paths

    with open(text, encoding="ascii") as file:
        edit = set_lists("ansible", {"allow": "", "deny": file.read()}, False)
    plan = Host(_run, Paths(*paths)).apply(edit, force=True)
    if not plan.changed:
        raise SystemExit("nothing has changed")


def _run(argv: object, stdin: object) -> tuple[int, str, str]:
    raise SystemExit(f"nothing should be started: {argv}")


if __name__ == "__main__":
    main(*sys.argv[1:])
