"""Times one step of every update rule: python bench/optim.py

Ours and the best existing code step the SAME parameters with the same gradients, shared by DLPack, in one process, a
block of samples each in turn; every round is a new process, and a ratio is the median over neighbouring blocks. Before
anything is timed both sides make three steps from equal starts and must agree. Beside them runs our AdamW on the same
buffers, and for AdamW a kernel with the same streams and almost no arithmetic (streams.c). See README.md for what the
columns of a result mean; its form is that of run.py, and goals.json holds the goals under "optim".
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine, schema, stats, table  # noqa: E402
from bench.cases import Work  # noqa: E402
from bench.run import PAUSE, environment, find_package  # noqa: E402
from bench.worker import Loaded  # noqa: E402

SIDES = {
    "pullback": "pullback",
    "torch": "the best existing code: torch's fused optimizer, else its foreach one, else its ops in a loop",
    "pullback-adamw": "pullback's AdamW on the same buffers",
    "stream": "streams.c, 4 arrays read and 3 written",
    "read": "streams.c, one array read",
}


@dataclass(frozen=True)
class Rule:
    """A row: our class with its keywords, the existing code, ideal bytes per float32 parameter, and the tensors."""

    ours: str
    words: dict[str, Any]
    theirs: tuple[str, ...]  # how, and a name: of torch.optim, or in optim_torch.py
    bytes: int
    torch_words: dict[str, Any] | None = None
    slots: int = 0
    count: int = 100
    size: int = 100_000
    tolerance: float | None = 1e-6  # of three steps; None where the sides draw different random numbers


def _fused(name: str, bytes: int, words: dict[str, Any], **more: Any) -> Rule:
    return Rule(name, words, ("fused", name), bytes, torch_words={**words, "fused": True}, **more)


def _foreach(name: str, bytes: int, words: dict[str, Any], **more: Any) -> Rule:
    return Rule(name, words, ("foreach", name), bytes, torch_words={**words, "foreach": True}, **more)


_ADAMW = {"lr": 1e-3, "weight_decay": 0.01}

RULES: dict[str, Rule] = {
    "AdamW 100 x 100k": _fused("AdamW", 28, _ADAMW),
    "AdamW 50M": _fused("AdamW", 28, _ADAMW, count=1, size=50_000_000),
    "AdamW 1000 x 10k": _fused("AdamW", 28, _ADAMW, count=1000, size=10_000),
    "AdamW 50M bfloat16 state": Rule("AdamW", {**_ADAMW, "state": "bfloat16"}, (), 20, count=1, size=50_000_000),
    "AdamW 50M int8 state": Rule("AdamW", {**_ADAMW, "state": "int8"}, (), 16, count=1, size=50_000_000),
    "AdamW as a user's rule": Rule("user", {"lr": 1e-3}, (), 28),
    "norm pass": Rule("norm", {}, ("whole", "norm"), 4),
    "SGD": _fused("SGD", 12, {"lr": 1e-3}),
    "SGD momentum": _fused("SGD", 20, {"lr": 1e-3, "momentum": 0.9}),
    "SGD Nesterov": _fused("SGD", 20, {"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "Adagrad": _fused("Adagrad", 20, {"lr": 1e-2}),
    "Adam": _fused("Adam", 28, {"lr": 1e-3}),
    "Adam amsgrad": _fused("Adam", 36, {"lr": 1e-3, "amsgrad": True}),
    "RMSprop": _foreach("RMSprop", 20, {"lr": 1e-3}),
    "RMSprop centered momentum": _foreach("RMSprop", 36, {"lr": 1e-3, "centered": True, "momentum": 0.9}),
    "Adadelta": _foreach("Adadelta", 28, {"lr": 1.0}),
    "NAdam": _foreach("NAdam", 28, {"lr": 2e-3}),
    "RAdam": _foreach("RAdam", 28, {"lr": 1e-3}),
    "Lion": Rule("Lion", {}, ("loop", "lion"), 20, slots=1),
    "Grams": Rule("Grams", {}, ("loop", "grams"), 28, slots=2),
    "CautiousAdamW": Rule("CautiousAdamW", {}, ("loop", "cautious"), 36, slots=2),
    "DiffGrad": Rule("DiffGrad", {}, ("loop", "diffgrad"), 36, slots=3),
    "AdEMAMix": Rule("AdEMAMix", {}, ("loop", "ademamix"), 36, slots=3),
    "Gravity": Rule("Gravity", {"alpha": 0.0}, ("loop", "gravity"), 24, slots=1),
    "ExpScaledSGD": Rule("ExpScaledSGD", {"scales": [1.0]}, ("loop", "exp_scaled"), 20, slots=1),
    "SGLD": Rule("SGLD", {"lr": 1e-3}, ("loop", "sgld"), 12, tolerance=None),
    "OptAMSGrad": Rule("OptAMSGrad", {}, ("loop", "opt_amsgrad"), 48, slots=5),
    "LAMB": Rule("LAMB", {}, ("loop", "lamb"), 44, slots=2),
    "ScheduleFreeAdamW": Rule("ScheduleFreeAdamW", {}, ("loop", "schedule_free"), 28, slots=2),
    "AdagradNorm": Rule("AdagradNorm", {}, ("whole", "adagrad_norm"), 16),
    "NormalizedGD": Rule("NormalizedGD", {}, ("whole", "normalized"), 16),
    "DoG": Rule("DoG", {}, ("whole", "dog"), 32, slots=2),
    "LDoG": Rule("LDoG", {}, ("loop", "ldog"), 32, slots=2),
    "TDoG": Rule("TDoG", {}, (), 32),
    "ADoG": Rule("ADoG", {}, ("whole", "adog"), 44, slots=3),
    "UDoG": Rule("UDoG", {}, (), 64),
    "Prodigy": Rule("Prodigy", {}, ("whole", "prodigy"), 76, slots=4),
    "Muon": Rule(
        "Muon", {"lr": 1e-3}, ("", "Muon"), 0, torch_words={"lr": 1e-3}, count=16, size=512 * 512, tolerance=0.05
    ),
}


# ---- in the worker


def our_step(rule: Rule, params: list[Any], grads: list[Any]) -> Callable[[], Any]:
    """A step of ours on pullback tensors."""
    import pullback as pb

    if rule.ours == "norm":
        return lambda: pb._core.optim_norm(grads)
    kind = user_adamw(pb) if rule.ours == "user" else getattr(pb.optim, rule.ours)
    opt = kind(params, **rule.words)
    if rule.ours != "UDoG":
        return lambda: opt.step(grads=grads)

    def pair() -> None:  # the two halves of an iteration, whose gradients a closure would compute
        for opt._half in ("_udog_first", "udog"):
            pb.optim.Optimizer.step(opt, grads=grads)

    return pair


def user_adamw(pb: Any) -> Any:
    """AdamW written by a user."""

    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        m = s.m + (1 - h.betas[0]) * (g - s.m)
        v = s.v + (1 - h.betas[1]) * (g * g - s.v)
        rate = h.lr / (1 - h.betas[0] ** h.t)
        return p - rate * m / (pb.sqrt(v) / (1 - h.betas[1] ** h.t) ** 0.5 + h.eps), m, v

    return pb.optim.rule(
        "UserAdamW", states=("m", "v"), hyper={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}, update=update
    )


def their_step(rule: Rule, params: list[Any], grads: list[Any]) -> Callable[[], Any] | None:
    """A step of the existing code on torch tensors."""
    from bench import optim_torch as best

    if not rule.theirs:
        return None
    how, name = rule.theirs
    if name == "norm":
        return lambda: best.norm(grads)
    if how == "loop":
        return best.loop(rule.slots, getattr(best, name))(params, grads)
    if how == "whole":
        return best.whole(rule.slots, getattr(best, name))(params, grads)
    return best.existing(name, **(rule.torch_words or {}))(params, grads)


def tensors(rule: Rule, count: int, size: int, seed: int, dtype: str = "float32") -> tuple[list[Any], list[Any]]:
    """Parameters and gradients as torch tensors."""
    import torch

    make = torch.Generator().manual_seed(seed)
    side = round(size**0.5)
    shape = (side, side) if rule.ours == "Muon" else (size,)
    draw = partial(torch.randn, shape, generator=make, dtype=getattr(torch, dtype))
    return [draw() for _ in range(count)], [draw() * 0.01 for _ in range(count)]


def shared(items: list[Any]) -> list[Any]:
    """The same memory as pullback tensors."""
    import pullback as pb

    out = [pb.from_dlpack(t) for t in items]
    for theirs, t in zip(items, out, strict=True):
        assert pb.from_dlpack(theirs).shape == t.shape
    return out


def difference(rule: Rule) -> float:
    """How far three steps of the two sides are apart, as a share of the way that theirs went.

    In float64: p - p0 of DoG has few correct digits in float32 where it is not kept as such.
    """
    params, grads = tensors(rule, 3, 4096, 1, "float64")
    ours, start = [p.clone() for p in params], [p.clone() for p in params]
    a, b = our_step(rule, shared(ours), shared(grads)), their_step(rule, params, grads)
    assert b is not None
    for _ in range(3):
        a()
        b()
    way = sum(float((p - s).double().norm()) ** 2 for p, s in zip(params, start, strict=True)) ** 0.5
    gap = sum(float((p - q).double().norm()) ** 2 for p, q in zip(params, ours, strict=True)) ** 0.5
    if rule.ours == "norm":
        return abs(a()[0] / b() - 1)
    return gap / (way + 1e-30)


def streams(name: str, threads: int, tensors: list[Any]) -> Callable[[], Any] | None:
    """A kernel of streams.c on these buffers; None without gcc."""
    if shutil.which("gcc") is None:
        return None
    out = Path(tempfile.mkdtemp()) / "streams.so"
    command = ["gcc", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(ROOT / "bench" / "streams.c")]
    subprocess.run([*command, "-o", str(out)], check=True)
    kernel = getattr(ctypes.CDLL(str(out)), name)
    kernel.argtypes = [ctypes.c_int, ctypes.c_int64, *[ctypes.c_void_p] * 4]
    kernel.restype = ctypes.c_double
    shutil.rmtree(out.parent)
    size, pointers = tensors[0].numel(), [t.data_ptr() for t in tensors]
    return lambda: kernel(threads, size, *pointers)


def work(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One round of one row, in a process of its own."""
    import torch

    import pullback as pb

    torch.set_num_threads(options.threads)
    pb.set_num_threads(options.threads)
    rule = RULES[name]
    count, size = (min(rule.count, 2), min(rule.size, 1 << 14)) if options.smoke else (rule.count, rule.size)
    answer: dict[str, Any] = {"sides": {}, "refused": [], "versions": {"torch": torch.__version__}}
    answer["versions"]["pullback"] = f"{pb.__version__} ({pb.isa_level()})"
    if rule.theirs and rule.tolerance is not None:
        error = difference(rule)
        if error <= rule.tolerance:
            answer["error"] = float(f"{error:.3g}")
        else:
            answer["refused"].append(f"torch: three steps differ from pullback by {error:.3g}, not timed")
    params, grads = tensors(rule, count, size, 0)
    ours = shared(params), shared(grads)
    steps: dict[str, Any] = {"pullback": our_step(rule, *ours)}
    if rule.theirs and not answer["refused"]:
        steps["torch"] = their_step(rule, params, grads)
    if name == "norm pass":
        flat = torch.cat([g.reshape(-1) for g in grads])
        steps["pullback"] = our_step(rule, [], shared([flat]))
        steps["torch"] = their_step(rule, [], [flat])
        steps["read"] = streams("stream_read", options.threads, [flat] * 4)
    elif name == "AdamW 50M":
        states = [torch.zeros_like(params[0]) for _ in range(2)]
        steps["stream"] = streams("stream_step", options.threads, [params[0], grads[0], *states])
    elif name != "Muon" and not (name.startswith("AdamW") and rule.theirs):
        steps["pullback-adamw"] = our_step(RULES["AdamW 100 x 100k"], *ours)
    loaded = {}
    for side, step in steps.items():
        if step is not None:
            loaded[side] = Loaded(Work("step()", {"step": step}, dict), options.seconds)
            answer["sides"][side] = []
    order = list(loaded)
    for block in range(options.blocks):
        turn = block % len(order)
        for side in order[turn:] + order[:turn]:
            time.sleep(PAUSE)
            answer["sides"][side].append({"block": block, **loaded[side].block(options.seconds)})
    return answer


# ---- the runner


def goals() -> list[dict[str, Any]]:
    """The goals of this file, one row per case."""
    rows = json.loads(stats.GOALS.read_text())["optim"]
    return [{**row, "case": name} for row in rows for name in row["cases"]]


def console(result: dict[str, Any]) -> str:
    """Time, achieved and ideal speed, the ratios and the goals of every row."""
    ideal = speed(result, "AdamW 50M", "stream")
    lines = [["rule", "time", "GB/s", "ideal GB/s", "/existing", "which", "/AdamW", "goals"]]
    for case in result["cases"]:
        rule = RULES[case["name"]]
        found = [stats.Verdict(g, stats.measure(result, case, g)) for g in goals() if g["case"] == case["name"]]
        top = speed(result, case["name"], "read") if "read" in case["sides"] else ideal
        lines.append(
            [
                case["name"],
                table.amount(stats.value(case, "pullback"), "s"),
                table.fixed(speed(result, case["name"], "pullback"), 1) if rule.bytes else "",
                table.fixed(top, 1) if rule.bytes else "",
                table.fixed(stats.ratio(case, "pullback", "torch")),
                rule.theirs[0] if rule.theirs else "",
                table.fixed(stats.ratio(case, "pullback", "pullback-adamw")),
                "; ".join(f"{aim(v.goal)} {v}" + (f" ({v.measured:.2f})" if v.measured else "") for v in found),
            ]
        )
    every = [
        stats.Verdict(g, stats.measure(result, c, g))
        for c in result["cases"]
        for g in goals()
        if g["case"] == c["name"]
    ]
    met = [v.met for v in every]
    note = f"goals: {met.count(True)} met, {met.count(False)} not met, {met.count(None)} not measured"
    return "\n".join([table.aligned(lines), "", note])


def aim(goal: dict[str, Any]) -> str:
    return f"{goal['side']}/{goal['to']}" if "side" in goal else f"/{goal['to']}"


def speed(result: dict[str, Any], name: str, side: str) -> float | None:
    """Ideal bytes over the time, in GB/s."""
    for case in result["cases"]:
        seconds = stats.value(case, side) if case["name"] == name else None
        if seconds:
            return case["bytes"] / seconds / 1e9
    return None


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="the beginning of a row's name; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of every side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="fresh processes per row (%(default)s)")
    parser.add_argument("--blocks", type=int, default=2, metavar="N", help="timed blocks per process (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, metavar="S", help="length of a block (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the result goes (default: build/bench/)")
    parser.add_argument("--smoke", action="store_true", help="one short round on few numbers: shows that it runs")
    parser.add_argument("--work", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.blocks, options.seconds = 1, 2, 0.01
    if min(options.rounds, options.blocks, options.threads) < 1 or options.seconds <= 0:
        parser.error("--rounds, --blocks, --threads and --seconds must be positive")
    return options


def run_row(name: str, number: int, options: argparse.Namespace, package: Path, rows: dict[str, Any]) -> dict[str, str]:
    """One process for one row; adds to its case and gives the versions that took part."""
    rule = RULES[name]
    empty = {"flop": 0.0, "bytes": float(rule.bytes * rule.count * rule.size), "checks": [], "refused": [], "sides": {}}
    row = rows.setdefault(name, {"name": name, "group": "optimizer", "unit": "s", **empty})
    command = [sys.executable, str(Path(__file__).resolve()), "--work", name, "--threads", str(options.threads)]
    command += ["--blocks", str(options.blocks), "--seconds", str(options.seconds)] + ["--smoke"] * options.smoke
    env = environment(package, options.threads)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        row["refused"].append(f"the process ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
        return {}
    answer = json.loads(done.stdout.splitlines()[-1])
    row["refused"] += answer["refused"]
    if "error" in answer:
        check = {"round": number, "side": "torch", "error": answer["error"], "tolerance": rule.tolerance}
        row["checks"].append(check)
    for side, blocks in answer["sides"].items():
        row["sides"].setdefault(side, []).extend({"round": number, **block} for block in blocks)
    return answer["versions"]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.work:
        print(json.dumps(work(options.work, options)))
        return 0
    names = [n for n in RULES if not options.only or any(n.lower().startswith(o.lower()) for o in options.only)]
    if options.list or not names:
        print("\n".join(names) if names else f"no row begins with {', '.join(options.only)}")
        return 0 if names else 2
    package = find_package()
    if package is None:
        print("bench: there is no built pullback\nhelp: pip install .", file=sys.stderr)
        return 2
    start, now = time.perf_counter(), datetime.datetime.now(datetime.UTC)
    rows: dict[str, Any] = {}
    versions = machine.versions(package)
    for number in range(options.rounds):
        for i, name in enumerate(names):
            print(f"round {number + 1}/{options.rounds}, {i + 1}/{len(names)}: {name}", file=sys.stderr)
            versions |= run_row(name, number, options, package, rows)
    result = {
        "schema": 1,
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": "python bench/optim.py " + " ".join(sys.argv[1:] if arguments is None else arguments),
        **machine.commit(),
        "complete": not options.only and not options.smoke,
        "machine": {**machine.cpu(), "memory_mib": machine.memory_mib(), "system": platform.platform()},
        "threads": options.threads,
        "versions": versions,
        "settings": {"rounds": options.rounds, "blocks": options.blocks, "seconds": options.seconds},
        "sides": {name: {"what": what, "env": {}} for name, what in SIDES.items()},
        "ceilings": [],
        "cases": list(rows.values()),
        "seconds": round(time.perf_counter() - start, 1),
    }
    wrong = schema.problems(result)
    if wrong:
        raise SystemExit("bench: the result does not fit schema.json\n" + "\n".join(wrong[:10]))
    out = options.out or ROOT / "build" / "bench" / f"optim-{now.strftime('%Y-%m-%d-%H%M%S')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(table.dump(result))
    print(console(result))
    print(f"{result['seconds']:.0f} s; written to {out}")
    refused = [f"{c['name']}: {text}" for c in result["cases"] for text in c["refused"]]
    print("\n".join(refused), file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
