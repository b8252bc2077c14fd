"""Registers, spills and shared memory of every CUDA kernel, as ptxas reports them, against a committed table; and what
the machine code must have: 16-byte loads, and no local memory in the kernels that training spends its time in.

    python tools/kernel_table.py           compare (needs nvcc; the machine code needs nvdisasm)
    python tools/kernel_table.py --write   renew tools/kernel_table.tsv
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tools" / "kernel_table.tsv"
ARCH = "sm_90"
FLAGS = ["-std=c++20", f"-arch={ARCH}", "--expt-relaxed-constexpr", "--fmad=false", "-Icsrc", "-cubin", "-Xptxas", "-v"]
#: A kernel may take this many registers more than the table says before it must be renewed.
SLACK = 8
#: Unit and beginning of the name: kernels that read with 16 bytes a load. None of them may touch local memory.
HOT = {
    "activations": ["map_fwd<Gelu, float>", "map_pull<Gelu, 0, float>", "map_fwd<Silu, float>"],
    "arithmetic": ["map_fwd<Add, float>", "map_fwd<Multiply, float>"],
    "row": ["rows_kernel<Softmax, true>", "rows_kernel<LayerNorm, true>", "rows_kernel<LayerNormPull, true>"],
    "loss": ["cross_entropy_kernel"],
    "optim": ["update_kernel<Adam, ", "measure_kernel"],
    "matmul": ["tile_kernel<Tile<64>>", "tile_kernel<Tile<128>>", "dot_kernel<false>", "row_kernel"],
    "attention": ["forward_kernel<Shape<64, 64>>", "backward_kernel<Shape<64, 64>>"],
    "reduce": ["rows_kernel<Sum, float>"],
}
#: Hot kernels that do touch it, and why that was let be.
LOCAL = {"tile_kernel<Tile<128>>": "64 sums a thread in 128 registers: ptxas spills 52 bytes; its cost is not measured"}


@dataclass
class Kernel:
    unit: str
    name: str
    registers: int
    spills: int  # bytes stored
    stack: int
    shared: int

    @property
    def key(self) -> tuple[str, str]:
        return self.unit, self.name

    def line(self) -> str:
        return "\t".join(map(str, (self.unit, self.name, self.registers, self.spills, self.stack, self.shared)))


def units(folder: Path) -> dict[str, Path]:
    """Every file of csrc/cuda, and one for each element-wise unit, made in `folder` as the build makes it."""
    found = {p.stem: p for p in sorted((ROOT / "csrc/cuda").glob("*.cu")) if p.stem != "table"}
    line = re.search(r"^set\(PB_MAP_UNITS (.*)\)$", (ROOT / "cmake/units.cmake").read_text(), re.M)
    assert line is not None
    template = (ROOT / "cmake/map_cuda.cu.in").read_text()
    for unit in line[1].split():
        found[unit] = folder / f"{unit}.cu"
        found[unit].write_text(template.replace("@unit@", unit))
    return found


def nvcc() -> str | None:
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def nvdisasm() -> str | None:
    """Of the toolkit, or of the PyPI package nvidia-cuda-nvdisasm."""
    own = shutil.which("nvdisasm") or shutil.which("/usr/local/cuda/bin/nvdisasm")
    beside = sorted(Path(sys.prefix).glob("lib/python3*/site-packages/nvidia/**/bin/nvdisasm"))
    return own or (str(beside[0]) if beside else None)


def demangled(names: list[str]) -> list[str]:
    """Without namespaces, parameters and what the compiler puts for an unnamed namespace."""
    plain = [re.sub(r"\d+_INTERNAL_[0-9a-f]{8}_[^E]*?(?=\d|E)", "", n) if "_INTERNAL_" in n else n for n in names]
    done = subprocess.run(["c++filt"], input="\n".join(plain), capture_output=True, text=True, check=True)
    return [short(n) for n in done.stdout.splitlines()]


def short(name: str) -> str:
    name = name.replace("(anonymous namespace)::", "")
    name = re.sub(r"_GLOBAL__N__\w+::", "", name)
    name = re.sub(r"\b(pb|cuda|optim|ops)::", "", name)
    name = re.sub(r"^void ", "", name).replace("> >", ">>").replace("> >", ">>")
    depth = 0
    for i, c in enumerate(name):  # the parameters begin at the first parenthesis outside of <>
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return re.sub(r"\((\w+(?:::\w+)*)\)(?=\d)", "", name[:i])
    return name


def compile_unit(unit: str, source: Path, folder: Path) -> list[Kernel]:
    out = folder / f"{unit}.cubin"
    command = [nvcc() or "nvcc", *FLAGS, str(source), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"kernel_table: {source} does not compile\n{done.stdout}{done.stderr}"[:6000])
    found = []
    entry = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?"
        r"Used (\d+) registers([^\n]*)",
        re.S,
    )
    text = done.stdout + done.stderr
    for name, stack, spills, registers, rest in entry.findall(text):
        shared = re.search(r"(\d+) bytes smem", rest)
        found.append(Kernel(unit, name, int(registers), int(spills), int(stack), int(shared[1]) if shared else 0))
    for kernel, name in zip(found, demangled([k.name for k in found]), strict=True):
        kernel.name = name
    return found


def measure(folder: Path, only: list[str]) -> list[Kernel]:
    todo = {u: p for u, p in units(folder).items() if not only or u in only}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda item: compile_unit(*item, folder), todo.items()))
    return sorted((k for unit in found for k in unit), key=lambda k: k.key)


def version() -> str:
    done = subprocess.run([nvcc() or "nvcc", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"release ([\d.]+)", done.stdout)
    return found[1] if found else "unknown"


def read_table() -> tuple[str, dict[tuple[str, str], Kernel]]:
    lines = TABLE.read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    release = lines[0].rsplit(" ", 1)[1]
    return release, {(r[0], r[1]): Kernel(r[0], r[1], *(int(x) for x in r[2:])) for r in rows}


def compare(kernels: list[Kernel], table: dict[tuple[str, str], Kernel], only: list[str]) -> list[str]:
    wrong = []
    for k in kernels:
        was = table.get(k.key)
        if was is None:
            wrong.append(f"{k.unit}: {k.name} is not in the table")
            continue
        for what, now, limit in (
            ("registers", k.registers, was.registers + SLACK),
            ("bytes of spills", k.spills, was.spills),
            ("bytes of stack", k.stack, was.stack),
            ("bytes of shared memory", k.shared, was.shared),
        ):
            if now > limit:
                wrong.append(f"{k.unit}: {k.name} has {now} {what}, the table allows {limit}")
    seen = {k.key for k in kernels}
    gone = [key for key in table if key not in seen and (not only or key[0] in only)]
    return wrong + [f"{unit}: {name} is in the table only" for unit, name in gone]


def machine_code(folder: Path, tool: str, only: list[str]) -> list[str]:
    """Wide loads and local memory of the hot kernels."""
    wrong, checked = [], 0
    for unit, names in HOT.items():
        if only and unit not in only:
            continue
        done = subprocess.run([tool, "-c", str(folder / f"{unit}.cubin")], capture_output=True, text=True, check=True)
        parts = re.split(r"^\.text\.(\w+):$", done.stdout, flags=re.M)
        bodies = dict(zip(demangled(parts[1::2]), parts[2::2], strict=True))
        for name in names:
            mine = {k: v for k, v in bodies.items() if k.startswith(name)}
            if not mine:
                wrong.append(f"{unit}: no kernel is named {name}")
            for full, body in mine.items():
                checked += 1
                if not re.search(r"\bLDG?\.E(\.\w+)*\.128\b", body):
                    wrong.append(f"{unit}: {full} has no 16-byte load")
                if re.search(r"\b(LDL|STL)\b", body) and full not in LOCAL:
                    wrong.append(f"{unit}: {full} uses local memory")
    print(f"machine code: {checked} hot kernels looked at")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the table")
    parser.add_argument("--only", action="append", default=[], metavar="UNIT", help="of these units alone")
    options = parser.parse_args()
    if nvcc() is None:
        print("kernel table: skipped, no nvcc")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kernels = measure(folder, options.only)
        if options.write:
            head = f"# {ARCH}: unit, kernel, registers, spilled bytes, stack bytes, shared bytes; nvcc {version()}"
            TABLE.write_text("\n".join([head, *(k.line() for k in kernels)]) + "\n")
        release, table = read_table()
        wrong = [] if options.write else compare(kernels, table, options.only)
        if wrong and release != version():
            print(f"the table is of nvcc {release}, this is {version()}: {len(wrong)} differences, not counted")
            wrong = []
        tool = nvdisasm()
        if tool is None:
            print("machine code: skipped, no nvdisasm (PyPI: nvidia-cuda-nvdisasm)")
        else:
            wrong += machine_code(folder, tool, options.only)
    spilled = [k for k in kernels if k.spills]
    print(f"{len(kernels)} kernels, {len(spilled)} with spills: " + ", ".join(k.name for k in spilled[:20]))
    print("\n".join(wrong))
    if wrong:
        print("help: python tools/kernel_table.py --write renews the table")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
