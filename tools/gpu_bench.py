"""Times ops or training steps on a GPU against PyTorch on the same GPU, in turns, and prints a JSON line for each as it
ends: `python tools/gpu_bench.py ops` or `steps`. tools/gpu_check.sh runs it.

Seconds are the host's around many runs and a wait for the device, the median of blocks. `of_copy` is the share of the
bandwidth of a copy of the same run that the ideal bytes of the work make. `--small` takes tiny sizes: it shows that
the cases run, in the emulator too, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pullback as pb

try:
    import torch

    TORCH: Any = torch if torch.cuda.is_available() else None
except ImportError:
    TORCH = None
BLOCKS, REPEATS = 7, 10
Run = Callable[[], Any]
Case = tuple[str, int, Run, Run | None]  # name, ideal bytes (0: none), ours, PyTorch's


def seconds_of(run: Run, synchronize: Run) -> float:
    """Of one run; what is shorter than the host's work of a call is the host's time."""
    start = time.perf_counter()
    for _ in range(REPEATS):
        run()
    synchronize()
    return (time.perf_counter() - start) / REPEATS


def device_tensor(shape: tuple[int, ...], dtype: str = "float32", grad: bool = False) -> tuple[Any, Any]:
    """The same numbers for both sides."""
    x = pb.random.normal(shape).astype(getattr(pb, dtype))
    theirs = None
    if TORCH is not None:
        theirs = TORCH.from_numpy(x.astype(pb.float32).numpy()).to("cuda", getattr(TORCH, dtype))
        theirs.requires_grad_(grad)
    x = x.to("cuda")
    x.requires_grad = grad
    return x, theirs


def with_torch(make: Callable[[], Run]) -> Run | None:
    return make() if TORCH is not None else None


def ops(small: bool) -> Iterator[Callable[[], Case]]:
    n, side = (4096, 64) if small else (128 << 20, 4096)
    rows = (n // side, side)

    def map_case(name: str, dtype: str, arrays: int) -> Case:
        x, t = device_tensor((n,), dtype)
        ours = {"gelu": pb.gelu, "silu": pb.silu, "exp": pb.exp, "add": lambda v: v + v}[name]

        def theirs() -> Run:
            f = {"gelu": TORCH.nn.functional.gelu, "silu": TORCH.nn.functional.silu, "exp": TORCH.exp}
            g = f.get(name, lambda v: v + v)
            return lambda: g(t)

        size = arrays * n * (4 if dtype == "float32" else 2)
        return f"{name} {dtype} {n}", size, lambda: ours(x), with_torch(theirs)

    for dtype in ("float32", "bfloat16"):
        for name in ("add", "gelu", "silu", "exp"):
            yield lambda name=name, dtype=dtype: map_case(name, dtype, 2)

    def code_case(dtype: str, backward: bool) -> Case:
        x, t = device_tensor((n,), dtype, grad=True)
        w, v = device_tensor((n,), dtype)

        def ours() -> None:
            y = pb.gelu(x, saved=3)
            if backward:
                y.backward(w)
                x.grad = None

        def theirs() -> Run:
            def run() -> None:
                y = TORCH.nn.functional.gelu(t)
                if backward:
                    y.backward(v)
                    t.grad = None

            return run

        what = "forward and backward" if backward else "forward"
        return f"gelu with a 3-bit code, {what}, {dtype} {n}", 0, ours, with_torch(theirs)

    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield lambda dtype=dtype, backward=backward: code_case(dtype, backward)

    def row_case(name: str, dtype: str) -> Case:
        x, t = device_tensor(rows, dtype)
        weight, bias = pb.ones(side, device="cuda"), pb.zeros(side, device="cuda")
        ours: Run = (lambda: pb.softmax(x, axis=-1)) if name == "softmax" else lambda: pb.layer_norm(x, weight, bias)

        def theirs() -> Run:
            f = TORCH.nn.functional
            w, b = (None, None) if name == "softmax" else (t.new_ones(side), t.new_zeros(side))
            return (lambda: f.softmax(t, -1)) if name == "softmax" else lambda: f.layer_norm(t, (side,), w, b)

        return f"{name} {dtype} {rows}", 2 * n * (4 if dtype == "float32" else 2), ours, with_torch(theirs)

    for name in ("softmax", "layer_norm"):
        for dtype in ("float32", "bfloat16"):
            yield lambda name=name, dtype=dtype: row_case(name, dtype)

    def matmul_case(m: int, dtype: str) -> Case:
        (a, ta), (b, tb) = device_tensor((m, m), dtype), device_tensor((m, m), dtype)
        return f"matmul {m} {dtype}", 0, lambda: pb.matmul(a, b), with_torch(lambda: lambda: TORCH.matmul(ta, tb))

    for m in (64,) if small else (1024, 4096):
        for dtype in ("float32", "bfloat16"):
            yield lambda m=m, dtype=dtype: matmul_case(m, dtype)

    def attention_case(width: int, dtype: str) -> Case:
        shape = (1, 2, 40, width) if small else (8, 12, 1024, width)
        q, t = device_tensor(shape, dtype)
        ours = lambda: pb.scaled_dot_product_attention(q, q, q, causal=True)  # noqa: E731

        def theirs() -> Run:
            return lambda: TORCH.nn.functional.scaled_dot_product_attention(t, t, t, is_causal=True)

        return f"causal attention {shape} {dtype}", 0, ours, with_torch(theirs)

    for width in (64, 128):
        for dtype in ("float32", "bfloat16"):
            yield lambda width=width, dtype=dtype: attention_case(width, dtype)


def steps(small: bool) -> Iterator[Callable[[], Case]]:
    count, size = (5, 100) if small else (1000, 10_000)

    def optimizer_case() -> Case:
        params = [pb.nn.Parameter(pb.ones(size, device="cuda")) for _ in range(count)]
        for p in params:
            p.grad = pb.ones(size, device="cuda")
        optimizer = pb.optim.AdamW(params, lr=1e-3)

        def theirs() -> Run:
            held = [TORCH.ones(size, device="cuda", requires_grad=True) for _ in range(count)]
            for p in held:
                p.grad = TORCH.ones_like(p)
            return TORCH.optim.AdamW(held, lr=1e-3, fused=True).step

        return f"AdamW {count} x {size}", 28 * count * size, optimizer.step, with_torch(theirs)

    yield optimizer_case

    def model_case(name: str, captured: bool) -> Case:
        conv, batch = name == "CNN", 8 if small else 128
        shape = (batch, 1, 28, 28) if conv else (batch, 784)
        x, t = device_tensor(shape)
        labels = [i % 10 for i in range(batch)]
        y = pb.tensor(labels, device="cuda")

        def layers(nn: Any) -> list[Any]:
            if conv:
                first = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1)]
                return [*first, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 49, 10)]
            return [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)]

        model = pb.nn.Sequential(*layers(pb.nn)).to("cuda")
        optimizer = pb.optim.AdamW(model.parameters(), lr=1e-3)

        def step(x: Any, y: Any) -> Any:
            loss = pb.losses.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = pb.capture(step) if captured else step

        def theirs() -> Run:
            net = TORCH.nn.Sequential(*layers(TORCH.nn)).to("cuda")
            adam, target = TORCH.optim.AdamW(net.parameters(), lr=1e-3), TORCH.tensor(labels, device="cuda")

            def one() -> None:
                adam.zero_grad()
                TORCH.nn.functional.cross_entropy(net(t), target).backward()
                adam.step()

            return one

        return f"{name} step{', captured' if captured else ''}", 0, lambda: run(x, y), with_torch(theirs)

    for name in ("MLP", "CNN"):
        for captured in (False, True):
            yield lambda name=name, captured=captured: model_case(name, captured)


def bandwidth(small: bool) -> float:
    """Bytes a second of a copy, read and written."""
    x = pb.ones(4096 if small else 128 << 20, device="cuda")
    times = [seconds_of(lambda: pb.asarray(x, copy=True), pb.cuda.synchronize) for _ in range(BLOCKS + 1)][1:]
    return 2 * x.nbytes / statistics.median(times)


def measure(case: Case, copy: float) -> dict[str, Any]:
    name, size, ours, theirs = case
    sides: dict[str, tuple[Run, Run]] = {"pullback": (ours, pb.cuda.synchronize)}
    if theirs is not None:
        sides["torch"] = (theirs, TORCH.cuda.synchronize)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for block in range(BLOCKS + 1):  # the first warms up
        for side, (run, synchronize) in sides.items():
            spent = seconds_of(run, synchronize)
            if block:
                times[side].append(spent)
    result: dict[str, Any] = {"name": name, **{side: statistics.median(t) for side, t in times.items()}}
    if "torch" in result:
        result["ratio"] = result["pullback"] / result["torch"]
    if size:
        result["of_copy"] = size / result["pullback"] / copy
    return result


def main() -> int:
    global BLOCKS, REPEATS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["ops", "steps"])
    parser.add_argument("--seconds", type=float, default=400, help="no case begins after these")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.small:
        BLOCKS, REPEATS = 1, 1
    start, failed = time.monotonic(), 0
    copy = bandwidth(options.small)
    print(json.dumps({"name": "copy", "bytes_per_second": copy}), flush=True)
    for make in (ops if options.kind == "ops" else steps)(options.small):
        if time.monotonic() - start > options.seconds:
            print("no time left for the rest", file=sys.stderr)
            return 1
        try:
            print(json.dumps(measure(make(), copy)), flush=True)
        except Exception as error:  # one case must not cost the others
            failed += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
