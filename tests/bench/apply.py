# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does what the modules and packetwatchctl do, in its own process like ipset and nft.

Run by the system's Python: apply.py LIBRARY WHAT LIST PATHS-OF-THE-HOST... LIBRARY is the folder of the
installed library; nothing else is imported. WHAT: `change`, activate the list; `keep`, do so although it
is active; `tell`, return each entry and each range, like host_info.
"""

from __future__ import annotations

import sys


def main(library: str, what: str, text: str, *paths: str) -> None:
    sys.path.insert(0, library)
    from packetwatch_core._base.paths import Paths
    from packetwatch_core._declared.edits import set_lists
    from packetwatch_core._host.host import Host

    host = Host(_run, Paths(*paths))
    if what == "tell":
        import json

        json.dump(host.info({"entries", "ranges"}), sys.stdout)
        return
    with open(text, encoding="ascii") as file:
        edit = set_lists("ansible", {"allow": "", "deny": file.read()}, False)
    plan = host.apply(edit, force=True)
    if plan.changed != (what == "change"):
        raise SystemExit(f"changed: {plan.changed}")


def _run(argv: object, stdin: object) -> tuple[int, str, str]:
    raise SystemExit(f"nothing should be started: {argv}")


if __name__ == "__main__":
    main(*sys.argv[1:])
