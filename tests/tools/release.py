# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a release, or rehearse one, in the collection's folder: release.py MANIFEST [FOLDER].

All of it happens in a copy. With a folder, the tarball, its digest, its SBOM and the changelog are put there.
Without one, the release is rehearsed with the version that follows its candidates, such as 1.0.0, because
certified collections must have at least that.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import artifact
import installed
import sbom
import yaml
from installed import run

ROOT = Path(__file__).resolve().parents[2]
# What the importer logs if it would accept the collection with a complaint.
COMPLAINT = re.compile(r"^(?:WARNING|ERROR).*", re.M)
# It gives ansible-lint three minutes, which a machine with other work may not have at first.
ATTEMPTS = 3
# The first release has no versions before it, whose users these sections are for.
LATER = ("breaking_changes", "bugfixes", "deprecated_features", "removed_features")


def files(folder: Path) -> set[str]:
    """The paths of all files in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def committed(form: str) -> str:
    """When the last commit was made, in a form of git."""
    safe = ("git", "-c", f"safe.directory={ROOT}", "log", "-1", f"--format={form}")
    return run(*safe, folder=ROOT).strip()


def copy_files(source: Path, names: list[str], copy: Path) -> None:
    """Copy files in the given order."""
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, copy / name, follow_symlinks=False)


def set_version(copy: Path, final: bool) -> str:
    """Return the version; final: make it that which follows the candidates."""
    metadata = copy / "galaxy.yml"
    text = metadata.read_text()
    version = str(yaml.safe_load(text)["version"])
    if final:
        text, version = (
            text.replace(f"version: {version}", f"version: {version.partition('-')[0]}"),
            version.partition("-")[0],
        )
        metadata.write_text(text)
    return version


def write_changelog(copy: Path, version: str) -> None:
    """Turn the fragments into the changelog of the version, unless it has it."""
    record = copy / "changelogs/changelog.yaml"
    if version not in yaml.safe_load(record.read_text())["releases"]:
        # The tool asks git for the files of the collection.
        run("git", "init", "--quiet", folder=copy)
        run("git", "add", "--all", folder=copy)
        before = files(copy)
        day = committed("%cs")
        run("antsibull-changelog", "release", "--version", version, "--date", day, folder=copy)
        made = {"CHANGELOG.md", "changelogs/.plugin-cache.yaml"}
        if (new := files(copy) - before) - made:
            sys.exit(f"the release made {sorted(new)} instead of {sorted(made)}")
        run("git", "check-ignore", "changelogs/.plugin-cache.yaml", folder=copy)
        # What git keeps is no part of the collection.
        shutil.rmtree(copy / ".git")
    elif left := [path.name for path in (copy / "changelogs/fragments").glob("*.yml")]:
        sys.exit(f"{version} is in the changelog without the fragments {left}: raise the version")
    if f'id="v{version.replace(".", "-")}"' not in (copy / "CHANGELOG.md").read_text():
        sys.exit(f"CHANGELOG.md does not name version {version}")
    run("reuse", "lint-file", "CHANGELOG.md", "changelogs/changelog.yaml", folder=copy)
    releases = yaml.safe_load(record.read_text())["releases"]
    if set(releases) == {version}:
        for section in LATER:
            if found := releases[version].get("changes", {}).get(section):
                sys.exit(f"{section} in the first release, where nothing was before it: {found[0]}")


def import_it(tarball: Path, folder: Path, final: bool) -> None:
    """Import the tarball as Galaxy and Automation Hub do; only Galaxy takes candidates of 1.0.0."""
    text = Path(__file__).with_name("galaxy-importer.cfg").read_text()
    config = folder / "importer.cfg"
    config.write_text(text if final else text.replace("require_v1_or_greater = True", ""))
    importer = (sys.executable, "-m", "galaxy_importer.main", str(tarball))
    complaints: list[str] = []
    for _attempt in range(ATTEMPTS):
        log = run(*importer, folder=folder, GALAXY_IMPORTER_CONFIG=str(config))
        complaints = COMPLAINT.findall(log)
        if not any("Timeout" in line for line in complaints):
            break
    if complaints:
        sys.exit("the importer complains:\n" + "\n".join(complaints))
    print("Importer: passed")


def main() -> None:
    """Make the release in a temporary folder."""
    source, names = Path.cwd(), Path(sys.argv[1]).read_text().splitlines()
    output = Path(sys.argv[2]) if sys.argv[2:] else None
    time = int(committed("%ct"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = folder / "ansible_collections/packetwatch/xdp"
        copy_files(source, names, copy)
        version = set_version(copy, final=output is None)
        write_changelog(copy, version)
        tarball = artifact.build(copy, folder / "built", time)
        again = folder / "again/ansible_collections/packetwatch/xdp"
        copy_files(copy, sorted(files(copy), reverse=True), again)
        digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
        if artifact.build(again, folder / "built-again", time).read_bytes() != tarball.read_bytes():
            sys.exit("two builds of the same files differ")
        if found := list(artifact.problems(copy, tarball)):
            sys.exit("\n".join(found))
        users = folder / "installed"
        installed.use(tarball, users, copy)
        import_it(tarball, folder, final="-" not in version)
        document = sbom.write(users / "ansible_collections/packetwatch/xdp", tarball, time)
        if output is None:
            print(f"Version {version} could be released")
            return
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        for path in (tarball, document, copy / "CHANGELOG.md"):
            shutil.copy2(path, output)
        (output / f"{tarball.name}.sha256").write_text(f"{digest}  {tarball.name}\n")
        with tarfile.open(tarball) as archive:
            print(*archive.getnames(), sep="\n")
        print(f"Version {version}: {output}\n{digest}  {tarball.name}")


if __name__ == "__main__":
    main()
