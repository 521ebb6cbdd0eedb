# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the gates on the copy of the collection: gates.py BUILD check|test [GATE ...].

Gates that only read show their output only when they fail. Test suites run one by one, with their
output on the terminal: for `check` on all processors, without what is slow and beside the gates; for
`test` whole, and undisturbed, after the gates. The last line sums up, in pytest's form.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


@dataclass(frozen=True)
class Suite:
    """A folder of tests that pytest counts; it may be left out if nothing is in it."""

    name: str
    folder: str
    optional: bool = False


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


MOLECULE = ("molecule", "-c", "molecule/config.yml")
SUITES = (Suite("unit", "tests/unit"), Suite("kernel", "tests/kernel"))
SLOW: tuple[Gate | Suite, ...] = (
    Gate(
        "molecule",
        (*MOLECULE, "test", "--all"),
        refused=re.compile(r"Missing playbook|no tests found", re.IGNORECASE),
        undo=(*MOLECULE, "destroy", "--all"),
    ),
    Suite("integration", "tests/integration", optional=True),
)


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
    """Run a gate and keep its output."""
    started = time.monotonic()
    done = subprocess.run(
        gate.command,
        cwd=build.collection,
        env=build.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if not NOISE.match(line)]
    ok = done.returncode == 0
    if ok and gate.evidence not in done.stdout:
        ok = False
        lines.append(f"{gate.name} has checked nothing: its output lacks {gate.evidence!r}")
    return ok, time.monotonic() - started, "".join(f"{line}\n" for line in lines)


Started = dict[Future[tuple[bool, float, str]], Gate]


def tell(gates: Started, build: Build, result: Result) -> None:
    """Wait for gates, and tell how each has ended."""
    logs = build.cache("logs")
    for future in as_completed(gates):
        name = gates[future].name
        ok, seconds, output = future.result()
        (logs / f"{name}.log").write_text(output)
        result.add(name, ok)
        say("ok" if ok else "FAILED", name, seconds)
        if not ok:
            print(output.rstrip(), flush=True)


@contextmanager
def running(
    command: Sequence[str], build: Build, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run a command. If it is interrupted, as we are, it is left the time to take down what it has made."""
    process = subprocess.Popen(
        command,
        cwd=build.collection,
        env=build.environment(),
        stdin=subprocess.DEVNULL,
        **options,
    )
    with process:
        try:
            yield process
            process.wait()
        except KeyboardInterrupt:
            process.communicate()
            raise


def run_openly(gate: Gate, build: Build, result: Result) -> None:
    """Run a gate with its output on the terminal."""
    started = time.monotonic()
    print(f"------ {gate.name}", flush=True)
    incomplete = []
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        with running(gate.command, build, text=True, errors="replace", **output) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                if gate.refused and gate.refused.search(line):
                    incomplete.append(line.strip())
    except KeyboardInterrupt:
        if gate.undo:
            subprocess.run(gate.undo, cwd=build.collection, env=build.environment(), check=False)
        raise
    if incomplete:
        print(f"{gate.name} has left something out: {incomplete[0]}")
    ok = process.returncode == 0 and not incomplete
    result.add(gate.name, ok)
    say("ok" if ok else "FAILED", gate.name, time.monotonic() - started)


def run_suite(suite: Suite, options: Sequence[str], build: Build, result: Result) -> None:
    """Run a folder's tests with more options of pytest and add up what it counted."""
    if not (build.collection / suite.folder).is_dir() and suite.optional:
        return
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
        *options,
        suite.folder,
    )
    with running(command, build) as done:
        pass
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


def run_one_by_one(
    steps: Sequence[Gate | Suite], options: Sequence[str], build: Build, result: Result
) -> None:
    """Run steps that show their output; options: of the suites."""
    for step in steps:
        if isinstance(step, Suite):
            run_suite(step, options, build, result)
        else:
            run_openly(step, build, result)


def main() -> int:
    """Run what was asked for; stop before the slow part if the fast one has failed."""
    build = Build(Path(sys.argv[1]).absolute())
    stage, only = sys.argv[2], set(sys.argv[3:])
    static = static_gates(build)
    slow = SLOW if stage == "test" else ()
    known = {step.name for step in (*static, *SUITES, *slow)}
    if not only <= known:
        print(f"unknown: {', '.join(sorted(only - known))}; known: {', '.join(sorted(known))}")
        return 2
    chosen = only or known
    options: Sequence[str] = QUICK
    if stage == "test":
        # Tests that can be short are long.
        os.environ["PACKETWATCH_FULL"] = "1"
        options = ()

    prepare(build)
    result = Result()
    suites = [suite for suite in SUITES if suite.name in chosen]
    beside = stage == "check" and bool(suites)
    with ThreadPoolExecutor(1 if beside else WORKERS) as pool:
        gates: Started = {
            pool.submit(run_quietly, gate, build): gate for gate in static if gate.name in chosen
        }
        try:
            if not beside:
                tell(gates, build, result)
            run_one_by_one(suites, options, build, result)
            if beside:
                tell(gates, build, result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    remaining = [step for step in slow if step.name in chosen]
    if not result.failed:
        run_one_by_one(remaining, options, build, result)
    elif remaining:
        print("not run, as a gate has failed:", *(step.name for step in remaining))
    if result.failed:
        print("failed:", *result.failed)
    print(result.closing_line(), flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
