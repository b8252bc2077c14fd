"""Memory of training: bytes kept for backward, peak and time of a step, and the largest batch under a cap.

    python bench/memory.py                    the table, checked against goals.json ("memory"); about half an hour
    python bench/memory.py --only "MLP"       models whose name begins so; may be repeated
    python bench/memory.py --quick            without the search for the largest batch
    python bench/memory.py --write            writes results/memory/DATE.json too

Every figure comes from a process of its own. Bytes kept are those of distinct storages that the graph holds after the
forward pass, without parameters: `pb.memory.saved_bytes`, and for PyTorch what `saved_tensors_hooks` sees. The input
batch counts on both sides. The cap is a limit on the data segment (RLIMIT_DATA) of what the process had after its
imports and 512 MiB; a batch fits when 20 steps of AdamW run under it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import libs, machine  # noqa: E402
from bench.memory_models import MODELS, Model  # noqa: E402
from bench.run import UNSET  # noqa: E402

CAP = 512 << 20
STEPS = 20
#: name -> (library, what is asked of it)
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "torch": ("torch", {}),
    "torch checkpoint": ("torch", {"checkpoint": True}),
    "exact": ("pullback", {}),
    "recompute": ("pullback", {"bits": "recompute"}),
    "output": ("pullback", {"bits": "output"}),
    "3-bit": ("pullback", {"bits": 3}),
    "int8": ("pullback", {"bits": 3, "inputs": 8}),
    "int4": ("pullback", {"bits": 3, "inputs": 4}),
    "int4, q k v int8": ("pullback", {"bits": 3, "inputs": 4, "attention": 8}),
}


class PullbackStep(libs.Pullback):
    """A training step of pullback."""

    def __init__(self, model: Model, n: int, threads: int, asked: dict[str, Any]):
        super().__init__(threads)
        self.asked = asked
        self.pb.manual_seed(1)
        dtype = getattr(self.pb, model.dtype)
        self.model = model.make(self).to(dtype)
        self.optimizer = self.adamw(self.model.parameters(), 1e-4)
        x, y = model.data(n)
        self.x = self.tensor(x).astype(dtype)
        self.y = None if y is None else self.tensor(y)

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        if "attention" not in self.asked:
            return super().attention(q, k, v)
        return self.pb.scaled_dot_product_attention(q, k, v, causal=True, saved=self.asked["attention"])

    def silu_mul(self, a: Any, b: Any) -> Any:
        return self.pb.silu_mul(a, b)

    def forward(self) -> Any:
        with self.pb.saving(self.asked.get("bits"), inputs=self.asked.get("inputs")):
            out = self.model(self.x)
            return self.pb.mean(out) if self.y is None else self.cross_entropy(out, self.y)

    def kept(self) -> int:
        return int(self.pb.memory.saved_bytes(self.forward()))

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = self.forward()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())


class TorchStep(libs.Torch):
    """A training step of PyTorch; `checkpoint` recomputes the whole model in backward."""

    def __init__(self, model: Model, n: int, threads: int, asked: dict[str, Any]):
        super().__init__(threads)
        self.asked = asked
        self.torch.manual_seed(1)
        dtype = getattr(self.torch, model.dtype)
        self.model = model.make(self).to(dtype)
        self.optimizer = self.adamw(self.model.parameters(), 1e-4)
        x, y = model.data(n)
        self.x = self.torch.from_numpy(x).to(dtype)
        self.y = None if y is None else self.torch.from_numpy(y)

    def silu_mul(self, a: Any, b: Any) -> Any:
        return self.silu(a) * b

    def forward(self) -> Any:
        if self.asked.get("checkpoint"):
            from torch.utils.checkpoint import checkpoint

            out = checkpoint(self.model, self.x, use_reentrant=False)
        else:
            out = self.model(self.x)
        return out.mean() if self.y is None else self.cross_entropy(out, self.y)

    def kept(self) -> int:
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        seen: dict[int, int] = {}

        def pack(t: Any) -> Any:
            s = t.untyped_storage()
            if s.data_ptr() not in own:
                seen[s.data_ptr()] = s.nbytes()
            return t

        with self.torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = self.forward()
        del loss
        return sum(seen.values())

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = self.forward()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


LIBRARIES = {"pullback": PullbackStep, "torch": TorchStep}


def status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {key}")


def child(side: str, name: str, n: int, what: str, threads: int) -> dict[str, Any]:
    """One figure, in this process: "kept", "step" or "fits"."""
    library, asked = SIDES[side]
    __import__(library)
    import numpy  # noqa: F401

    model, make = MODELS[name], LIBRARIES[library]
    before = status("VmRSS")
    if what == "fits":
        limit = status("VmData") + CAP
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    work = make(model, n, threads, asked)
    if what == "kept":
        return {"kept": work.kept()}
    if what == "fits":
        for _ in range(STEPS):
            work.step()
        return {"fits": True}
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        work.step()
        seconds.append(time.perf_counter() - start)
    return {"peak": status("VmHWM") - before, "seconds": seconds}


def ask(side: str, name: str, n: int, what: str, threads: int) -> dict[str, Any]:
    """The same from a process of its own; {"error": text} where it could not."""
    command = [sys.executable, __file__, "--child", side, name, str(n), what, "--threads", str(threads)]
    env = {k: v for k, v in os.environ.items() if k not in UNSET}
    env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def largest(side: str, name: str, threads: int) -> int:
    """The largest batch, to 1/32, that trains under the cap."""

    def fits(n: int) -> bool:
        return bool(ask(side, name, n, "fits", threads).get("fits"))

    low, high = 0, MODELS[name].batch
    while fits(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def rows(names: list[str], sides: list[str], threads: int, quick: bool) -> list[dict[str, Any]]:
    out = []
    for name in names:
        model = MODELS[name]
        for side in sides:
            row: dict[str, Any] = {"model": name, "side": side, "unit": model.unit}
            kept = ask(side, name, model.batch, "kept", threads)
            row["kept"] = kept["kept"] / (model.batch * model.per) if "kept" in kept else None
            if row["kept"] is None:
                row["error"] = kept["error"]
            else:
                times = [ask(side, name, model.batch, "step", threads) for _ in range(1 if quick else 3)]
                good = [t for t in times if "peak" in t]
                row["peak"] = min(t["peak"] for t in good) if good else None
                row["seconds"] = median(median(t["seconds"][1:]) for t in good) if good else None
                row["batch"] = None if quick else largest(side, name, threads)
            out.append(row)
            print(line(row), flush=True)
    return out


def goal_of(row: dict[str, Any]) -> float | None:
    goals = json.loads((ROOT / "bench" / "goals.json").read_text()).get("memory", [])
    found = [g["at_most"] for g in goals if g["model"] == row["model"] and g["side"] == row["side"]]
    return found[0] if found else None


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in row:
        return f"| {row['model']} | {row['side']} | {row['error'][:80]} | | | | |"
    goal = goal_of(row)
    verdict = "" if goal is None else f"<= {goal:,.6g} {'met' if row['kept'] <= goal else 'not met'}"
    peak = "" if row["peak"] is None else f"{row['peak'] / 2**20:,.0f} MiB"
    took = "" if row["seconds"] is None else f"{1e3 * row['seconds']:,.1f} ms"
    batch = "" if row["batch"] is None else f"{row['batch']:,}"
    kept = f"{row['kept']:,.2f}" if row["kept"] < 100 else f"{row['kept']:,.0f}"
    return f"| {row['model']} | {row['side']} | {kept} {row['unit']} | {peak} | {took} | {batch} | {verdict} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="models whose name begins so")
    parser.add_argument("--side", action="append", choices=SIDES, help="these sides only")
    parser.add_argument("--quick", action="store_true", help="no search for the largest batch")
    parser.add_argument("--write", action="store_true", help="write bench/results/memory-DATE.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, name, n, what = options.child
        print(json.dumps(child(side, name, int(n), what, options.threads)))
        return 0
    names = [n for n in MODELS if not options.only or any(n.lower().startswith(o.lower()) for o in options.only)]
    print("| model | side | kept for backward | peak of a step | time | largest batch under 512 MiB | goal |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    found = rows(names, options.side or list(SIDES), options.threads, options.quick)
    if options.write:
        now = datetime.datetime.now(datetime.UTC)
        result = {"created": now.isoformat(timespec="seconds"), **machine.commit(), "machine": machine.cpu()}
        result |= {"threads": options.threads, "cap": CAP, "steps": STEPS, "rows": found}
        file = ROOT / "bench" / "results" / "memory" / f"{now:%Y-%m-%d-%H%M%S}.json"
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\n{file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
