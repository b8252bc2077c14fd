"""Changes one token of a kernel at a time and expects the emulator's tests of its unit to fail.

    python tools/mutate_kernels.py             every mutant of tools/kernel_mutants.py
    python tools/mutate_kernels.py --quick N   every N-th, which ones depends on the day
    python tools/mutate_kernels.py --only matmul

A mutant that no test notices in any schedule is a survivor. Those of tools/mutants_allowed.txt have a reason there; any
other makes the exit status 1. Only the mutant's unit is compiled, against the objects of build/emulator.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

import emulator_library as emulator  # noqa: E402
from kernel_mutants import MUTANTS, TESTS, Mutant  # noqa: E402

ALLOWED = ROOT / "tools" / "mutants_allowed.txt"
ORDERS = ("0", "1", "5")
LIMIT = 90.0  # seconds of a test run; a kernel that does not end is noticed


def commands() -> tuple[dict[str, list[str]], list[str]]:
    """How each unit is compiled, and how the library is linked."""
    import ninja

    tool = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(emulator.FOLDER), "-t", "commands", "_emulated.so"]
    lines = subprocess.run(tool, capture_output=True, text=True, check=True).stdout.splitlines()
    compile_of = {}
    for words in (shlex.split(line) for line in lines if " -c " in line):
        source = Path(words[words.index("-c") + 1])
        compile_of[source.stem] = words[1:] if "ccache" in words[0] else words
    link = next(line for line in lines if " -shared " in line)
    words = shlex.split(link)
    return compile_of, words[words.index("&&") + 1 : len(words) - 1 - words[::-1].index("&&")]


def run(command: list[str], **more: str) -> tuple[int, str]:
    """The status and what was printed; status 124 for a command that took too long."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **more}, stdout=pipe, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            text, _ = child.communicate(timeout=LIMIT)
            return child.returncode, text
        except subprocess.TimeoutExpired:
            child.kill()
            return 124, ""


def tests(unit: str, library: Path, order: str) -> tuple[int, str]:
    files, which = TESTS[unit]
    command = [sys.executable, "-m", "pytest", "-x", "-q", *(f"tests/device/{f}.py" for f in files.split())]
    paths = [str(ROOT / "tests" / "device"), os.environ.get("PYTHONPATH", "")]
    return run(
        [*command, *(["-k", which] if which else [])], PULLBACK_EMULATE=str(library), PULLBACK_CUDA_EXACT="1",
        PULLBACK_EMULATE_ORDER=order, PYTHONPATH=os.pathsep.join(paths), PULLBACK_EMULATE_KERNELS="",
    )  # fmt: skip


def mutated(m: Mutant, folder: Path, compile_of: dict[str, list[str]], link: list[str]) -> Path:
    """A library with the mutant: its file lies before the real one on the path of includes."""
    source = ROOT / "csrc" / m.file
    text = source.read_text()
    if text.count(m.old) != 1:
        raise SystemExit(f"mutate_kernels: {m.file} has {text.count(m.old)} of: {m.old}")
    file = folder / m.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace(m.old, m.new))
    command, new = list(compile_of[m.unit]), str(folder / "unit.o")
    old = command[command.index("-o") + 1]
    command[command.index("-o") + 1] = new
    for option in ("-MF", "-MT"):
        command[command.index(option) + 1] = str(folder / "unit.d")
    if m.file.endswith(".cu"):
        command[command.index("-c") + 1] = str(file)
    command.insert(1, f"-I{folder}")
    library = folder / "_emulated.so"
    linked = [new if w == old else w for w in link]
    linked[linked.index("-o") + 1] = str(library)
    for step in (command, linked):
        done = subprocess.run(step, cwd=emulator.FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"mutate_kernels: {m.name} does not compile\n{done.stderr[-2000:]}")
    return library


def survives(m: Mutant, compile_of: dict[str, list[str]], link: list[str]) -> bool:
    with tempfile.TemporaryDirectory() as name:
        library = mutated(m, Path(name), compile_of, link)
        for order in ORDERS:
            status, text = tests(m.unit, library, order)
            if status in (2, 3, 4, 5) and "error" not in text.lower():
                raise SystemExit(f"mutate_kernels: the tests of {m.unit} do not run\n{text[-2000:]}")
            if status:
                return False
    return True


def allowed() -> dict[str, str]:
    """Names of mutants and why no test can, or does, notice them."""
    lines = [line for line in ALLOWED.read_text().splitlines() if line.strip() and not line.startswith("#")]
    pairs = (line.split(" | ", 1) for line in lines)
    return {name.strip(): reason.strip() for name, reason in pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", type=int, default=1, metavar="N")
    parser.add_argument("--only", action="append", metavar="UNIT")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    start, day = time.monotonic(), datetime.date.today().toordinal()
    chosen = [m for i, m in enumerate(MUTANTS) if (i + day) % options.quick == 0]
    chosen = [m for m in chosen if not options.only or m.unit in options.only]
    known, names = allowed(), {m.name for m in MUTANTS}
    wrong = [f"mutants_allowed.txt names no mutant: {name}" for name in known if name not in names]
    library = emulator.build()
    compile_of, link = commands()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for unit, (status, text) in zip(
            sorted({m.unit for m in chosen}),
            pool.map(lambda unit: tests(unit, library, "0"), sorted({m.unit for m in chosen})),
            strict=True,
        ):
            if status:
                raise SystemExit(f"mutate_kernels: the tests of {unit} fail without a mutant\n{text[-3000:]}")
        results = list(pool.map(lambda m: survives(m, compile_of, link), chosen))
    alive = [m.name for m, lives in zip(chosen, results, strict=True) if lives]
    for name in alive:
        print(f"survived: {name} ({known.get(name, 'no reason is listed')})")
    wrong += [f"a survivor without a reason: {name}" for name in alive if name not in known]
    dead = [m.name for m, lives in zip(chosen, results, strict=True) if not lives and m.name in known]
    wrong += [f"listed as a survivor, but noticed: {name}" for name in dead]
    print(f"{len(chosen)} of {len(MUTANTS)} mutants, {len(alive)} survived; {time.monotonic() - start:.0f} s")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
