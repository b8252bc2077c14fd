"""Writes docs/cuda_status.md and README's sentence about GPUs: where each CUDA kernel has run.

    python tools/cuda_status.py                  write both
    python tools/cuda_status.py --check          fail where they are not what this would write
    python tools/cuda_status.py --log FILE       and compare with a run of the emulator's tests that was made with
                                                 PULLBACK_EMULATE_KERNELS=FILE; with --write the run is recorded

The kernels are those of tools/kernel_table.tsv, the runs in the emulator those of tests/emulated_kernels.txt, the runs
on GPUs those that tools/gpu_check.sh left under bench/results/cuda/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from kernel_table import read_table, short  # noqa: E402

PAGE, README = ROOT / "docs" / "cuda_status.md", ROOT / "README.md"
RUNS, RESULTS = ROOT / "tests" / "emulated_kernels.txt", ROOT / "bench" / "results" / "cuda"
BEGIN, END = "<!-- gpu: tools/cuda_status.py writes what follows -->", "<!-- gpu: end -->"
#: The numbers that are promised of a GPU, each with the stage and the key of its result (docs/cuda_status.md).
NUMBERS = (
    "element-wise, norm, softmax and cross-entropy kernels, optimizer rules: share of copy bandwidth",
    "GELU with a 3-bit code: forward and backward against PyTorch's, float32 and bfloat16",
    "optimizer step over 1,000 tensors of 10k elements against PyTorch's fused",
    "captured training steps (MLP, small CNN, GPT-2 124M) against eager PyTorch; peak memory under `saved=3`",
    "matmul and attention against PyTorch's",
    "size of the wheel with CUDA; import with the library present and no driver",
)
Key = tuple[str, str]


def launched(log: Path, library: Path) -> set[Key]:
    """The kernels of a log, which has their places in the library."""
    places = {int(line, 16) for line in log.read_text().split()}
    symbols = subprocess.run(["readelf", "-sW", str(library)], capture_output=True, text=True, check=True).stdout
    file, found = "", {}
    for fields in (line.split() for line in symbols.split(".symtab", 1)[1].splitlines()):
        if len(fields) > 3 and fields[3] == "FILE":
            file = fields[-1] if len(fields) > 7 else ""
        elif len(fields) == 8 and fields[3] == "FUNC":
            found[int(fields[1], 16)] = (file.removesuffix(".cu"), fields[7])
    mine = [found[p] for p in sorted(places) if p in found]
    done = subprocess.run(["c++filt"], input="\n".join(n for _, n in mine), capture_output=True, text=True, check=True)
    names = [short(n) for n in done.stdout.splitlines()]
    return {(unit, name) for (unit, _), name in zip(mine, names, strict=True)}


def with_units(runs: set[Key], kernels: list[Key]) -> set[Key]:
    """A kernel of an unnamed namespace lies among its file's symbols; the name of another says in which unit it is."""
    units: dict[str, set[str]] = {}
    for unit, name in kernels:
        units.setdefault(name, set()).add(unit)
    out = set()
    for file, name in runs:
        of = units.get(name, set())
        out |= {(file, name)} if file in of else {(next(iter(of)), name)} if len(of) == 1 else set()
    return out


def read_runs() -> set[Key]:
    return {tuple(line.split("\t")) for line in RUNS.read_text().splitlines() if not line.startswith("#")}  # type: ignore


def gpu_runs() -> list[dict[str, str]]:
    """Results of the stage `tests` that passed, the latest last."""
    results = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("*-tests.json"))]
    return sorted((r for r in results if r["ok"]), key=lambda r: r["date"])


def state(key: Key, runs: set[Key], on_gpu: list[dict[str, str]]) -> str:
    if key not in runs:
        return "compiled only"
    if on_gpu:
        last = on_gpu[-1]
        return f"ran on {last['gpu']}, {last['commit']}, {last['date'][:10]}"
    return "emulated"


def page(kernels: list[Key], runs: set[Key]) -> str:
    on_gpu = gpu_runs()
    groups: dict[tuple[str, str, str], list[str]] = {}
    for unit, name in kernels:
        groups.setdefault((unit, name.split("<")[0], state((unit, name), runs, on_gpu)), []).append(name)
    ran = sum(key in runs for key in kernels)
    lines = [
        "# Where the CUDA kernels have run",
        "",
        "Written by `tools/cuda_status.py`. A kernel is `emulated` where tests launch it in the emulator and compare",
        "its result with the CPU's; `ran on` a GPU where the same tests passed there (`tools/gpu_check.sh`); else it",
        "is `compiled only`. Of a template every instance counts.",
        "",
        f"{len(kernels)} kernels, {ran} of them run in the tests. GPU runs: {len(on_gpu)}.",
        "",
        "| unit | kernel | instances | state |",
        "|---|---|---|---|",
    ]
    for (unit, name, how), names in sorted(groups.items()):
        whole = sum(1 for u, n in kernels if u == unit and n.split("<")[0] == name)
        count = str(whole) if len(names) == whole else f"{len(names)} of {whole}"
        lines.append(f"| {unit} | {name} | {count} | {how} |")
    lines += ["", "## Measured on a GPU", ""]
    stages = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("*.json"))]
    for r in stages:
        lines.append(f"- {r['stage']}: {'passed' if r['ok'] else 'failed'} on {r['gpu']}, {r['commit']}, {r['date']}")
    lines += [] if stages else ["Nothing. Not yet measured:", "", *(f"- {n}" for n in NUMBERS)]
    return "\n".join(lines) + "\n"


def sentence() -> str:
    on_gpu = gpu_runs()
    if not on_gpu:
        return (
            "CUDA kernels are compiled for sm_80 and later and checked in an emulator; no GPU measurement yet\n"
            "([docs/cuda_status.md](docs/cuda_status.md))."
        )
    last = on_gpu[-1]
    return f"The CUDA tests ran on {last['gpu']} at {last['commit']} ([docs/cuda_status.md](docs/cuda_status.md))."


def readme() -> str:
    text = README.read_text()
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + "\n" + sentence() + "\n" + END + rest.split(END, 1)[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--library", type=Path, default=ROOT / "build" / "emulator" / "_emulated.so")
    options = parser.parse_args()
    kernels, wrong = list(read_table()[1]), []
    if options.log:
        now = with_units(launched(options.log, options.library), kernels)
        if options.write:
            head = "# Kernels that the tests launch in the emulator: unit, kernel (tools/cuda_status.py --log)"
            RUNS.write_text("\n".join([head, *("\t".join(k) for k in sorted(now))]) + "\n")
        wrong += [f"{u}: {n} is recorded as emulated, but no test launched it" for u, n in sorted(read_runs() - now)]
        print(f"{len(now)} of {len(kernels)} kernels were launched")
    for path, text in ((PAGE, page(kernels, read_runs())), (README, readme())):
        if not options.check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong.append(f"{path.relative_to(ROOT)} is not what tools/cuda_status.py writes")
    print("\n".join(wrong) if wrong else "docs/cuda_status.md and README's sentence are up to date")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
