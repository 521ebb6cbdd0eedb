# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Root's note for the agent: a file with what root's one-shots found and did.

The agent needs it because it cannot read the tables. The file is under /run, so after a boot it does not
exist until an interface is attached.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._base.digest import sha256
from .._base.files import read_json, replace_json
from .._base.number import is_a
from .._kernel import abi
from .active import interfaces
from .chain import as_fields, nexts, read_chains, strayed

if t.TYPE_CHECKING:
    from .._active.generation import Image
    from .._active.lists import Lists
    from .._active.loaded import Loaded
    from .._declared.store import State

# Keys of the note that come from compiling the lists.
_COMPILED = ("counts", "verified", "compiled", "idle")
_OF_LISTS = (
    "declared",
    "attachments",
    "lists",
    "tables",
    "bytes",
    "capacity",
    "feeds",
    "expired_feeds",
    *_COMPILED,
)
_MAX_WHY = 500
# Values of another type are as good as none.
_TYPES = {
    "apply": dict,
    "attachments": str,
    "counts": dict,
    "declared": str,
    "distrusted": list,
    "feeds": dict,
    "heal": dict,
    "number": int,
}


class Status:
    """The note's file. Write errors are ignored: what the note reports has already happened.

    ages: path of the note of the times of feeds' copies.
    """

    def __init__(self, path: str, ages: str = "") -> None:
        self._path = path
        self._ages = ages

    def read(self) -> dict[str, t.Any]:
        """The note; empty if there is none."""
        try:
            found = read_json(self._path)
        except (OSError, ValueError):
            return {}
        noted = found if isinstance(found, dict) else {}
        return {
            name: value
            for name, value in noted.items()
            if name not in _TYPES or is_a(value, _TYPES[name])
        }

    def applied(
        self, loaded: Loaded, number: int, state: State, image: Image, lists: Lists | None
    ) -> None:
        """Note that the state of this number was activated.

        lists: the compiled lists; None if the former tables were kept.
        """
        if not loaded.active:
            self.clear()
            return
        compiled = _compiled(lists) if lists else {}
        declared = {
            "declared": digest_of_declared(state, image.lists),
            "attachments": _digest_of_attachments(state),
        }
        former = self.read()
        note = self._survey(loaded, number, state, image)
        note |= _kept(former, "heal", "unverified") | declared
        note |= self._feeds(state)
        if compiled:
            note.pop("unverified", None)
            note |= compiled
        elif former.get("lists") == note["lists"] and "compiled" in former:
            # Nothing was compiled, so the image was made from the tables themselves. They match only
            # if the same lists were compiled to the same tables before.
            note |= _kept(former, *_COMPILED)
            note["matches"] = note["matches"] and note["tables"] == note["compiled"]
        else:
            del note["matches"]
        self._write(note | {"apply": {"time": time.time(), "success": True}})

    def verified(
        self,
        loaded: Loaded,
        number: int,
        state: State,
        image: Image,
        lists: Lists,
        tracks: int,
        wrong_settings: dict[str, str],
    ) -> dict[str, t.Any]:
        """Note whether the active generation equals the image compiled anew; return the note.

        wrong_settings: what is wrong, by setting.
        """
        former = self.read()
        note = self._survey(loaded, number, state, image) | _compiled(lists) | {"tracks": tracks}
        note |= (
            _kept(former, "apply", "distrusted", "heal")
            | {"settings": wrong_settings}
            | self._feeds(state)
        )
        declared = digest_of_declared(state, lists.areas.lists)
        # Every checked change has a new number. If files differ and the number does not, they were edited.
        is_known = former.get("number") == number and "declared" in former
        attachments = _digest_of_attachments(state)
        note["edited"] = is_known and (
            (former["declared"] != declared and not note.get("matches"))
            or former.get("attachments", attachments) != attachments
        )
        note["renamed"] = loaded.renamed(state.interfaces)
        note["declared"] = former["declared"] if note["edited"] else declared
        note["attachments"] = (
            former.get("attachments", attachments) if note["edited"] else attachments
        )
        self._write(note)
        return note

    def is_edited(self) -> bool:
        """Whether the last verification found that confirmed state was edited by hand and not applied."""
        return self.read().get("edited") is True

    def unverified(self, why: str) -> None:
        """Note that the tables could not be compared; the next verification removes the note."""
        self._write(self.read() | {"unverified": why[:_MAX_WHY]})

    def distrusted(self) -> list[str]:
        """What `distrusts` has noted."""
        found = self.read().get("distrusted")
        return [str(text) for text in found] if isinstance(found, list) else []

    def distrusts(self, texts: list[str]) -> None:
        """Note which compiled files were not used, and why; the next activation removes the note."""
        if texts != self.distrusted():
            self._write(self.read() | {"distrusted": texts})

    def healed(self, record: dict[str, t.Any]) -> None:
        """Note an attempt to repair drift."""
        self._write(self.read() | {"heal": record})

    def clear(self) -> None:
        """Remove the note: nothing is filtered."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
            os.rmdir(os.path.dirname(self._path))

    def failed(self, why: str) -> None:
        """Note that confirmed state could not be activated, and why."""
        apply = {"time": time.time(), "success": False, "why": why[:_MAX_WHY]}
        self._write(self.read() | {"apply": apply})

    def booted(
        self, loaded: Loaded, number: int, state: State, of_lists: dict[str, t.Any], digest: str
    ) -> None:
        """Note that a boot image was activated. state: what it has of interfaces. of_lists: what was noted of the
        lists with it.
        """
        note = self._links(loaded, number, state) | of_lists | {"digest": digest, "matches": True}
        self._write(note | {"apply": {"time": time.time(), "success": True}})

    def of_lists(self) -> dict[str, t.Any]:
        """What the note says of the confirmed lists, for their boot image."""
        return _kept(self.read(), *_OF_LISTS)

    @staticmethod
    def _links(loaded: Loaded, number: int, state: State) -> dict[str, t.Any]:
        chains = read_chains(loaded, state)
        noted = {
            name: {"program": found.held, "mode": found.mode, "attached": found.is_ours}
            for name, found in interfaces(loaded).items()
        }
        return {
            "number": number,
            "interfaces": noted,
            "whole": loaded.whole,
            "chains": {name: as_fields(chain) for name, chain in chains.items()},
            "nexts": nexts(chains),
            "strayed": strayed(chains),
        }

    def _survey(self, loaded: Loaded, number: int, state: State, image: Image) -> dict[str, t.Any]:
        note = self._links(loaded, number, state)
        if loaded.active:
            with loaded.generation() as current:
                areas = current.areas(image)
                digest = current.check_digest(areas)
                note |= {
                    "digest": digest,
                    "tables": areas.digest(),
                    "lists": current.header["lists"].hex(),
                    "matches": loaded.whole and digest == image.digest,
                    "bytes": current.header["pages"] * abi.PAGE,
                    "capacity": current.capacity * abi.PAGE,
                }
        return note

    def _feeds(self, state: State) -> dict[str, t.Any]:
        """When the copies of the state's feeds were fetched and published, and which feeds have none any more."""
        # Imported here: a boot does not need it, and it would cost memory.
        from .._feeds.spare import has_feeds

        if not has_feeds(state) and not os.path.exists(self._ages):
            return {}
        from .._feeds.copies import Ages

        ages = Ages(self._ages)
        note = {}
        if has_feeds(state):
            note["feeds"] = {name: found.known() for name, found in ages.of(state).items()}
        lost = ages.lost(state, time.time())
        return note | ({"expired_feeds": lost} if lost else {})

    def _write(self, note: dict[str, t.Any]) -> None:
        with contextlib.suppress(OSError):
            folder = os.path.dirname(self._path)
            if not os.path.isdir(folder):
                os.makedirs(folder, exist_ok=True)
                os.chmod(folder, 0o755)
            replace_json(self._path, note, 0o644)


def _compiled(lists: Lists) -> dict[str, t.Any]:
    """The entries named in `_COMPILED`. Entries without effect are noted only if they were looked for."""
    counts = {name: number for name, number in lists.counts.items() if name != "pages"}
    # Unknown after a boot, and after a small change of long lists.
    idle = {"idle": lists.idle.counts} if lists.idle else {}
    return {"counts": counts, "verified": time.time(), "compiled": lists.areas.digest()} | idle


def _kept(note: dict[str, t.Any], *keys: str) -> dict[str, t.Any]:
    return {key: note[key] for key in keys if key in note}


def _digest_of_attachments(state: State) -> str:
    """SHA-256 of what a state declares and the tables do not show: interfaces and programs, as hex."""
    return str(sha256(repr(_attachments(state)).encode()).hexdigest())


def _attachments(state: State) -> tuple[t.Any, ...]:
    """As text, this is what former versions made of states without next programs."""
    nexts = (sorted(state.next.items()),) if state.next else ()
    return sorted(state.interfaces.items()), state.program, *nexts


def digest_of_declared(state: State, lists: bytes) -> str:
    """SHA-256 of everything that a state declares, as hex. lists: digest of its lists (`digest_of`)."""
    check = sha256()
    check.update(lists)
    policy = [(name, sorted(keys.items())) for name, keys in sorted(state.policy.items())]
    check.update(repr((policy, *_attachments(state))).encode())
    return str(check.hexdigest())
