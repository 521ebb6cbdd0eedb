# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the gates on the copy of the collection: gates.py BUILD check|test [GATE ...].

A run has phases. In each phase test suites run one by one, with their output on the terminal, and
gates run beside them, whose output is kept: it is shown when a gate fails, or has figures to show.
Scenarios mostly wait, so each runs beside a suite. The first phase that fails is the last one. The
last line sums up, in pytest's form.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages  # type: ignore

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PLUGINS = "ansible_collections.packetwatch.xdp.plugins"
# Progress of ansible-test, and what pip says while it makes its environments.
NOISE = re.compile(
    r"Running sanity test |Collecting |  Downloading |  Using cached |     \S*━|Processing |Looking in |Using cached pip "
    r"|Install(?:ing requirements|ing collected packages|ing build) ?|Successfully installed "
    r"|WARNING: (?:Location |Using locale )"
)
WORKERS = min(os.cpu_count() or 1, 4)
# A file's tests stay together: they share what took long to make. Workers have a thread that listens,
# of which Python warns whoever forks.
QUICK = (
    *("-m", "not slow", "-n", str(WORKERS), "--dist", "loadfile"),
    *("-W", "ignore:This process:DeprecationWarning"),
)


@dataclass(frozen=True)
class Build:
    """The build folder."""

    path: Path

    @property
    def collection(self) -> Path:
        """Where the copy is."""
        return self.path / "ansible_collections" / "packetwatch" / "xdp"

    def cache(self, name: str) -> Path:
        """Where a tool keeps what it wants to find again: not in the copy, which is checked whole."""
        path = self.path / "cache" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def environment(self) -> dict[str, str]:
        """Return the environment in which all gates run."""
        tools = str(Path(sys.executable).parent)
        plain = {} if sys.stdout.isatty() else {"NO_COLOR": "1", "ANSIBLE_NOCOLOR": "true"}
        return (
            os.environ
            | plain
            | {
                "PATH": f"{tools}:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(self.path),
                "ANSIBLE_INJECT_FACT_VARS": "false",
                # The copy lies inside the checkout, but is none: git there would call all of it ignored.
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

    Some tools succeed when they find nothing to look at: those must show evidence of their work,
    or must not say that a part was missing.
    """

    name: str
    command: Sequence[str]
    evidence: str = ""
    refused: re.Pattern[str] | None = None
    undo: Sequence[str] = ()
    """What takes down what the command leaves behind when it is interrupted."""
    shown: bool = False
    """Whether its output is of interest when it succeeds, too."""


@dataclass(frozen=True)
class Suite:
    """A folder of tests that pytest counts, and more options of pytest for them."""

    name: str
    folder: str
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Phase:
    """Suites that run one by one, and the gates beside them, as many at once as there are workers."""

    suites: Sequence[Suite] = ()
    gates: Sequence[Gate] = ()
    workers: int = 1

    def only(self, names: set[str]) -> Phase:
        """Return the part of it that was asked for."""
        suites = [suite for suite in self.suites if suite.name in names]
        gates = [gate for gate in self.gates if gate.name in names]
        return Phase(suites, gates, self.workers if suites else WORKERS)

    @property
    def names(self) -> list[str]:
        """Return the names of all that is in it."""
        return [step.name for step in (*self.suites, *self.gates)]


@dataclass
class Result:
    """What has been counted so far."""

    started: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def add(self, name: str, ok: bool) -> None:
        """Count a gate as one test."""
        self.counts["passed" if ok else "failed"] += 1
        if not ok:
            self.failed.append(name)

    def closing_line(self) -> str:
        """Return the line that a reader of logs looks for."""
        order = ("failed", "passed", "skipped", "xfailed", "error")
        parts = [f"{self.counts[key]} {key}" for key in order if self.counts[key]]
        text = f" {', '.join(parts) or 'no tests ran'} in {time.monotonic() - self.started:.2f}s "
        return text.center(80, "=")


def static_gates(build: Build) -> list[Gate]:
    """Return the gates that read the copy; the one that takes longest comes first."""
    tools = str(ROOT / "tests" / "tools")
    mypy = ("mypy", "--no-error-summary", "--cache-dir")
    artifact = build.cache("artifact")
    folders = sorted(path for path in (build.collection / "plugins").iterdir() if path.is_dir())
    typed = [path.name for path in folders if any(path.rglob("*.py"))]
    packages = [word for name in typed for word in ("-p", f"{PLUGINS}.{name}")]
    return [
        Gate(
            "sanity",
            ("ansible-test", "sanity", "--python", PYTHON, "--color", "no"),
            'Running sanity test "validate-modules"',
        ),
        Gate("ansible-lint", ("ansible-lint", "--nocolor"), "files processed"),
        Gate("types-collection", (*mypy, str(build.cache("mypy")), *packages)),
        Gate("types-agent", (*mypy, str(build.cache("mypy-agent")), "-p", "packetwatch_agent")),
        Gate("ruff", ("ruff", "check", "--quiet", "--output-format", "concise")),
        Gate("format", ("ruff", "format", "--check", "--quiet", "--output-format", "concise")),
        Gate(
            "tree", (sys.executable, f"{tools}/check_tree.py", f"{build.path}/manifest", str(ROOT))
        ),
        Gate("changelog", ("antsibull-changelog", "lint")),
        Gate(
            "artifact",
            ("ansible-galaxy", "collection", "build", "--force", "--output-path", str(artifact)),
        ),
    ]


def scenario(name: str, folder: str, build: Build) -> Gate:
    """Return the gate that runs a scenario of molecule, given by its folder."""
    # Molecule would take one folder for this collection in all checkouts.
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
    """Return all that is to be done."""
    static = static_gates(build)
    unit, kernel = ("unit", "tests/unit"), ("kernel", "tests/kernel")
    if stage == "check":
        return [Phase([Suite(*unit, QUICK), Suite(*kernel, QUICK)], static)]
    return [
        Phase([Suite(*unit)], static, WORKERS),
        Phase([Suite(*kernel)], [scenario("containers", "nspawn", build)]),
        Phase(
            [Suite("integration", "tests/integration")],
            [scenario("virtual-machines", "default", build)],
        ),
    ]


def say(status: str, name: str, seconds: float) -> None:
    """Print one line of progress."""
    print(f"{status:6} {name:20} {seconds:6.1f} s", flush=True)


def prepare(build: Build) -> None:
    """Give mypy the library under its second name, and ansible-test an installer for pip."""
    typing = build.path / "typing"
    typing.mkdir(exist_ok=True)
    link = typing / "packetwatch_core"
    if not link.is_symlink():
        link.symlink_to(build.collection / "plugins" / "module_utils")

    version = get_venv_packages(SimpleNamespace(version=PYTHON))["pip"].replace(".", "_")
    installer = Path("~/.ansible/test/cache").expanduser() / f"get_pip_{version}.py"
    if not installer.exists():
        installer.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "tests" / "tools" / "get_pip.py", installer)


def run_quietly(gate: Gate, build: Build) -> tuple[bool, float, str]:
    """Run a gate and keep its output, which a file in the cache of logs has meanwhile."""
    started = time.monotonic()
    log = build.cache("logs") / f"{gate.name}.log"
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
    ok = done.returncode == 0
    if ok and gate.evidence not in text:
        ok = False
        lines.append(f"{gate.name} has checked nothing: its output lacks {gate.evidence!r}")
    if ok and gate.refused and (missing := gate.refused.search(text)):
        ok = False
        lines.append(f"{gate.name} has left something out: {missing[0]}")
    return ok, time.monotonic() - started, "".join(f"{line}\n" for line in lines)


Started = dict[Future[tuple[bool, float, str]], Gate]


def tell(gates: Started, result: Result) -> None:
    """Wait for gates, and tell how each has ended."""
    for future in as_completed(gates):
        gate = gates[future]
        ok, seconds, output = future.result()
        result.add(gate.name, ok)
        if gate.shown or not ok:
            print(f"------ {gate.name}\n{output.rstrip()}", flush=True)
        say("ok" if ok else "FAILED", gate.name, seconds)


def run_interruptibly(command: Sequence[str], build: Build) -> subprocess.Popen[bytes]:
    """Run a command. If it is interrupted, as we are, it is left the time to take down what it has made."""
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
    """Run a folder's tests and add up what pytest counted."""
    started = time.monotonic()
    report = build.cache("reports") / f"{suite.name}.xml"
    report.unlink(missing_ok=True)
    print(f"------ {suite.name}", flush=True)
    command = (
        "pytest",
        "-q",
        "-o",
        f"cache_dir={build.cache('pytest')}",
        f"--junitxml={report}",
        *suite.options,
        suite.folder,
    )
    done = run_interruptibly(command, build)
    counted = count(report)
    if done.returncode != 0:
        result.failed.append(suite.name)
        if not counted["failed"] and not counted["error"]:
            counted["failed"] += 1
    result.counts += counted
    say("ok" if done.returncode == 0 else "FAILED", suite.name, time.monotonic() - started)


def count(report: Path) -> Counter[str]:
    """Read pytest's counts from its report, if it came as far as writing one."""
    counted: Counter[str] = Counter()
    if report.exists():
        for case in ET.parse(report).iter("testcase"):
            kinds = {child.tag for child in case}
            kind = next(
                (kind for kind in ("failure", "error", "skipped") if kind in kinds), "passed"
            )
            counted["failed" if kind == "failure" else kind] += 1
    return counted


def run_phase(phase: Phase, build: Build, result: Result) -> None:
    """Run suites and gates; what was started is taken down if that is interrupted."""
    with ThreadPoolExecutor(phase.workers) as pool:
        gates: Started = {pool.submit(run_quietly, gate, build): gate for gate in phase.gates}
        try:
            for suite in phase.suites:
                run_suite(suite, build, result)
            tell(gates, result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            for gate in phase.gates:
                if gate.undo:
                    subprocess.run(
                        gate.undo, cwd=build.collection, env=build.environment(), check=False
                    )
            raise


def main() -> int:
    """Run what was asked for, as far as nothing fails."""
    build = Build(Path(sys.argv[1]).absolute())
    stage, only = sys.argv[2], set(sys.argv[3:])
    phases = phases_of(stage, build)
    known = {name for phase in phases for name in phase.names}
    if not only <= known:
        print(f"unknown: {', '.join(sorted(only - known))}; known: {', '.join(sorted(known))}")
        return 2
    if stage == "test":
        # Tests that can be short are long.
        os.environ["PACKETWATCH_FULL"] = "1"

    prepare(build)
    result = Result()
    left = [phase.only(only or known) for phase in phases]
    while left and not result.failed:
        run_phase(left.pop(0), build, result)
    if result.failed:
        if names := [name for phase in left for name in phase.names]:
            print("not run, because of what has failed:", *names)
        print("failed:", *result.failed)
    print(result.closing_line(), flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
