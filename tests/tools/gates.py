# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the gates on the copy of the collection: gates.py BUILD check|test [GATE ...].

A run has phases. In each phase, test suites run one by one, with their output on the terminal. Gates run
in parallel to them; their output is kept, and shown if a gate fails or has figures to show. Scenarios
mostly wait, so each runs in parallel to a suite. A phase that fails is the last one. The last line is a
summary in pytest's form.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import core
import pip_for_tests
from ansible import __version__

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PLUGINS = "ansible_collections.packetwatch.xdp.plugins"
# Progress of ansible-test, and output of pip while ansible-test makes its environments.
NOISE = re.compile(
    r"Running sanity test |Collecting |  Downloading |  Using cached |     \S*━|Processing |Looking in |Using cached pip "
    r"|Install(?:ing requirements|ing collected packages|ing build) ?|Successfully installed "
    r"|WARNING: (?:Location |Using locale )"
)
# The status of a command that cannot run on this machine.
SKIPPED = 77
SHOWN = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
WORKERS = min(os.cpu_count() or 1, 4)
# The tests of a file run in one worker, because they share fixtures that take long to make. conftest.py orders
# the files. Workers have a second thread, so Python warns when they fork.
SPREAD = (
    *("-n", str(WORKERS), "--dist", "loadfile", "--no-loadscope-reorder"),
    *("-W", "ignore:This process:DeprecationWarning"),
)
QUICK = ("-m", "not slow", *SPREAD)


@dataclass(frozen=True)
class Build:
    """The build folder."""

    path: Path

    @property
    def collection(self) -> Path:
        """The folder of the collection's copy."""
        return self.path / "ansible_collections" / "packetwatch" / "xdp"

    def cache(self, name: str) -> Path:
        """A tool's cache folder. It is not in the copy, because gates check all files of the copy."""
        path = self.path / "cache" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def environment(self) -> dict[str, str]:
        """The environment variables of all gates."""
        tools = str(Path(sys.executable).parent)
        plain = {} if sys.stdout.isatty() else {"NO_COLOR": "1", "ANSIBLE_NOCOLOR": "true"}
        return (
            os.environ
            | plain
            | {
                "PATH": f"{tools}:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(self.path),
                "ANSIBLE_INJECT_FACT_VARS": "false",
                # The copy is inside the checkout, where git ignores all of it. So tools must not use git.
                "ANSIBLE_TEST_CONTENT_ROOT": str(self.collection),
                "GIT_CEILING_DIRECTORIES": str(self.collection.parent),
                "HYPOTHESIS_STORAGE_DIRECTORY": str(self.cache("hypothesis")),
                "PYTHONPATH": f"{self.collection}/tests",
                "PYTHONPYCACHEPREFIX": str(self.cache("bytecode")),
                "RUFF_CACHE_DIR": str(self.cache("ruff")),
            }
        )


@dataclass(frozen=True)
class Gate:
    """A command that passes or fails as a whole.

    Some tools succeed if they find nothing to check. Their output must contain `evidence` of their work,
    and must not match `refused`, which reports a missing part.
    """

    name: str
    command: Sequence[str]
    evidence: str = ""
    refused: re.Pattern[str] | None = None
    undo: Sequence[str] = ()
    """The command that removes what this one leaves if it is interrupted."""
    shown: bool = False
    """Whether its output is shown also if it succeeds."""
    counts: Path | None = None
    """Where pytest writes its report in XML. Without one, the gate counts as one test."""


@dataclass(frozen=True)
class Suite:
    """A folder of tests for pytest, with further options of pytest."""

    name: str
    folder: str
    options: Sequence[str] = ()

    def counts(self, build: Build) -> Path:
        """Where pytest writes its report."""
        return build.cache("reports") / f"{self.name}.xml"

    def command(self, build: Build) -> Sequence[str]:
        """The command that runs the tests."""
        report = f"--junitxml={self.counts(build)}"
        return ("pytest", "-q", "-p", "no:cacheprovider", report, *self.options, self.folder)

    def beside(self, build: Build) -> Gate:
        """The gate that runs the tests in parallel to another suite."""
        return Gate(self.name, self.command(build), counts=self.counts(build))


@dataclass(frozen=True)
class Phase:
    """Suites that run one by one, and gates that run in parallel to them. workers: gates at a time."""

    suites: Sequence[Suite] = ()
    gates: Sequence[Gate] = ()
    workers: int = 1

    def only(self, names: set[str]) -> Phase:
        """The part of the phase with these names."""
        suites = [suite for suite in self.suites if suite.name in names]
        gates = [gate for gate in self.gates if gate.name in names]
        return Phase(suites, gates, self.workers if suites else WORKERS)

    @property
    def names(self) -> list[str]:
        """The names of all suites and gates."""
        return [*(suite.name for suite in self.suites), *(gate.name for gate in self.gates)]


@dataclass
class Result:
    """The counts of a run."""

    started: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def add(self, name: str, status: str, report: Path | None = None) -> None:
        """Count a gate as one test, or each test of pytest's report."""
        counted = count(report) if report else Counter({status: 1})
        if status == "failed":
            self.failed.append(name)
            if not counted["failed"] and not counted["error"]:
                counted["failed"] += 1
        self.counts += counted

    def closing_line(self) -> str:
        """The summary in pytest's form, which log readers search for."""
        order = ("failed", "passed", "skipped", "xfailed", "error")
        parts = [f"{self.counts[key]} {key}" for key in order if self.counts[key]]
        text = f" {', '.join(parts) or 'no tests ran'} in {time.monotonic() - self.started:.2f}s "
        return text.center(80, "=")


def shell_scripts(build: Build) -> list[str]:
    """The paths of all shell scripts in the copy, by their names and first lines."""
    found = []
    for name in (build.path / "manifest").read_text().splitlines():
        with (build.collection / name).open("rb") as file:
            if name.endswith(".bash") or re.match(rb"#!.*\b(?:ba)?sh\b", file.readline()):
                found.append(name)
    return found


def c_sources(build: Build) -> list[str]:
    """The paths of all C files in the copy that are not links."""
    names = (build.path / "manifest").read_text().splitlines()
    paths = [name for name in names if name.endswith((".c", ".h"))]
    return [name for name in paths if not (build.collection / name).is_symlink()]


def static_gates(build: Build, sanity: Sequence[str] = ()) -> list[Gate]:
    """The gates that only read the copy; the longest one comes first. sanity: further options of it."""
    tools = str(ROOT / "tests" / "tools")
    mypy = ("mypy", "--no-error-summary", "--cache-dir")
    artifact = build.cache("artifact")
    folders = sorted(path for path in (build.collection / "plugins").iterdir() if path.is_dir())
    typed = [path.name for path in folders if any(path.rglob("*.py"))]
    packages = [word for name in typed for word in ("-p", f"{PLUGINS}.{name}")]
    return [
        Gate(
            "sanity",
            (*core.sanity(PYTHON), *sanity),
            'Running sanity test "validate-modules"',
        ),
        Gate("ansible-lint", ("ansible-lint", "--nocolor"), "files processed"),
        Gate("types-collection", (*mypy, str(build.cache("mypy")), *packages)),
        Gate(
            "types-agent",
            (
                *(*mypy, str(build.cache("mypy-agent"))),
                *(
                    "-p",
                    "packetwatch_agent",
                    "-p",
                    "packetwatch_fleet",
                    "-p",
                    "packetwatch_enforcer",
                    "-p",
                    "packetwatch_api",
                ),
            ),
        ),
        Gate("ruff", ("ruff", "check", "--quiet", "--output-format", "concise")),
        Gate("format", ("ruff", "format", "--check", "--quiet", "--output-format", "concise")),
        Gate(
            "tree", (sys.executable, f"{tools}/check_tree.py", f"{build.path}/manifest", str(ROOT))
        ),
        Gate("changelog", ("antsibull-changelog", "lint")),
        # git knows which files of the checkout are part of it.
        Gate("licences", ("reuse", "--root", str(ROOT), "lint"), "compliant with version"),
        Gate("spelling", ("codespell", ".")),
        Gate("c-format", ("clang-format", "--dry-run", "--Werror", *c_sources(build))),
        Gate("shell", ("shellcheck", *shell_scripts(build))),
        Gate("artifact", (sys.executable, f"{tools}/artifact.py", str(artifact))),
    ]


def slow_gates(build: Build) -> list[Gate]:
    """The gates that take long, and that seldom fail if the others pass."""
    release = str(ROOT / "tests" / "tools" / "release.py")
    tests = ("mypy", "--no-error-summary", "--python-version", PYTHON, "--cache-dir")
    paths = f"MYPYPATH={build.collection}/tests:{build.collection}/tests/tools"
    return [
        Gate(
            "types-tests",
            (
                *("env", paths, *tests, str(build.cache("mypy-tests"))),
                *("tests/unit", "tests/kernel", "tests/fleet", "tests/lab", "tests/bench"),
                *("tests/tools", "tests/conftest.py", "molecule", "examples/import_lists.py"),
                "extensions/eda/plugins/event_source",
            ),
        ),
        # The fleet's tests would download them in the middle of other tests.
        Gate("servers", (sys.executable, "-m", "fleet.software"), "trees are unpacked"),
        # Its files import each other by longer names than other tests, as pytest does.
        Gate(
            "types-integration",
            (*tests, str(build.cache("mypy-integration")), "tests/integration"),
        ),
        Gate(
            "docs",
            (
                *("antsibull-docs", "lint-collection-docs", "--plugin-docs"),
                *("--validate-collection-refs", "all", "."),
            ),
        ),
        Gate(
            "site",
            (f"{build.path}/docs-venv/bin/python", f"{ROOT}/docsite/build.py", str(build.path)),
            "all of its own links lead somewhere",
        ),
        Gate("release", (sys.executable, release, f"{build.path}/manifest"), "Importer: passed"),
        Gate(
            "units",
            (
                *("ansible-test", "units", "--python", PYTHON, "--color", "no"),
                *("--requirements-mode", "skip", "--num-workers", "1", "tests/unit/plugins/"),
            ),
            " passed in ",
        ),
    ]


def core_gates(build: Build) -> list[Gate]:
    """The gates of all versions of ansible-core but the controller's."""
    script = str(ROOT / "tests" / "tools" / "core.py")
    return [
        Gate(f"core-{version}", (sys.executable, script, str(build.path), version), " passed in ")
        for version in core.CORES
        if not __version__.startswith(f"{version}.")
    ]


# It takes its lab down also if it is interrupted.
GUIDES = Gate(
    "guides", (sys.executable, "-m", "lab.follow", "--kind", "nspawn"), "upgrade: done after"
)


def scenario(name: str, folder: str, build: Build) -> Gate:
    """The gate that runs a scenario of molecule, given by its folder."""
    # By default, molecule uses the same folder for this collection in all checkouts.
    own = f"MOLECULE_EPHEMERAL_DIRECTORY={build.cache('molecule')}/{folder}"
    molecule = ("env", own, "molecule", "-c", "molecule/config.yml")
    return Gate(
        name,
        (*molecule, "test", "--scenario-name", folder),
        refused=re.compile(r"Missing playbook|no tests found", re.IGNORECASE),
        undo=(*molecule, "destroy", "--scenario-name", folder),
        shown=True,
    )


def phases_of(stage: str, build: Build) -> list[Phase]:
    """All phases of a stage."""
    unit, kernel = ("unit", "tests/unit"), ("kernel", "tests/kernel")
    if stage == "check":
        # The tests are half of all Python code; ruff has read them.
        static = static_gates(build, ("--exclude", "tests/"))
        return [Phase([Suite(*unit, QUICK), Suite(*kernel, QUICK)], static)]
    return [
        Phase(
            [Suite(*unit)],
            static_gates(build) + slow_gates(build) + core_gates(build),
            WORKERS,
        ),
        Phase(
            [Suite(*kernel, SPREAD)],
            [
                scenario("containers", "nspawn", build),
                Suite("fleet", "tests/fleet", SPREAD).beside(build),
                GUIDES,
            ],
        ),
        Phase(
            [Suite("integration", "tests/integration", SPREAD)],
            [scenario("virtual-machines", "default", build)],
        ),
    ]


def say(status: str, name: str, seconds: float) -> None:
    """Print one line of progress."""
    print(f"{SHOWN[status]:7} {name:20} {seconds:6.1f} s", flush=True)


def prepare(build: Build) -> None:
    """Give mypy the library under its second name, and ansible-test what it needs."""
    typing = build.path / "typing"
    typing.mkdir(exist_ok=True)
    link = typing / "packetwatch_core"
    if not link.is_symlink():
        link.symlink_to(build.collection / "plugins" / "module_utils")
    pip_for_tests.provide()


class Done(NamedTuple):
    """What a gate did. status: passed, failed or skipped. output: without noise."""

    status: str
    seconds: float
    output: str


def run_quietly(gate: Gate, build: Build) -> Done:
    """Run a gate, with its output in a log file."""
    started = time.monotonic()
    log = build.cache("logs") / f"{gate.name}.log"
    if gate.counts:
        gate.counts.unlink(missing_ok=True)
    with log.open("w") as output:
        done = subprocess.run(
            gate.command,
            cwd=build.collection,
            env=build.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    text = log.read_text(errors="replace")
    lines = [line for line in text.splitlines() if not NOISE.match(line)]
    status = {0: "passed", SKIPPED: "skipped"}.get(done.returncode, "failed")
    if status == "passed" and gate.evidence not in text:
        status = "failed"
        lines.append(
            f"{gate.name} has checked nothing: its output does not contain {gate.evidence!r}"
        )
    if status == "passed" and gate.refused and (missing := gate.refused.search(text)):
        status = "failed"
        lines.append(f"{gate.name} has left something out: {missing[0]}")
    return Done(status, time.monotonic() - started, "".join(f"{line}\n" for line in lines))


Started = dict[Future[Done], Gate]


def report(gates: Started, result: Result) -> None:
    """Wait for gates, and report the result of each."""
    for future in as_completed(gates):
        gate = gates[future]
        done = future.result()
        result.add(gate.name, done.status, gate.counts)
        if gate.shown or done.status != "passed":
            print(f"------ {gate.name}\n{done.output.rstrip()}", flush=True)
        say(done.status, gate.name, done.seconds)


def run_interruptibly(command: Sequence[str], build: Build) -> subprocess.Popen[bytes]:
    """Run a command. If it is interrupted together with this process, wait until it has cleaned up."""
    process = subprocess.Popen(
        command, cwd=build.collection, env=build.environment(), stdin=subprocess.DEVNULL
    )
    with process:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
    return process


def run_suite(suite: Suite, build: Build, result: Result) -> None:
    """Run a folder's tests and add pytest's counts to the result."""
    started = time.monotonic()
    suite.counts(build).unlink(missing_ok=True)
    print(f"------ {suite.name}", flush=True)
    done = run_interruptibly(suite.command(build), build)
    status = "failed" if done.returncode else "passed"
    result.add(suite.name, status, suite.counts(build))
    say(status, suite.name, time.monotonic() - started)


def count(path: Path) -> Counter[str]:
    """Read pytest's counts from its XML report, if it has written one."""
    counted: Counter[str] = Counter()
    if path.exists():
        for case in ET.parse(path).iter("testcase"):
            kinds = {child.tag for child in case}
            kind = next(
                (kind for kind in ("failure", "error", "skipped") if kind in kinds), "passed"
            )
            counted["failed" if kind == "failure" else kind] += 1
    return counted


def run_phase(phase: Phase, build: Build, result: Result) -> None:
    """Run suites and gates; if this is interrupted, undo what the gates have started."""
    with ThreadPoolExecutor(phase.workers) as pool:
        gates: Started = {pool.submit(run_quietly, gate, build): gate for gate in phase.gates}
        try:
            for suite in phase.suites:
                run_suite(suite, build, result)
            report(gates, result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            for gate in phase.gates:
                if gate.undo:
                    subprocess.run(
                        gate.undo, cwd=build.collection, env=build.environment(), check=False
                    )
            raise


def main() -> int:
    """Run the phases until one fails; return the exit status."""
    build = Build(Path(sys.argv[1]).absolute())
    stage, only = sys.argv[2], set(sys.argv[3:])
    phases = phases_of(stage, build)
    known = {name for phase in phases for name in phase.names}
    if not only <= known:
        print(
            f"unknown gates: {', '.join(sorted(only - known))}; choose from {', '.join(sorted(known))}"
        )
        return 2
    if stage == "test":
        # Tests that have a short form run in full length.
        os.environ["PACKETWATCH_FULL"] = "1"

    prepare(build)
    result = Result()
    left = [phase.only(only or known) for phase in phases]
    while left and not result.failed:
        run_phase(left.pop(0), build, result)
    if result.failed:
        if names := [name for phase in left for name in phase.names]:
            print("not run, because a phase has failed:", *names)
        print("failed:", *result.failed)
    print(result.closing_line(), flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
