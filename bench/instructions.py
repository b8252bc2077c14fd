"""Instructions per operation, counted by callgrind: a measure of call overhead that does not depend on load.

    python bench/instructions.py            prints the table
    python bench/instructions.py --write    records the counts in instructions.json
    python bench/instructions.py --check    fails where a count is above the recorded one by more than --slack

Each snippet runs n and 3n times in a process of its own; the difference divided by 2n is free of start-up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_name("instructions.json")
LSTM = """
H = 14
w, b = (pb.tensor([0.01 * i for i in range(4 * H)], requires_grad=True) for _ in range(2))
x, h0, c0 = pb.ones(H), pb.ones(H), pb.ones(H)
def run():
    h, c = h0, c0
    for _ in range(8):
        gates = pb.concat([x, h, x, h]) * w + b
        f, i = pb.sigmoid(gates[:H]), pb.sigmoid(gates[H:2 * H])
        o, g = pb.sigmoid(gates[2 * H:3 * H]), pb.tanh(gates[3 * H:])
        c = c * f + i * g
        h = o * pb.tanh(c)
    h.sum().backward()
    w.grad = b.grad = None
"""
JACOBIAN = """
bones, points = [pb.ones((3, 3)) * 0.1 for _ in range(26)], pb.ones((3, 100))
x = pb.ones(26) * 0.1
def place(a):
    turned = points
    for i in range(26):
        turned = turned + pb.matmul(bones[i] * pb.sin(a[i]), turned) * 0.1
    return turned.reshape((300,))
jacobian = pb.jacobian(place, mode="forward")
"""
TRAINER = """
x, y = pb.ones((8, 4)), pb.tensor([0, 1, 2, 0, 1, 2, 0, 1])
model = pb.nn.Linear(4, 3)
trainer = pb.train.Trainer(
    model, pb.optim.SGD(model.parameters()), pb.losses.cross_entropy, metrics="accuracy", progress=False
)
def fit():
    trainer.fit([(x, y)] * 50, steps=trainer.step + 50)
"""
#: name: (set-up, statement, n)
SNIPPETS = {
    "z = x + y": ("x, y = pb.ones(16), pb.ones(16)", "z = x + y", 2000),
    "z = x + y with grad": (
        "x, y = pb.tensor([1.0] * 16, requires_grad=True), pb.ones(16)",
        "z = x + y",
        2000,
    ),
    "z = 2 * x": ("x = pb.ones(16)", "z = 2 * x", 2000),
    "z = x[0]": ("x = pb.ones(16)", "z = x[0]", 2000),
    "(x * x).backward()": (
        "x = pb.tensor(1.5, requires_grad=True)",
        "(x * x).backward(); x.grad = None",
        500,
    ),
    "50-op chain fwd+bwd": (
        "x = pb.tensor([1.0] * 16, requires_grad=True); a, b, g = pb.ones(16), pb.ones(16), pb.ones(16)",
        "y = x\nfor _ in range(25): y = y * a; y = y + b\ny.backward(g); x.grad = None",
        50,
    ),
    "8 LSTM steps, 14 wide, fwd+bwd": (LSTM, "run()", 30),
    "Jacobian 300x26, forward mode": (JACOBIAN, "jacobian(x)", 2),
    "50 Trainer steps": (TRAINER, "fit()", 3),
}


def instructions(setup: str, statement: str, count: int) -> int:
    """Instructions of a process that runs the statement count times, as callgrind counts them."""
    body = "\n    ".join(statement.splitlines())
    code = f"import pullback as pb\npb.set_num_threads(1)\n{setup}\nfor _i in range({count}):\n    {body}\n"
    spec = importlib.util.find_spec("pullback")  # the one that this process would import
    package = str(Path(spec.origin).parents[1]) if spec and spec.origin else str(ROOT / "python")
    # v3: valgrind knows no AVX-512. A fixed hash seed and no site packages make the counts repeat.
    env = {**os.environ, "PYTHONHASHSEED": "0", "PULLBACK_ISA": "v3", "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"callgrind failed:\n{done.stderr[-2000:]}")
    return int(found.group(1))


def measure(name: str) -> int:
    """Instructions per statement of one snippet, with the loop's own few."""
    setup, statement, n = SNIPPETS[name]
    return round((instructions(setup, statement, 3 * n) - instructions(setup, statement, n)) / (2 * n))


def key() -> str:
    """Counts hold for one minor version of Python: the interpreter's own instructions are among them."""
    return f"Python {'.'.join(platform.python_version_tuple()[:2])}, {platform.machine()}"


def recorded() -> dict[str, int]:
    return json.loads(RECORD.read_text()).get(key(), {}) if RECORD.is_file() else {}


def show(counts: dict[str, int]) -> str:
    lines = [f"| statement | instructions ({key()}) |", "|---|---:|"]
    return "\n".join(lines + [f"| `{name}` | {count:,} |" for name, count in counts.items()])


def excess(counts: dict[str, int], slack: float) -> list[str]:
    """What has grown beyond the record, one line each."""
    old = recorded()
    return [
        f"{name}: {count:,} instructions, recorded are {old[name]:,}"
        for name, count in counts.items()
        if name in old and count > old[name] * (1 + slack)
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--slack", type=float, default=0.05, help="share by which a count may grow (%(default)s)")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        raise SystemExit("instructions: valgrind is not installed\nhelp: apt install valgrind")
    counts = {name: measure(name) for name in SNIPPETS}
    print(show(counts))
    if options.write:
        record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
        RECORD.write_text(json.dumps({**record, key(): counts}, indent=1) + "\n")
    if options.check and not recorded():
        print(f"nothing is recorded for {key()}: run --write")
    grown = excess(counts, options.slack) if options.check else []
    print("\n".join(grown), end="")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
