"""The emulator itself: schedules, barriers, warp functions, memory, and the mistakes that it must name."""

from __future__ import annotations

import re
import subprocess
import sys

import emulator_library as table
import numpy as np
import pytest


@pytest.fixture(scope="session")
def library() -> table.Library:
    return table.Library(table.build())


@pytest.fixture(params=[table.ASCENDING, table.DESCENDING, table.SHUFFLED], ids=["up", "down", "shuffled"])
def each_order(request, library) -> table.Library:
    library.begin(request.param, seed=3)
    return library


def test_kernels_are_compiled_by_path():
    """Neither a kernel nor a copy of one lies beside the emulator."""
    files = [p for p in table.SOURCES.rglob("*") if p.is_file() and p.suffix != ".txt"]
    assert len(files) > 10
    for path in files:
        assert "__" + "global__" not in path.read_text(), path
        assert path.suffix != ".cu", path
    assert "csrc/cuda/*.cu" in (table.SOURCES / "CMakeLists.txt").read_text()


def test_votes(each_order):
    got = each_order.probe("votes", threads=64)[:64]
    assert (got == 32 * 4 + 2).all()


def test_shuffles(each_order):
    got = each_order.probe("shuffles", threads=64)[: 6 * 64].reshape(6, 64)
    x = np.arange(64)
    lane, base = x % 32, x // 32 * 32
    assert (got[0] == base + 5).all()
    assert (got[1] == np.where(lane >= 3, x - 3, x)).all()
    assert (got[2] == np.where(lane + 3 < 32, x + 3, x)).all()
    assert (got[3] == (x ^ 6)).all()
    assert (got[4] == x // 8 * 8 + 1).all()
    assert (got[5] == np.where(x % 16 + 7 < 16, x + 7, x)).all()


def test_warp_values(each_order):
    got = each_order.probe("warp_values", threads=64)[: 6 * 64].reshape(6, 64)
    lane = np.arange(64) % 32
    assert (got[0] == 496).all()
    assert (got[1] == -9).all()
    assert (got[2] == -20).all()
    assert (got[3] == np.where(lane % 3 == 2, 10, 11)).all()
    assert (got[4] == 1).all()
    assert (got[5] == 0).all()


def test_atomics_and_blocks(each_order):
    assert each_order.probe("total", blocks=7, threads=96)[0] == 7 * 96


def test_dynamic_shared_memory(each_order):
    assert (each_order.probe("dynamic_shared_memory", threads=64)[:64] == np.arange(64)[::-1]).all()


def test_three_orders(library):
    """Threads come in the order of the schedule; a seed gives the same shuffle again."""

    def order(which, seed=1):
        library.begin(which, seed)
        return library.probe("order", threads=128)[:128].astype(int).tolist()

    assert order(table.ASCENDING) == list(range(128))
    assert order(table.DESCENDING) == list(range(127, -1, -1))
    one = order(table.SHUFFLED, 5)
    assert sorted(one) == list(range(128)) and one == order(table.SHUFFLED, 5) and one != order(table.SHUFFLED, 6)


def test_shared_memory_starts_as_nan(library):
    library.begin()
    assert np.isnan(library.probe("unwritten_shared")[:64]).all()


def test_a_missing_barrier_shows_in_some_order(library):
    seen = []
    for order in (table.ASCENDING, table.DESCENDING, table.SHUFFLED):
        library.begin(order)
        seen.append(bool(np.isnan(library.probe("missing_barrier")[:64]).any()))
    assert any(seen)


MISTAKES = {
    "divergent": r"divergent barrier: thread \d+ at probes.cpp:\d+, others wait at probes.cpp:\d+, in block",
    "early_return": r"a thread returned before a barrier: .*wait at the barrier of probes.cpp:\d+.*"
    r"thread 5 returned without waiting anywhere",
    "half_warp": r"(deadlock: .*wait for lanes of the warp|the mask of a warp function) at probes.cpp:\d+",
    "returned_lane": r"thread 3 (has )?returned.* probes.cpp:\d+",
    "foreign_mask": r"whose mask does not name it",
    "outside_lane": r"from lane 20, which the mask does not name",
    "other_function": r"lanes disagree: thread \d+ at probes.cpp:\d+, thread \d+ at probes.cpp:\d+",
    "past_end": r"illegal address 0x[0-9a-f]+ \(\d+ bytes past the end of an allocation of 16384 bytes on device 0\)",
    "just_past_end": r"a write 0 bytes past the end of an allocation of 16000 bytes",
    "host_memory": r"illegal address 0x40 \(no device memory\): thread \d+, block",
    "past_shared": r"a write past the end of the shared array few of probes.cpp:\d+",
    "deep": r"illegal address",
    "misaligned": r"misaligned address or another trap: thread \d+",
    "trapped": r"__trap\(\): thread 7 at probes.cpp:\d+",
    "no_dynamic_shared_memory": r"launched with none",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(each_order, name):
    """A message with places, and the process lives on; the device is lost until it is reset, as on a GPU."""
    n = 4000 if name == "just_past_end" else 4096
    with pytest.raises(table.CudaError) as caught:
        each_order.probe(name, n=n)
    assert re.search(MISTAKES[name], str(caught.value)), str(caught.value)
    with pytest.raises((table.CudaError, AssertionError)):
        each_order.probe("total")
    each_order.begin()
    assert each_order.probe("total")[0] == 64


def test_the_host_cannot_touch_device_memory(library):
    """It faults, and the message names the allocation."""
    code = (
        f"import sys, ctypes; sys.path.insert(0, {str(table.ROOT / 'tests')!r})\n"
        "import emulator_library as t, numpy as np\n"
        f"l = t.Library({str(library.path)!r})\n"
        "m = l.put(np.zeros(100, np.float32))\n"
        "print(ctypes.c_float.from_address(m.address + 8).value)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -11, done.stdout + done.stderr
    assert "the host touched device memory: 8 bytes into an allocation of 400 bytes on device 0" in done.stderr


def test_errors_on_request(library):
    library.begin()
    library.c.emulator_fail_at(b"cudaLaunchKernel", 2, 719)
    library.probe("total")
    with pytest.raises(table.CudaError, match="unspecified launch failure"):
        library.probe("total")
    library.probe("total")
