# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Confirmed state: numbered directories, and the link ``current`` to one of them.

::

    /etc/packetwatch/current -> 7
    /etc/packetwatch/7/{allow.d,deny.d}/NAME.list  policy.d/{default,IFACE}.conf  interfaces
    /etc/packetwatch/7/next.d/IFACE.{path,c}       the next program of an interface
    /etc/packetwatch/7/program.c                   if a program was ever attached
    /etc/packetwatch/7/settings                    if the role has declared the settings
    /etc/packetwatch/7/digests                     of the lists, bound to their files
    /etc/packetwatch/7/took_back                   if it is a rollback: number of the state rolled back
    /etc/packetwatch/6/...                         the state before, for a rollback
    /etc/packetwatch/lock                          the lock of all writers

A directory is complete and on disk before it gets its number, and gets another name before it is
deleted; ``current`` changes by rename. So a reader sees one state, never a mix, at whatever point a
writer dies. Names with a leading dot are unfinished or discarded; the next writer deletes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import types
import typing as t

from .._base import interface
from .._base.errors import InvalidInput, PacketwatchError, Unreadable, failures_of, remedy_of
from .._base.files import write_file
from .._base.number import read_whole
from .._dispatcher.place import DISPATCHER, Place, is_dispatcher, read_place
from .drop_ins import DropIns, File, Noted, file_of, note_digests, read_text
from .lock import Lock
from .nexts import PATH, SOURCE, Next, read_next
from .policy import DEFAULT, read_policy

ROOT = "/etc/packetwatch"
MODES = ("auto", "native", "generic")
FEED = "feed-"
"""The drop-in's name of a feed begins with this."""
ROLE = "ansible"
"""The drop-in's name of the lists that the role declares."""
FLEET = "fleet"
"""The drop-in's name of the lists that the fleet has sent."""

_LISTS = ("allow", "deny")
_NEXT = "next.d"
_PROGRAM = "program.c"
_SETTINGS = "settings"
_TOOK_BACK = "took_back"
# The default of State's fields; all states share it, so it must be immutable.
_NOTHING: t.Any = types.MappingProxyType({})
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_ATTEMPTS = 20
_MAX_NUMBER = 10**18
_SHOWN = 80
Content = t.TypeVar("Content")


class State(t.NamedTuple):
    """Everything that is declared on a host. It is immutable; an edit makes a new state.

    allow, deny: name of a drop-in → text of its file.
    policy: `DEFAULT` or name of an interface → its ``PW_*`` keys.
    interfaces: name → wanted mode: one of `MODES`, or a place in a dispatcher.
    next: name of an interface → the program that its packets meet next.
    program: C source that boot attaches; empty if no program was ever attached.
    settings: text of ``/etc/default/packetwatch``; empty if the role has not declared the settings.
    took_back: if this state is a rollback, the number of the state rolled back; else 0. `read` returns 0,
    because an edited rollback is not a rollback any more.
    """

    allow: t.Mapping[str, str] = _NOTHING
    deny: t.Mapping[str, str] = _NOTHING
    policy: dict[str, dict[str, str]] = _NOTHING
    interfaces: dict[str, str] = _NOTHING
    next: dict[str, Next] = _NOTHING
    program: str = ""
    settings: str = ""
    took_back: int = 0


def check_name(name: str) -> None:
    """Raise InvalidInput unless the text can name a drop-in."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a name for a list; allowed: 1 to 64 of the characters a-z 0-9 _ -"
        )


def is_feed(name: str) -> bool:
    """Return whether a drop-in is a feed."""
    return name.startswith(FEED)


def is_foreign(name: str) -> bool:
    """Return whether others wrote a drop-in: a feed, or the fleet's. So it must not disturb the other lists."""
    return is_feed(name) or name == FLEET


def check_mode(mode: str) -> None:
    """Raise InvalidInput unless the text is a mode of an interface."""
    if is_dispatcher(mode):
        read_place(mode)
    elif mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}: choose one of {', '.join((*MODES, DISPATCHER))}")


def check_interface(name: str) -> None:
    """Raise InvalidInput unless an interface of this name can be filtered and have a policy."""
    interface.check_name(name)
    if name == DEFAULT:
        raise InvalidInput(
            f"an interface named {name!r} cannot have a policy, because the default policy has that "
            "name: rename the interface"
        )


class Store:
    """Reads states; writes them while the caller holds its lock."""

    def __init__(self, root: str = ROOT) -> None:
        self.root = root

    # Reading

    def read_current(self, *, reads_all: bool = True) -> tuple[int, State]:
        """Return (number, state) of the confirmed state; (0, empty state) if none was ever confirmed.

        reads_all: without it, lists whose digest is noted are read when they are needed. That needs the
        lock. Raises Unreadable, and InvalidInput if a file was edited by hand and is wrong.
        """

        def read(number: int) -> State:
            return self.read(number, reads_all=reads_all)

        return self._read_current(read, State())

    def read_allowed(self) -> t.Mapping[str, str]:
        """Return the allow lists of the confirmed state, as in `State`, without reading the deny lists."""

        def read(number: int) -> t.Mapping[str, str]:
            return _read_lists(os.path.join(self.root, str(number)), "allow")

        none: t.Mapping[str, str] = {}
        return self._read_current(read, none)[1]

    def _read_current(self, read: t.Callable[[int], Content], none: Content) -> tuple[int, Content]:
        """Return the number of the confirmed state, and what was read of it; 0 and `none` without one."""
        for _attempt in range(_ATTEMPTS):
            number = self._current()
            if number is None:
                return 0, none
            before = self._identity(number)
            try:
                found = read(number)
            except PacketwatchError:
                if self._is_current(number, before):
                    raise
                continue
            if self._is_current(number, before):
                return number, found
        raise Unreadable(
            f"{self.root}/current changed {_ATTEMPTS} times while it was read; try again"
        )

    def read(self, number: int, *, reads_all: bool = True) -> State:
        """Return the state with this number, which must exist. reads_all: as in `read_current`."""
        path = os.path.join(self.root, str(number))
        noted = None if reads_all else Noted(path)
        return State(
            allow=_read_lists(path, "allow", noted),
            deny=_read_lists(path, "deny", noted),
            policy=read_policies(os.path.join(path, "policy.d")),
            interfaces=read_interfaces(os.path.join(path, "interfaces")),
            next=_read_nexts(os.path.join(path, _NEXT)),
            program=_read_optional(os.path.join(path, _PROGRAM)),
            settings=self.read_settings(number),
        )

    def number(self) -> int:
        """Return the number that ``current`` names; 0 if nothing was ever confirmed."""
        return self._current() or 0

    def read_former(self) -> State:
        """Return the state that was confirmed before the current one.

        Raises InvalidInput if it is not kept.
        """
        former = [number for number in self.numbers() if number < self.number()]
        if not former:
            raise InvalidInput(
                f"{self.root} keeps no state that was confirmed before the current one"
            )
        return self.read(max(former))

    def took_back(self) -> int:
        """Return the number of the state that the current one has rolled back; 0 if it is not one."""
        path = os.path.join(self.root, str(self.number()), _TOOK_BACK)
        if not os.path.lexists(path):
            return 0
        text = read_text(path).strip()
        number = read_whole(text, _MAX_NUMBER)
        if number is None:
            raise Unreadable(
                f"{path} holds {text[:_SHOWN]!r}, not a state's number: remove the file"
            )
        return number

    def read_settings(self, number: int) -> str:
        """Return the settings that a state declares; empty if it declares none."""
        return _read_optional(os.path.join(self.root, str(number), _SETTINGS), "replace")

    def has_linked(self, path: str) -> bool:
        """Return whether the settings file is a link to the settings of confirmed state."""
        return os.path.islink(path) and os.readlink(path) == self._settings

    @property
    def _settings(self) -> str:
        return os.path.join(self.root, "current", _SETTINGS)

    def confirmed_at(self) -> float:
        """Return when the current state was confirmed (Unix seconds); 0 if nothing ever was."""
        try:
            return os.lstat(os.path.join(self.root, "current")).st_mtime
        except FileNotFoundError:
            return 0

    def _current(self) -> int | None:
        """Return the number that ``current`` names; None if nothing was ever written."""
        link = os.path.join(self.root, "current")
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            lost = [number for number in self.numbers() if number != 0]
            if lost:
                raise Unreadable(
                    f"{link} is missing although {self.root}/{max(lost)} exists; "
                    f"make it again: ln -s {max(lost)} {link}"
                ) from None
            return None
        except OSError as error:
            raise Unreadable(f"cannot read {link}: {error.strerror}") from error
        if not _is_number(target):
            raise Unreadable(
                f"{link} points to {target!r}, which is not a state's number: point it to the newest "
                "number beside it"
            )
        return int(target)

    def _identity(self, number: int) -> tuple[int, int] | None:
        """Return what identifies a directory: a number is reused after a state was discarded."""
        try:
            status = os.stat(os.path.join(self.root, str(number)))
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _is_current(self, number: int, identity: tuple[int, int] | None) -> bool:
        return self._current() == number and self._identity(number) == identity

    def numbers(self) -> list[int]:
        """Return the numbers of all states: the former, the confirmed and the pending one."""
        try:
            return sorted(int(name) for name in os.listdir(self.root) if _is_number(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unreadable(f"cannot read {self.root}: {error.strerror}") from error

    # Writing; the caller holds the lock

    def write_candidate(self, state: State) -> int:
        """Write a state under the number after the current one; return that number.

        The current state stays confirmed. Unconfirmed states and leftovers of dead writers are deleted.
        """
        lists, files = _lists(state), _files(state)
        with _write_errors(self.root):
            self._clear()
            number = self._current()
            if number is None:
                # Make the link first: from now on a missing link means damage, not a new host.
                number = 0
                if number not in self.numbers():
                    self._write_tree(number, {}, _files(State()))
                self._point_to(number)
                _sync(self.root)
            self._discard_after(number)
            self._write_tree(number + 1, lists, files)
        return number + 1

    def confirm(self, number: int) -> list[str]:
        """Make a written state the confirmed one: the point of no return of a change.

        An error means that the former state is still the confirmed one. Returns what failed after that
        point, in words.
        """
        if number not in self.numbers():
            raise Unreadable(f"{self.root}/{number} does not exist, so it cannot be confirmed")
        with _write_errors(self.root):
            try:
                self._point_to(number)
            except OSError:
                # The link decides, not what the file system reported.
                if self._current() != number:
                    raise
        return failures_of(self._flush)

    def link_settings(self, path: str) -> None:
        """Make the settings file a link to the settings of confirmed state."""
        with _write_errors(self.root):
            draft = os.path.join(os.path.dirname(path), f".new-{os.path.basename(path)}")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            os.symlink(self._settings, draft)
            os.rename(draft, path)

    def withdraw(self) -> None:
        """Remove the candidate; where nothing was ever confirmed, leave nothing behind."""
        number = self._current()
        if number is None:
            return
        with _write_errors(self.root):
            self._clear()
            self._discard_after(number)
            if number == 0:
                os.unlink(os.path.join(self.root, "current"))
                self._discard(0)

    def declare(self, state: State) -> None:
        """Write a state and confirm it; delete all that a failure leaves."""
        try:
            self.confirm(self.write_candidate(state))
        finally:
            with contextlib.suppress(PacketwatchError):
                self.prune()

    def prune(self) -> None:
        """Delete all states except the current one and the one before it."""
        current = self._current()
        if current is None:
            return
        numbers = self.numbers()
        keep = {current, max((number for number in numbers if number < current), default=current)}
        with _write_errors(self.root):
            self._clear()
            for number in numbers:
                if number not in keep:
                    self._discard(number)

    def _clear(self) -> None:
        """Delete unfinished and discarded directories; no other writer uses them, because we hold the lock."""
        for name in os.listdir(self.root):
            if name.startswith(("._new-", "._old-", "._link-")):
                path = os.path.join(self.root, name)
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    _remove_tree(path)

    def _write_tree(self, number: int, lists: dict[str, DropIns], files: dict[str, str]) -> None:
        draft = os.path.join(self.root, f"._new-{number}")
        os.mkdir(draft)
        folders = ["allow.d", "deny.d", "policy.d", *_optional_folders(files)]
        for folder in folders:
            os.mkdir(os.path.join(draft, folder))
        for kind, found in lists.items():
            for name in found:
                found.write(name, os.path.join(draft, file_of(kind, name)))
        for name, text in files.items():
            write_file(os.path.join(draft, name), text, 0o644)
        note_digests(draft, lists)
        for folder in (*folders, "."):
            _publish(os.path.join(draft, folder))
        os.rename(draft, os.path.join(self.root, str(number)))
        _sync(self.root)

    def _discard_after(self, number: int) -> None:
        for candidate in self.numbers():
            if candidate > number:
                self._discard(candidate)

    def _discard(self, number: int) -> None:
        rubbish = os.path.join(self.root, f"._old-{number}")
        os.rename(os.path.join(self.root, str(number)), rubbish)
        _remove_tree(rubbish)

    def _flush(self) -> None:
        """Wait until the disk has the link `current`."""
        try:
            _sync(self.root)
        except OSError as error:
            raise PacketwatchError(
                f"the change is confirmed, but the disk may not have it: {self.root}: {error.strerror}; "
                "check the disk: a loss of power may bring the former state back"
            ) from error

    def _point_to(self, number: int) -> None:
        draft = os.path.join(self.root, f"._link-{number}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        os.symlink(str(number), draft)
        os.rename(draft, os.path.join(self.root, "current"))

    # The lock

    @contextlib.contextmanager
    def lock(self, wait: float) -> t.Iterator[None]:
        """Hold the lock of all writers; raises Locked, which names the holder, after `wait` seconds."""
        lock = Lock(os.path.join(self.root, "lock"))
        with _write_errors(self.root):
            _make_root(self.root)
            lock.acquire(wait)
        try:
            yield
        finally:
            lock.release()


# Content of the files


def _lists(state: State) -> dict[str, DropIns]:
    """Return the drop-ins by kind."""
    for name in (*state.allow, *state.deny):
        check_name(name)
    return {kind: DropIns.of(getattr(state, kind)) for kind in _LISTS}


def _files(state: State) -> dict[str, str]:
    """Return path (below the state's directory) → content of all files but the drop-ins."""
    files = {}
    for name, keys in sorted(state.policy.items()):
        if name != DEFAULT:
            check_interface(name)
        lines = (f"{key}={value}\n" for key, value in keys.items())
        files[f"policy.d/{name}.conf"] = "".join(lines)
    for name, mode in state.interfaces.items():
        check_interface(name)
        _check_mode(mode, "interfaces")
    lines = (
        f"{interface.escape(name, _is_comment)} {mode}\n"
        for name, mode in sorted(state.interfaces.items())
    )
    files["interfaces"] = "".join(lines)
    for name, item in sorted(state.next.items()):
        check_interface(name)
        suffix, text = item.file
        files[f"{_NEXT}/{name}{suffix}"] = text
    if state.program:
        files[_PROGRAM] = state.program
    if state.settings:
        files[_SETTINGS] = state.settings
    if state.took_back:
        files[_TOOK_BACK] = f"{state.took_back}\n"
    return files


def _optional_folders(files: t.Iterable[str]) -> list[str]:
    return [_NEXT] if any(name.startswith(f"{_NEXT}/") for name in files) else []


def _read_lists(folder: str, kind: str, noted: Noted | None = None) -> t.Mapping[str, str]:
    lists: dict[str, str | File] = {}
    for name, path in _members(os.path.join(folder, f"{kind}.d"), ".list"):
        with _located(path):
            check_name(name)
        # A damaged feed must not prevent reading the other lists; it is refused later.
        found = noted.find(file_of(kind, name)) if noted else None
        lists[name] = found or read_text(path, "replace" if is_foreign(name) else "strict")
    return DropIns(lists)


def read_policies(folder: str) -> dict[str, dict[str, str]]:
    """Keys by interface, and by `DEFAULT`, from the files of ``policy.d``."""
    policies = {}
    for name, path in _members(folder, ".conf"):
        with _located(path):
            if name != DEFAULT:
                check_interface(name)
        policies[name] = read_policy(read_text(path), path)
    return policies


def _read_nexts(folder: str) -> dict[str, Next]:
    """Next programs by interface, from the files of ``next.d``."""
    found: dict[str, Next] = {}
    if not os.path.lexists(folder):
        return found
    for name, path in _members(folder, PATH, SOURCE):
        with _located(path):
            check_interface(name)
            if name in found:
                raise InvalidInput(
                    f"{name} has two next programs, {name}{PATH} and {name}{SOURCE}: keep one of them"
                )
            found[name] = read_next(os.path.splitext(path)[1], read_text(path))
    return found


def _read_optional(path: str, errors: str = "strict") -> str:
    return read_text(path, errors) if os.path.lexists(path) else ""


def read_interfaces(path: str) -> dict[str, str]:
    """Wanted mode by interface, from the file ``interfaces``."""
    interfaces: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}:{number}"
        if len(words) != 2:
            raise InvalidInput(
                f"{where}: {line!r} is not of the form NAME MODE: write it so, and # in a name as %23"
            )
        name, mode = interface.unescape(words[0]), words[1]
        with _located(where):
            check_interface(name)
        _check_mode(mode, where)
        if name in interfaces:
            raise InvalidInput(f"{where}: {name} is listed twice; keep one of the lines")
        interfaces[name] = mode
    return interfaces


def _is_comment(letter: str) -> bool:
    return letter == "#"


def _check_mode(mode: str, where: str) -> None:
    if is_dispatcher(mode):
        with _located(where):
            read_place(mode)
    elif mode not in MODES:
        allowed = ", ".join((*MODES, Place().mode()))
        raise InvalidInput(f"{where}: mode is {mode!r}; allowed: {allowed}")


def _members(folder: str, *suffixes: str) -> list[tuple[str, str]]:
    """Return (name without suffix, path) of each file; backups of editors are skipped.

    Raises InvalidInput for any other name: a list that is silently ignored would not protect the host.
    """
    try:
        files = sorted(os.listdir(folder))
    except OSError as error:
        raise Unreadable(f"cannot read {folder}: {error.strerror}") from error
    members = []
    for file in files:
        suffix = next((suffix for suffix in suffixes if file.endswith(suffix)), "")
        if suffix:
            members.append((file.removesuffix(suffix), os.path.join(folder, file)))
        elif not (file.startswith(".") or file.endswith("~")):
            names = " or ".join(f"NAME{suffix}" for suffix in suffixes)
            raise InvalidInput(f"{folder}/{file} would be ignored: name it {names} or remove it")
    return members


# Files and directories


def _is_number(name: str) -> bool:
    number = read_whole(name, _MAX_NUMBER)
    return number is not None and name == str(number)


def _remove_tree(path: str) -> None:
    # Imported here to save memory at boot, which writes nothing.
    import shutil

    shutil.rmtree(path)


def _make_root(root: str) -> None:
    """Make the store's directory, readable for the agent under any umask."""
    try:
        os.mkdir(root)
    except FileExistsError:
        return
    _publish(root)


def _publish(folder: str) -> None:
    """Make a folder readable for all, and flush it to the disk."""
    os.chmod(folder, 0o755)
    _sync(folder)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _write_errors(root: str) -> t.Iterator[None]:
    """Turn an OSError into a PacketwatchError that names the path."""
    try:
        yield
    except OSError as error:
        path = error.filename or root
        text = f"cannot write {path}: {error.strerror}{remedy_of(error)}"
        raise PacketwatchError(text) from error


@contextlib.contextmanager
def _located(where: str) -> t.Iterator[None]:
    """Prefix an InvalidInput with the file, and the line if there is one."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
