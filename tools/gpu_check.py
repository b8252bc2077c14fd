"""The stages of tools/gpu_check.sh, which says what they need. Uses the standard library alone."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, WORK = ROOT / "bench" / "results" / "cuda", ROOT / "build" / "gpu"
PACKAGE = WORK / "package"
LIMIT = 470.0  # seconds of a stage
NEEDED = ("cmake", "ninja", "nanobind", "pytest", "numpy")
#: Tests that compute-sanitizer runs: they launch kernels of every family at odd sizes.
SANITIZED = ("tests/device/kernel_sizes.py", "-k", "float32 or sample")


class Failed(Exception):
    """A stage did not pass; the text says why."""


def output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def gpu() -> dict[str, str]:
    query = "--query-gpu=name,compute_cap,driver_version"
    fields = output("nvidia-smi", query, "--format=csv,noheader").split("\n")[0].split(", ")
    if len(fields) != 3:
        raise SystemExit("gpu_check: nvidia-smi shows no GPU\nhelp: tests/test_emulated.py checks kernels without one")
    return dict(zip(("gpu", "capability", "driver"), fields, strict=True))


def commit() -> str:
    dirty = "+" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return (output("git", "rev-parse", "--short=10", "HEAD") or "unknown") + dirty


class Stage:
    """Commands under one limit of time, and what they printed."""

    def __init__(self, python: Path) -> None:
        self.python, self.end, self.log = python, time.monotonic() + LIMIT, ""
        self.numbers: list[dict[str, Any]] = []

    def run(self, *command: str, keep: bool = False, **more: str) -> str:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT / "tests/device")]), **more}
        env.pop("PULLBACK_EMULATE", None)
        pipe, also = subprocess.PIPE, subprocess.PIPE if keep else subprocess.STDOUT
        # A session of its own: what the command started ends with it.
        child = subprocess.Popen(
            command, stdout=pipe, stderr=also, text=True, cwd=ROOT, env=env, start_new_session=True
        )
        try:
            text, errors = child.communicate(timeout=max(1.0, self.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            text, errors = child.communicate()
            self.log += f"$ {' '.join(command)}\n{text}{errors or ''}"
            raise Failed(f"took more than {LIMIT:.0f} s") from None
        except BaseException:  # this program is ended: so is what it started
            os.killpg(child.pid, signal.SIGKILL)
            raise
        self.log += f"$ {' '.join(command)}\n{errors if keep else text}"
        if child.returncode:
            raise Failed(f"{' '.join(command)[:200]} gave {child.returncode}")
        return text


def build(stage: Stage, machine: dict[str, str], wheels: Path | None) -> None:
    """One architecture, in a virtual environment that sees the machine's PyTorch."""
    if not stage.python.exists():
        stage.run(sys.executable, "-m", "venv", "--system-site-packages", str(WORK / "venv"))
    script = f"import importlib.util as u; print(*[n for n in {NEEDED!r} if u.find_spec(n) is None])"
    # -I: the folder cmake/ of this repository is not the package.
    lacking = stage.run(str(stage.python), "-I", "-c", script, keep=True).split()
    if lacking:
        where = ["--no-index", "--find-links", str(wheels)] if wheels else []
        stage.run(str(stage.python), "-m", "pip", "install", "-q", *where, *lacking)
    ninja = stage.run(str(stage.python), "-c", "import ninja; print(ninja.BIN_DIR)", keep=True).strip()
    architecture = machine["capability"].replace(".", "") + "-real"
    cmake, folder = (str(stage.python), "-m", "cmake"), str(WORK / "build")
    stage.run(
        *cmake, "-S", ".", "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}/ninja", "-DPB_CUDA=ON",
        "-DPB_ISA_LEVELS=v3;v4",
        f"-DPB_CUDA_ARCHITECTURES={architecture}", f"-DPython_EXECUTABLE={stage.python}",
    )  # fmt: skip
    stage.run(*cmake, "--build", folder, "-j", str(os.cpu_count() or 2))
    shutil.rmtree(PACKAGE, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "pullback", PACKAGE / "pullback", ignore=shutil.ignore_patterns("*.so"))
    for library in (WORK / "build").glob("*.so"):
        shutil.copy2(library, PACKAGE / "pullback")
    stage.run(
        str(stage.python), "-c", "import pullback as pb; assert (pb.ones(3, device='cuda') + 1).tolist() == [2] * 3"
    )


def tests(stage: Stage, machine: dict[str, str], wheels: Path | None) -> None:
    """What the emulator runs, on the device."""
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests/device").glob("*.py") if p.stem != "common")
    problems = []
    for file in files:  # each by itself: a device that was lost ends one file
        try:
            stage.run(str(stage.python), "-m", "pytest", "-q", file, PULLBACK_CUDA_EXACT="0")
        except Failed as failed:
            problems.append(str(failed))
    if problems:
        raise Failed("; ".join(problems))


def sanitizer(stage: Stage, machine: dict[str, str], wheels: Path | None) -> None:
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        raise Failed("there is no compute-sanitizer")
    for check in ("memcheck", "racecheck", "synccheck"):
        options = ("--tool", check, "--error-exitcode", "9", "--target-processes", "all")
        stage.run(tool, *options, str(stage.python), "-m", "pytest", "-q", *SANITIZED, PULLBACK_CUDA_EXACT="1")


def bench(kind: str) -> Callable[[Stage, dict[str, str], Path | None], None]:
    def measure(stage: Stage, machine: dict[str, str], wheels: Path | None) -> None:
        text = stage.run(str(stage.python), "tools/gpu_bench.py", kind, "--seconds", str(int(LIMIT - 40)), keep=True)
        stage.numbers = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        if not stage.numbers:
            raise Failed("nothing was measured")

    return measure


STAGES = {"build": build, "tests": tests, "sanitizer": sanitizer, "ops": bench("ops"), "steps": bench("steps")}


def done_before(stage: str, now: str, machine: dict[str, str]) -> bool:
    if stage == "build" and not PACKAGE.exists():
        return False
    for path in RESULTS.glob(f"*-{stage}.json"):
        held = json.loads(path.read_text())
        if held["ok"] and held["commit"] == now and held["gpu"] == machine["gpu"]:
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=" ".join(STAGES))
    parser.add_argument("--wheels", type=Path, metavar="FOLDER")
    parser.add_argument("--again", action="store_true", help="also what passed before")
    options = parser.parse_args()
    unknown = [s for s in options.stages if s not in STAGES]
    if unknown:
        parser.error(f"no stage is called {unknown[0]}: {' '.join(STAGES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine, now, failed = gpu(), commit(), []
    for d in (RESULTS, WORK):
        d.mkdir(parents=True, exist_ok=True)
    for name in options.stages or list(STAGES):
        if not options.again and done_before(name, now, machine):
            print(f"{name}: passed before at {now}", flush=True)
            continue
        stage, start, problem = Stage(WORK / "venv" / "bin" / "python"), time.monotonic(), ""
        try:
            STAGES[name](stage, machine, options.wheels)
        except (Failed, OSError) as error:
            problem = str(error)
            failed.append(name)
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        result = {"stage": name, "ok": not problem, "problem": problem, **machine, "commit": now, "date": date}
        result |= {"seconds": round(time.monotonic() - start, 1), "numbers": stage.numbers, "log": stage.log[-4000:]}
        file = RESULTS / f"{date.replace(':', '')[:17]}-{name}.json"
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{name}: {problem or 'passed'} in {result['seconds']} s, {file.relative_to(ROOT)}", flush=True)
        if name == "build" and problem:
            print(stage.log[-3000:])
            break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
