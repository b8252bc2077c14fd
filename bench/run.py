"""Runs the benchmarks: `python -m pullback bench`, or this file. README.md beside it tells what is done and why."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import footprint, machine, schema, table  # noqa: E402
from bench.cases import Case, all_cases  # noqa: E402
from bench.libs import PEERS, SIDES, there  # noqa: E402

RESULTS = ROOT / "bench" / "results"
#: No side runs under these; the first halves the speed of OpenBLAS where it names another CPU.
UNSET = ("OPENBLAS_CORETYPE", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "PULLBACK_ISA")
PAUSE = 0.02  # lets the threads of the side that was just timed fall asleep


class Refused(Exception):
    """A side could not do a case."""


def environment(package: Path, threads: int, side: str | None = None) -> dict[str, str]:
    """What a child runs under: explicit threads, the pullback that was found, nothing that bends a library."""
    env = {k: v for k, v in os.environ.items() if k not in UNSET}
    env |= {"PYTHONPATH": str(package.parent), "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    return env | (SIDES[side].env if side else {})


class Worker:
    """A process that runs one side. See worker.py."""

    def __init__(self, side: str, package: Path, threads: int) -> None:
        self.side = side
        command = [sys.executable, str(ROOT / "bench" / "worker.py"), side, str(threads)]
        env = environment(package, threads, side)
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, **command: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # receive() tells

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Refused(f"{self.side}: the process ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(f"{self.side}: {answer['error']}")
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        self.send(**command)
        return self.receive()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()  # it holds nothing that is worth an orderly end
        self.process.wait()


def difference(ours: Path, theirs: Path) -> float:
    """The largest difference between two files of outputs, as a share of the largest element; infinite with a NaN."""
    import numpy as np

    largest = 0.0
    with np.load(ours) as a, np.load(theirs) as b:
        if sorted(a.files) != sorted(b.files):
            return float("inf")
        for name in a.files:
            x, y = a[name].astype(np.float64), b[name].astype(np.float64)
            if x.shape != y.shape:
                return float("inf")
            if name.endswith("/sums"):  # a sum of signed numbers may cancel: the sum of absolute values is the scale
                error = np.max(np.abs(x - y)) / (y[1] + 1e-30)
            elif name.endswith("/shape"):
                error = 0.0 if np.array_equal(x, y) else np.inf
            else:
                error = np.max(np.abs(x - y), initial=0.0) / (np.max(np.abs(y), initial=0.0) + 1e-30)
            largest = max(largest, float(error) if np.isfinite(error) else float("inf"))
    return largest


class Run:
    """One invocation: its settings, and the result as it grows."""

    def __init__(self, options: argparse.Namespace, package: Path, peers: list[str]) -> None:
        self.options, self.package, self.peers = options, package, peers
        self.rows: dict[str, dict[str, Any]] = {}
        self.versions = machine.versions(package)

    def row(self, case: Case) -> dict[str, Any]:
        empty = {"flop": case.flop, "bytes": case.bytes, "checks": [], "refused": [], "sides": {}}
        return self.rows.setdefault(case.name, {"name": case.name, "group": case.group, "unit": "s", **empty})

    def measure(self, case: Case, number: int) -> None:
        """One round of one case: new processes, a check, then blocks in turns."""
        row = self.row(case)
        special = [
            s
            for s in case.sides
            if s not in self.options.skip and (s.startswith("pullback") or self.peers) and there(s)
        ]
        names = ["pullback", *self.peers, *special]
        workers = [Worker(side, self.package, self.options.threads) for side in names]
        try:
            with tempfile.TemporaryDirectory() as folder:
                ready = self.load(case, number, row, workers, Path(folder))
            for block in range(self.options.blocks):
                turn = block % len(ready) if ready else 0
                for worker in ready[turn:] + ready[:turn]:
                    time.sleep(PAUSE)
                    answer = worker.ask(do="block", seconds=self.options.seconds)
                    row["sides"].setdefault(worker.side, []).append({"round": number, "block": block, **answer})
        except Refused as refusal:
            row["refused"].append(str(refusal))
        finally:
            for worker in workers:
                worker.close()

    def load(self, case: Case, number: int, row: dict[str, Any], workers: list[Worker], folder: Path) -> list[Worker]:
        """Builds the work on every side at once, compares, warms up in turns; gives the sides that may be timed."""
        ready: list[Worker] = []
        ours = folder / "pullback.npz"
        for worker in workers:
            worker.send(do="load", case=case.name, file=str(folder / f"{worker.side}.npz"))
        for worker in workers:
            file = folder / f"{worker.side}.npz"
            try:
                answer = worker.receive()
            except Refused as refusal:
                row["refused"].append(str(refusal))
                if worker.side == "pullback":
                    return []
                continue
            self.versions[worker.side] = answer["version"]
            if worker.side != "pullback":
                error = difference(ours, file)
                bound = case.apart if case.apart and worker.side == "pullback-float32" else case.tolerance
                if not error <= bound:
                    row["refused"].append(f"{worker.side}: differs from pullback by {error:.3g}, not timed")
                    continue
                check = {"round": number, "side": worker.side, "error": float(f"{error:.3g}")}
                row["checks"].append({**check, "tolerance": bound})
            ready.append(worker)
        if self.peers and not any(worker.side in self.peers for worker in ready):
            return []  # nothing agreed: a time of ours alone would look like a result
        for worker in ready:
            worker.ask(do="warm", seconds=self.options.seconds)
        return ready

    def memory(self, name: str, number: int) -> None:
        """Peak memory of five steps of a training case on every side, each in a new process."""
        title = name.replace("step", "peak memory")
        row = self.rows.setdefault(title, footprint.row(title, "MiB", {}))
        for side in ["pullback", *self.peers]:
            worker = Worker(side, self.package, self.options.threads)
            try:
                answer = worker.ask(do="memory", case=name, steps=5)
                row["sides"].setdefault(side, []).append(footprint.block(number, answer["growth"]))
            except Refused as refusal:
                row["refused"].append(str(refusal))
            finally:
                worker.close()

    def ceilings(self) -> list[dict[str, Any]]:
        script = str(ROOT / "bench" / "ceilings.py")
        command = [sys.executable, script, str(self.options.threads), str(min(1.0, self.options.seconds / 0.1))]
        env = environment(self.package, self.options.threads)
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"no ceilings: {done.stderr.strip()}", file=sys.stderr)
            return []
        return json.loads(done.stdout)


def chosen(options: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """The cases and footprint rows that --only names: a group, or the beginning of a name."""

    def wanted(name: str, group: str) -> bool:
        return not options.only or any(o == group or name.lower().startswith(o.lower()) for o in options.only)

    cases = [c for c in all_cases() if wanted(c.name, c.group)]
    return cases, [n for n in footprint.NAMES if wanted(n, "footprint")]


def everything(run: Run, cases: list[Case], extras: list[str]) -> list[dict[str, Any]]:
    """All rounds, round by round, so that a slow quarter of an hour does not fall on one case; gives the ceilings."""
    ceilings: dict[tuple[str, int], dict[str, Any]] = {}
    for number in range(run.options.rounds):
        for c in run.ceilings() if not run.options.no_ceilings else []:
            ceilings.setdefault((c["name"], c["threads"]), {**c, "samples": []})["samples"] += c["samples"]
        for i, case in enumerate(cases):
            print(f"round {number + 1}/{run.options.rounds}, {i + 1}/{len(cases)}: {case.name}", file=sys.stderr)
            run.measure(case, number)
        for name in footprint.STEPS if number == 0 else ():
            if name.replace("step", "peak memory") in extras:
                run.memory(name, number)
    if {"import", "RSS after import"} & set(extras):
        sides = ["pullback", *(p for p in run.peers if p == "torch")]
        env = environment(run.package, run.options.threads)
        rows = footprint.imports(sides, 2 * run.options.rounds + 1, env)
        run.rows |= {r["name"]: r for r in rows if r["name"] in extras}
    if footprint.TRAINER in extras:
        rows = footprint.trainer(run.options.rounds, environment(run.package, 1))
        run.rows |= {r["name"]: r for r in rows}
    if "wheel" in extras:
        run.rows |= {r["name"]: r for r in footprint.wheel()}
    return list(ceilings.values())


def find_package() -> Path | None:
    """The folder of the pullback to measure: the one this interpreter imports, else a built one in the source tree."""
    spec = importlib.util.find_spec("pullback")
    if spec is not None and spec.origin:
        return Path(spec.origin).resolve().parent
    tree = ROOT / "python" / "pullback"
    return tree if list(tree.glob("_core*.so")) else None


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pullback bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="a group, or the beginning of a case's name")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of every side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes per case (%(default)s)")
    parser.add_argument("--blocks", type=int, default=2, metavar="N", help="timed blocks per process (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.12, metavar="S", help="length of a block (%(default)s)")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="NAMES", help="who to compare with (%(default)s)")
    special = ", ".join(n for n, s in SIDES.items() if s.special)
    parser.add_argument("--skip", action="append", default=[], metavar="SIDE", help=f"leave out one of {special}")
    parser.add_argument("--no-ceilings", action="store_true", help="do not measure the machine's limits")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the result goes (default: bench/results/)")
    parser.add_argument("--smoke", action="store_true", help="one short round: shows that it runs, measures nothing")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.blocks, options.seconds = 1, 2, 0.01
    if min(options.rounds, options.blocks, options.threads) < 1 or options.seconds <= 0:
        parser.error("--rounds, --blocks, --threads and --seconds must be positive")
    return options


def available_peers(options: argparse.Namespace) -> list[str]:
    peers = [p for p in options.peers.split(",") if p and p != "none"]
    unknown = [p for p in peers if p not in PEERS]
    if unknown:
        raise SystemExit(f"bench: unknown peer {unknown[0]!r}\nhelp: known are {', '.join(PEERS)} and none")
    if peers and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: measuring pullback alone (pip install torch)", file=sys.stderr)
        return []
    return peers


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    cases, extras = chosen(options)
    if options.list:
        print("\n".join([f"{c.group:10} {c.name}" for c in cases] + [f"{'footprint':10} {n}" for n in extras]))
        return 0
    if not cases and not extras:
        raise SystemExit(f"bench: nothing is named {', '.join(options.only)}\nhelp: --list prints the names")
    package = find_package()
    if package is None:
        raise SystemExit("bench: pullback is neither installed nor built\nhelp: pip install . or see CONTRIBUTING.md")
    peers = available_peers(options)
    run, start = Run(options, package, peers), time.perf_counter()
    ceilings = everything(run, cases, extras)
    now = datetime.datetime.now(datetime.UTC)
    if peers:
        run.versions["torch"] = machine.peer_version(sys.executable) or run.versions.get("torch", "")
    result = {
        "schema": 1,
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": "python -m pullback bench " + " ".join(sys.argv[1:] if arguments is None else arguments),
        **machine.commit(),
        "complete": not options.only and not options.smoke and bool(peers),
        "machine": {**machine.cpu(), "memory_mib": machine.memory_mib(), "system": platform.platform()},
        "threads": options.threads,
        "versions": run.versions,
        "settings": {"rounds": options.rounds, "blocks": options.blocks, "seconds": options.seconds},
        "sides": {n: {"what": s.what, "env": s.env} for n, s in SIDES.items() if peers or n.startswith("pullback")},
        "ceilings": ceilings,
        "cases": list(run.rows.values()),
        "seconds": round(time.perf_counter() - start, 1),
    }
    wrong = schema.problems(result)
    if wrong:
        raise SystemExit("bench: the result does not fit schema.json\n" + "\n".join(wrong[:10]))
    folder = RESULTS if result["complete"] else ROOT / "build" / "bench"
    out = options.out or folder / f"{now.strftime('%Y-%m-%d-%H%M%S')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(table.dump(result))
    print(table.console(result))
    print(f"{result['seconds']:.0f} s; written to {out}")
    if result["complete"]:
        print("python bench/table.py --write renews README's table")
    refused = [f"{c['name']}: {text}" for c in result["cases"] for text in c["refused"]]
    print("\n".join(refused), file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
