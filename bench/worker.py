"""One side of one case in a process of its own; reads commands from stdin, one JSON line each, and answers in kind.

load CASE: builds the work, runs it once and saves its outputs to a file for the runner to compare.
warm SECONDS: runs it a few times more, and finds how many runs make a sample.
block SECONDS: runs the work for about that long; gives seconds per run of up to 20 samples, and how busy others were.
memory CASE STEPS: peak memory of building the work and running it, above what the process had after its imports.
Between commands the process sleeps in read(), so the other side has the machine to itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
import timeit
from pathlib import Path
from typing import Any

SAMPLES = 20


def resident(key: str) -> float:
    """VmRSS or VmHWM of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def machine_busy() -> float:
    """CPU seconds that the whole machine has worked since boot, as seen by the kernel (0.0 where it is not told)."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(f) for f in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_busy() -> float:
    t = os.times()
    return t.user + t.system


class Loaded:
    """A case that is ready to be timed."""

    def __init__(self, work: Any, seconds: float) -> None:
        self.timer = timeit.Timer(work.statement, globals=dict(work.names))
        once = self.timer.timeit(1)
        number = 1
        while once * number < seconds / SAMPLES and number < 1_000_000:
            number *= 4
            once = self.timer.timeit(number) / number
        self.once = once

    def block(self, seconds: float) -> dict[str, Any]:
        samples: list[float] = []
        busy, own, start = machine_busy(), own_busy(), time.perf_counter()
        while len(samples) < 2 or time.perf_counter() - start < seconds:
            number = max(1, round(seconds / SAMPLES / self.once))
            sample = self.timer.timeit(number) / number
            self.once = min(self.once, sample)  # a disturbed first estimate would make far too many samples
            samples.append(float(f"{sample:.5g}"))
        wall = time.perf_counter() - start
        own = own_busy() - own
        return {
            "samples": samples,
            "load": round(os.getloadavg()[0], 2),
            "cores": round(own / wall, 2),
            "others": round(max(0.0, machine_busy() - busy - own) / wall, 2),
        }


def digest(array: Any) -> dict[str, Any]:
    """An output in a form that is cheap to hand over: all of a small array, else a sample with sums of the whole."""
    import numpy as np

    flat = np.asarray(array).reshape(-1)
    stride = max(1, flat.size // 65536 | 1)
    sums = np.array([flat.sum(dtype=np.float64), np.abs(flat).sum(dtype=np.float64)])
    return {"shape": list(np.shape(array)), "values": flat[::stride], "sums": sums}


def save(path: str, outputs: dict[str, Any]) -> list[str]:
    import numpy as np

    arrays = {}
    for name, array in outputs.items():
        d = digest(array)
        arrays |= {f"{name}/shape": np.array(d["shape"]), f"{name}/values": d["values"], f"{name}/sums": d["sums"]}
    np.savez(path, **arrays)
    return list(outputs)


def main(side: str, threads: int) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    channel, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not break the protocol
    from bench.cases import all_cases
    from bench.libs import SIDES

    lib = SIDES[side].library(threads)
    cases = {case.name: case for case in all_cases()}
    work: Any = None
    loaded: Loaded | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "load":
                work = cases[command["case"]].build(lib)
                names = save(command["file"], work.outputs())
                answer: dict[str, Any] = {"outputs": names, "version": lib.version}
            elif command["do"] == "warm":
                assert work is not None
                loaded, answer = Loaded(work, command["seconds"]), {}
            elif command["do"] == "block":
                assert loaded is not None
                answer = loaded.block(command["seconds"])
            elif command["do"] == "memory":
                before = resident("VmRSS")
                work = cases[command["case"]].build(lib)
                timeit.Timer(work.statement, globals=dict(work.names)).timeit(command["steps"])
                answer = {"before": before, "growth": resident("VmHWM") - before}
            else:
                raise ValueError(f"unknown command {command['do']!r}")
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=channel, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
