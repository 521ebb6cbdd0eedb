# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write what a tarball of the collection contains and needs as SPDX 2.3 in JSON."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

COLLECTION, DOCUMENT = "SPDXRef-Collection", "SPDXRef-DOCUMENT"


def file_entry(path: Path, name: str, licences: dict[str, Any], number: int) -> dict[str, Any]:
    """A file, with its licences as reuse has found them."""
    content = path.read_bytes()
    found = licences.get(name, {})
    expressions = [item["value"] for item in found.get("spdx_expressions", [])]
    notices = [
        item["value"].removeprefix("SPDX-FileCopyrightText: ")
        for item in found.get("copyrights", [])
    ]
    return {
        "SPDXID": f"SPDXRef-File-{number}",
        "fileName": f"./{name}",
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": hashlib.sha1(content).hexdigest()},
            {"algorithm": "SHA256", "checksumValue": hashlib.sha256(content).hexdigest()},
        ],
        "licenseConcluded": " AND ".join(f"({text})" for text in sorted(expressions))
        or "NOASSERTION",
        "licenseInfoInFiles": sorted(
            {
                word
                for text in expressions
                for word in text.replace("(", " ").replace(")", " ").split()
            }
            - {"AND", "OR", "WITH"}
        )
        or ["NOASSERTION"],
        "copyrightText": "\n".join(sorted(notices)) or "NOASSERTION",
    }


def needed(number: int, kind: str, name: str) -> dict[str, Any]:
    """A package that is not in the tarball; kind: of its package URL."""
    return {
        "SPDXID": f"SPDXRef-Needed-{number}",
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:{kind}/{name}",
            }
        ],
    }


def write(installed: Path, tarball: Path, time: int) -> Path:
    """Write the document of an installed tarball beside it; return its path."""
    info = json.loads((installed / "MANIFEST.json").read_text())["collection_info"]
    lint = subprocess.run(
        ["reuse", "--root", str(installed), "lint", "--json"],
        stdout=subprocess.PIPE,
        # The two files that ansible-galaxy makes have no licence, which reuse calls a failure.
        check=False,
    )
    licences = {item["path"]: item for item in json.loads(lint.stdout)["files"]}
    names = sorted(
        path.relative_to(installed).as_posix()
        for path in installed.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    entries = [
        file_entry(installed / name, name, licences, number) for number, name in enumerate(names)
    ]
    sums = sorted(entry["checksums"][0]["checksumValue"] for entry in entries)
    packages = yaml.safe_load((installed / "roles/packetwatch/vars/main.yml").read_text())
    others = [
        needed(0, "pypi", "ansible-core"),
        *(
            needed(number, "deb/debian", name)
            for number, name in enumerate(packages["_packetwatch_packages"], 1)
        ),
    ]
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    collection = {
        "SPDXID": COLLECTION,
        "name": f"{info['namespace']}.{info['name']}",
        "versionInfo": info["version"],
        "packageFileName": tarball.name,
        "downloadLocation": info["repository"],
        "filesAnalyzed": True,
        "packageVerificationCode": {
            "packageVerificationCodeValue": hashlib.sha1("".join(sums).encode()).hexdigest()
        },
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": " AND ".join(info["license"]),
        "licenseInfoFromFiles": sorted(
            {name for entry in entries for name in entry["licenseInfoInFiles"]}
        ),
        "copyrightText": "\n".join(
            sorted({entry["copyrightText"] for entry in entries} - {"NOASSERTION"})
        ),
    }
    relations = [(DOCUMENT, "DESCRIBES", COLLECTION)]
    relations += [(COLLECTION, "CONTAINS", entry["SPDXID"]) for entry in entries]
    relations += [(COLLECTION, "DEPENDS_ON", other["SPDXID"]) for other in others]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": tarball.name,
        "documentNamespace": f"{info['repository']}/spdx/{digest}",
        "creationInfo": {
            "created": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Organization: {info['authors'][0]}", "Tool: sbom.py"],
        },
        "packages": [collection, *others],
        "files": entries,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }
    path = tarball.with_name(tarball.name.replace(".tar.gz", ".spdx.json"))
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
