# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Give ansible-test an installer for pip: run by a Python that has ansible-core."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages  # type: ignore


def provide() -> None:
    """Put the installer where ansible-test searches for it before it downloads one."""
    asked = SimpleNamespace(version=f"{sys.version_info.major}.{sys.version_info.minor}")
    version = get_venv_packages(asked)["pip"].replace(".", "_")
    installer = Path("~/.ansible/test/cache").expanduser() / f"get_pip_{version}.py"
    if not installer.exists():
        installer.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(__file__).with_name("get_pip.py"), installer)


if __name__ == "__main__":
    provide()
