"""Device memory: the caching allocator, its figures and errors, streams, events, several devices, forked processes."""

from __future__ import annotations

import gc
import os

import common
import numpy as np
import pytest

import pullback as pb
from pullback import _core as C

MIB = 1 << 20


def stats():
    return pb.cuda.memory_stats()


@pytest.fixture(autouse=True)
def _clean():
    gc.collect()
    pb.cuda.empty_cache()
    yield
    gc.collect()


def test_a_freed_block_is_handed_out_again():
    a = pb.empty((1000,), device="cuda")
    address, calls = a._address, stats()["system_calls"]
    del a
    b = pb.empty((900,), device="cuda")
    assert b.device == "cuda:0" and b._address == address and stats()["system_calls"] == calls


def test_blocks_do_not_overlap_and_join_again():
    sizes = [1, 127, 128, 129, 5000, 70000, 300000, 2, 0, 31]
    tensors = [pb.full((n,), i, dtype=pb.float32, device="cuda") for i, n in enumerate(sizes)]
    for i, (n, t) in enumerate(zip(sizes, tensors, strict=True)):
        assert t.tolist() == [float(i)] * n
    assert all(t._address % 512 == 0 for t in tensors)
    before = stats()
    assert before["current"] == sum(4 * n for n in sizes) and before["blocks"] == len(sizes)
    del tensors, t
    assert stats()["current"] == 0 and stats()["blocks"] == 0
    assert stats()["largest_free"] >= 2 * MIB and stats()["reserved"] == before["reserved"]
    pb.cuda.empty_cache()
    assert stats()["reserved"] == 0 and stats()["segments"] == 0


def test_the_best_block_is_cut():
    large = pb.empty((30 * MIB,), dtype=pb.uint8, device="cuda")
    end = large._address + 30 * MIB
    del large
    parts = [pb.empty((12 * MIB,), dtype=pb.uint8, device="cuda") for _ in range(2)]
    assert stats()["segments"] == 1 and all(p._address + 12 * MIB <= end for p in parts)
    assert stats()["reserved"] == 30 * MIB


def test_figures():
    pb.cuda.reset_peak_memory()
    calls = stats()["allocations"]
    a = pb.zeros((MIB,), device="cuda")
    assert stats()["current"] == 4 * MIB == stats()["peak"] and stats()["allocations"] == calls + 1
    del a
    assert stats()["current"] == 0 and stats()["peak"] == 4 * MIB
    pb.cuda.reset_peak_memory("cuda:0")
    assert stats()["peak"] == 0
    assert pb.memory.stats("cuda") == stats()
    assert stats()["device_total"] >= stats()["device_free"] > 0


def test_out_of_memory_names_sizes_and_holders_and_can_be_repeated():
    total = stats()["device_total"]
    held = pb.exp(pb.zeros((total // 16,), device="cuda"))  # a quarter, by exp
    half = total // 2
    keep = pb.zeros((half,), dtype=pb.uint8, device="cuda")
    with pytest.raises(MemoryError, match="is out of memory: .* were asked for") as info:
        pb.add(keep, keep)
    text = str(info.value)
    assert text.startswith("add: cuda:0") and "1 x" in text and "by exp" in text and "help:" in text
    assert stats()["retries"] >= 1
    del keep
    assert pb.add(held, held)[0].item() == 2.0


def test_a_step_that_ran_out_of_memory_can_be_repeated():
    w = pb.ones((4, 256), device="cuda").requires_grad_()
    opt = pb.optim.AdamW([w], lr=0.1)
    hog = [pb.zeros((stats()["device_total"] * 3 // 5,), dtype=pb.uint8, device="cuda")]

    def step(rows):
        loss = pb.mean(pb.exp(pb.broadcast_to(w, (rows, 4, 256)) * 0.5))
        loss.backward()
        opt.step()
        opt.zero_grad()

    rows = stats()["device_total"] // 2 // 4096
    with pytest.raises(MemoryError, match="largest holders"):
        step(rows)
    assert w.tolist() == pb.ones((4, 256)).tolist() and w.grad is None
    hog.clear()
    step(8)
    assert w[0, 0].item() == pytest.approx(0.899, abs=1e-3)


def test_streams_and_events():
    side = pb.cuda.Stream()
    x = pb.arange(1000, dtype=pb.float32).to("cuda")
    made = pb.cuda.Event()
    made.record()
    with side:
        made_here = pb.empty((1,), device="cuda")
        side.wait(made)
        y = x * 2
    side.uses(x)
    done = side.record()
    done.synchronize()
    assert done.query() and side.query()
    assert y.tolist() == [2.0 * i for i in range(1000)]
    del x, made_here
    assert repr(side) == "Stream('cuda:0')" and side.device == "cuda:0"
    side.synchronize()
    pb.cuda.synchronize()
    start, stop = pb.cuda.Event(timing=True), pb.cuda.Event(timing=True)
    start.record()
    pb.zeros(10, device="cuda")
    stop.record()
    stop.synchronize()
    assert start.elapsed(stop) >= 0
    with pytest.raises(ValueError, match="both events must be recorded"):
        done.elapsed(stop)


def test_memory_of_a_stream_stays_with_it():
    side = pb.cuda.Stream()
    with side:
        a = pb.empty((1000,), device="cuda")
        address = a._address
        del a
    assert pb.empty((1000,), device="cuda")._address != address
    with side:
        assert pb.empty((1000,), device="cuda")._address == address


def test_two_devices():
    if pb.cuda.device_count() < 2:
        pytest.skip("one device")
    x = pb.arange(6, dtype=pb.float32).to("cuda:1")
    assert x.device == "cuda:1" and (x + 1).device == "cuda:1"
    y = x.to("cuda:0")
    assert y.device == "cuda:0" and y.tolist() == x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    with pytest.raises(pb.DeviceError, match="the tensors lie on cuda:1 and cuda:0"):
        x + y
    before = pb.cuda.memory_stats("cuda:1")["current"]
    z = pb.zeros((256,), device="cuda:1")
    assert pb.cuda.memory_stats(1)["current"] == before + 1024 and z.sum().item() == 0
    w = pb.ones(3, device="cuda:1").requires_grad_()
    (w.to("cuda:0") * 2).sum().backward()
    assert w.grad.device == "cuda:1" and w.grad.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(pb.DeviceError, match="the parameters lie on cuda:0 and cuda:1"):
        pb.optim.SGD([_with_grad("cuda:0"), _with_grad("cuda:1")], lr=0.1).step()


def _with_grad(device):
    p = pb.ones(2, device=device).requires_grad_()
    p.grad = pb.ones(2, device=device)
    return p


def test_devices_that_are_not_there():
    for call in (lambda: pb.zeros(2, device="cuda:99"), lambda: pb.ones(2).to("cuda:99")):
        with pytest.raises(pb.DeviceError, match="device 'cuda:99' is not available: there is no such GPU"):
            call()
    for name in ("gpu", "cuda:", "cuda:x", "cuda:1234", 3):
        with pytest.raises(pb.DeviceError, match="is no device"):
            pb.zeros(2, device=name)
    with pytest.raises(pb.DeviceError, match="is no CUDA device"):
        pb.cuda.memory_stats("cpu")


def test_pinned_memory():
    x = C._pin(pb.arange(5))
    assert x.tolist() == [0, 1, 2, 3, 4] and x.device == "cpu"
    with pytest.raises(pb.DeviceError, match="lies on a device already"):
        C._pin(pb.zeros(2, device="cuda"))
    batch = {"x": pb.ones((2, 3)), "y": (pb.arange(2), "name")}
    for k in range(5):
        batch["x"] = pb.full((2, 3), float(k))
        moved = pb.cuda.to_device(batch, "cuda")
        assert moved["x"].device == "cuda:0" and moved["x"].tolist() == [[float(k)] * 3] * 2
        assert moved["y"][0].tolist() == [0, 1] and moved["y"][1] == "name"


def test_a_forked_child_is_told():
    pb.zeros(1, device="cuda")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        text = "no error"
        try:
            pb.zeros(1, device="cuda")
        except pb.DeviceError as error:
            text = str(error)
        os.write(write, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    text = os.read(read, 1000).decode()
    assert "before this process was forked" in text and "spawn" in text


def test_large_shapes_are_refused_without_harm():
    with pytest.raises(MemoryError, match="is out of memory"):
        pb.empty((2**40,), device="cuda")
    assert pb.ones(3, device="cuda").sum().item() == 3
    assert common.DEVICE == "cuda"
    assert np.asarray(pb.empty((0, 5), device="cuda")).shape == (0, 5)
