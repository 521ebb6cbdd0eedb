# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The fenced blocks of the guides in docs/guides, which tests run as a reader would.

A block's language is followed by its place:

sh controller        commands on the controller, in the folder of the guide
sh host              commands of root on a host
sh elsewhere         commands that no test runs; the test has the reason of each
yaml PATH, ini PATH  a file in the folder of the guide; likewise text PATH
yaml lint            variables that are an example, and are only checked
text                 what the block before prints; ... stands for any text
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GUIDES = Path(__file__).resolve().parents[2] / "docs/guides"
NAMES = sorted(path.stem for path in GUIDES.glob("*.md"))
_RUN = ("controller", "host")
PLACES = (*_RUN, "elsewhere")
_SECONDS = 900.0
# A service may take a moment to do what a play has declared.
_PATIENCE = 20.0
LINT = "lint"
_BLOCK = re.compile(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its guide and line, for messages; its language, its place, its text.

    before: the paragraph above it.
    """

    where: str
    language: str
    place: str
    text: str
    before: str = ""
    output: str = ""
    """What the commands print, if the guide shows it."""


def blocks(name: str) -> list[Block]:
    """Read the blocks of a guide; each block of output belongs to the commands before it."""
    page = (GUIDES / f"{name}.md").read_text()
    found: list[Block] = []
    for match in _BLOCK.finditer(page):
        language, place, text = match.groups()
        where = f"{name}.md:{page.count(chr(10), 0, match.start()) + 1}"
        if language == "text" and not place and found and found[-1].language == "sh":
            found[-1] = found[-1]._replace(output=text)
        else:
            before = page[: match.start()].rstrip().rpartition("\n\n")[2]
            found.append(Block(where, language, place, text, before))
    return found


def differences(block: Block, printed: str) -> list[str]:
    """The lines of a block's output that were not printed. Blanks may differ."""
    text = " ".join(printed.split())
    wanted = [" ".join(line.split()) for line in block.output.splitlines()]
    return [
        line for line in wanted if not re.search(re.escape(line).replace(r"\.\.\.", ".*"), text)
    ]


@dataclass
class Reader:
    """Follows a guide in a folder: writes its files, and runs its commands in bash.

    hosts: variables of the hosts that there are. on_host: the command that runs a text as root on a host.
    other: what is called otherwise here than in guides, such as the number of hosts.
    """

    folder: Path
    hosts: Mapping[str, Mapping[str, object]]
    environment: Mapping[str, str]
    on_host: Callable[[str], Sequence[str]]
    other: Mapping[str, str]
    _here: Path = field(init=False)

    def __post_init__(self) -> None:
        """Begin in the folder."""
        self._here = self.folder

    def follow(self, block: Block) -> None:
        """Follow one block. Raises LabError if a command fails, or prints something else than shown."""
        text, output = self._translate(block.text), self._translate(block.output)
        if block.language == "sh":
            if block.place in _RUN:
                self._run(block, text, output)
        elif block.place == LINT:
            self._lint(block, text)
        elif block.place:
            path = self._here / block.place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _run(self, block: Block, text: str, output: str) -> None:
        if block.place == "controller":
            # The next block goes on in the folder in which this one ends.
            place = self.folder / ".place"
            argv: Sequence[str] = _bash(f"{text}\npwd >{place}")
            self._connect(self._here)
            printed = self._output(block, argv, self._here)
            self._here = Path(place.read_text().strip())
        else:
            printed = self._look(block, text, output)
        if missing := differences(block._replace(output=output), printed):
            raise LabError(f"{block.where}: does not print {missing}\n{printed}")

    def _look(self, block: Block, text: str, output: str) -> str:
        """Run commands on a host, and again if they do not print at once what the guide shows."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            printed = self._output(block, self.on_host(text), self.folder)
            is_shown = not differences(block._replace(output=output), printed)
            if is_shown or time.monotonic() > deadline:
                return printed
            time.sleep(1.0)

    def _lint(self, block: Block, text: str) -> None:
        """Check variables, as those of a group."""
        inventory = self.folder / f"line-{block.where.rpartition(':')[2]}/inventory"
        (inventory / "group_vars").mkdir(parents=True)
        (inventory / "group_vars/packetwatch.yml").write_text(text)
        (inventory / "hosts.yml").write_text("packetwatch: {hosts: {web1.example.net: }}\n")
        argv = ("ansible-playbook", "-i", str(inventory), "packetwatch.xdp.lint")
        self._output(block, argv, self.folder)

    def _output(self, block: Block, argv: Sequence[str], folder: Path) -> str:
        done = subprocess.run(
            argv,
            cwd=folder,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if done.returncode != 0:
            raise LabError(f"{block.where}: status {done.returncode}\n{block.text}\n{done.stdout}")
        return done.stdout

    def _connect(self, folder: Path) -> None:
        """Add the variables of the hosts to the reader's inventory."""
        if (folder / "inventory").is_dir():
            text = json.dumps({"all": {"hosts": self.hosts}})
            (folder / "inventory/zz-lab.json").write_text(text)

    def _translate(self, text: str) -> str:
        for word, here in self.other.items():
            text = text.replace(word, here)
        return text


def _bash(text: str) -> list[str]:
    return ["bash", "-eo", "pipefail", "-c", text]
