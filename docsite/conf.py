# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sphinx's settings. build.py lays out the folder of sources as the repository is laid out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

REPOSITORY = "https://github.com/packetwatch/packetwatch.xdp"
# Pages that stand for a folder: the pages below them, which the repository shows by itself.
BELOW = {"docs/decisions/README": "0*"}
# Pages of Ansible's own documentation that the modules' pages refer to.
ANSIBLE = "https://docs.ansible.com/ansible/latest"
LABELS = {
    "action_plugins": f"{ANSIBLE}/plugins/action.html",
    "common_return_values": f"{ANSIBLE}/reference_appendices/common_return_values.html",
}

project = "Packetwatch"
author = "Packetwatch authors"
project_copyright = "2026, Packetwatch authors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
# The modules' pages come with links to them that are not in a table of contents.
exclude_patterns = ["modules/environment_variables.rst"]
# Anchors of headings are those of the repository's site.
myst_heading_anchors = 4
nitpicky = True
pygments_style = "friendly"
pygments_dark_style = "native"

html_theme = "furo"
html_title = "Packetwatch"
html_static_path = ["static"]
# That of the page of a fleet.
html_favicon = "../roles/fleet_node/files/api/packetwatch_api/page/icon.svg"
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
antsibull_ext_color_scheme = "none"


# What antsibull-docs writes, and what this site has instead. The theme shows the contents of a page beside it.
WRITTEN = {
    r"\.\. contents::\n(?: +:.*\n)+": "",
    r"^Packetwatch\.Xdp\n=+$": "Modules and roles\n=================",
    r"^    (\w+)_module$": r"    \1 <\1_module>",
    r"^    (\w+)_role$": r"    The role \1 <\1_role>",
}


def lead_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Let the full links of the READMEs lead to pages of this site, and list the pages of a folder."""

    def page(link: re.Match[str]) -> str:
        return f"(/{link[1]}" if (Path(app.srcdir) / link[1]).is_file() else link[0]

    source[0] = re.sub(rf"\({re.escape(REPOSITORY)}/blob/main/([^)#]+)", page, source[0])
    if name in BELOW:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{BELOW[name]}\n```\n"


def tidy_modules(_app: Sphinx, name: str, source: list[str]) -> None:
    """Change what antsibull-docs has written."""
    if name.startswith("modules/"):
        for pattern, text in WRITTEN.items():
            source[0] = re.sub(pattern, text, source[0], flags=re.MULTILINE)


def lead_to_ansible(
    _app: Sphinx, _environment: BuildEnvironment, wanted: pending_xref, text: nodes.Element
) -> nodes.reference | None:
    """Resolve the labels of Ansible's documentation. Its inventory of labels would need a network."""
    address = LABELS.get(wanted["reftarget"])
    return address and nodes.reference("", "", text, internal=False, refuri=address)


def setup(app: Sphinx) -> None:
    """Register the functions above."""
    app.connect("source-read", lead_to_pages)
    app.connect("source-read", tidy_modules)
    app.connect("missing-reference", lead_to_ansible)
