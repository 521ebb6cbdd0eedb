# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the collection importable under the names that it has in use."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "ansible_collections.packetwatch.xdp"
LIBRARY = f"{COLLECTION}.plugins.module_utils"
INSTALLED_LIBRARY = "packetwatch_core"


def provide_package(name: str, path: Path | None) -> None:
    """Define a package without code; its modules are found in the path, if there is one."""
    package = ModuleType(name)
    package.__path__ = [str(path)] if path else []
    sys.modules[name] = package
    parent, _dot, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)


class InstalledLibrary(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packetwatch_core.NAME as the same module that the collection has.

    A second import of the same file would give every class twice, and an exception that was raised
    under one name would not be caught under the other.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find names below the installed library's name."""
        if not fullname.startswith(f"{INSTALLED_LIBRARY}."):
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the collection's module."""
        module = importlib.import_module(spec.name.replace(INSTALLED_LIBRARY, LIBRARY, 1))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module is loaded, and only its spec was overwritten."""
        alias = module.__spec__
        if alias is not None:
            module.__spec__ = alias.loader_state


def has_collection_loader() -> bool:
    """Whether Ansible's own loader finds the collection, as in `ansible-test units`."""
    return any(
        type(finder).__module__.startswith("ansible.utils.collection_loader")
        for finder in sys.meta_path
    )


if has_collection_loader():
    # pytest does not read our pyproject.toml then.
    files = ROOT / "roles/packetwatch/files"
    sys.path[:0] = [str(ROOT / "tests"), str(files / "agent"), str(files / "fleet")]
else:
    provide_package("ansible_collections", None)
    provide_package("ansible_collections.packetwatch", None)
    provide_package(COLLECTION, ROOT)
provide_package(INSTALLED_LIBRARY, None)
sys.meta_path.insert(0, InstalledLibrary())


def pytest_configure(config: pytest.Config) -> None:
    """Define the markers."""
    text = (
        f"slow(seconds={SLOW:.0f}): takes seconds, or waits for them; `make check` leaves it to `make test`, "
        "whose workers begin with the files that take longest by these figures"
    )
    config.addinivalue_line("markers", text)


SLOW, QUICK = 1.0, 0.2  # seconds that a test takes, roughly


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, which gets whole files, put the longest files first: a long one must not be the last."""
    if not hasattr(config, "workerinput"):
        return
    files: dict[Path, float] = defaultdict(float)
    for item in items:
        files[item.path] += seconds_of(item)
    items.sort(key=lambda item: -files[item.path])


def seconds_of(item: pytest.Item) -> float:
    """Return how long a test takes, by its marker."""
    mark = item.get_closest_marker("slow")
    return float(mark.args[0]) if mark and mark.args else SLOW if mark else QUICK


@pytest.fixture(autouse=True)
def _clock_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests run on a machine that has just booted and has no time service.

    The library trusts such a clock only ten minutes after boot, and keeps expired denials until then.
    """
    clock = importlib.import_module(f"{LIBRARY}._base.clock")
    monkeypatch.setattr(clock, "_MAX_WAIT", 0.0)
