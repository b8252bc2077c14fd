"""pb.profile: calls, bytes, what belongs to whom; nothing outside a block."""

import json
import threading

import pytest

import pullback as pb
from pullback import nn


@pytest.fixture
def model():
    pb.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Sequential(nn.Linear(128, 10), nn.LayerNorm(10)))


def test_calls_and_bytes_of_ops(model):
    x = pb.ones((32, 64))
    with pb.profile() as p:
        for _ in range(3):
            model(x).sum().backward()
    rows = {r.name: r for r in p.ops()}
    assert {name: rows[name].calls for name in ("linear", "gelu", "layer_norm", "sum")} == {
        "linear": 6, "gelu": 3, "layer_norm": 3, "sum": 3,
    }  # fmt: skip
    assert all(r.forward > 0 for name, r in rows.items() if r.calls)
    assert all(rows[name].backward > 0 for name in ("linear", "gelu", "layer_norm", "sum"))
    forward = [e for e in p.events if e.kind == "forward" and e.name == "gelu"]
    assert [e.bytes for e in forward] == [32 * 128 * 4] * 3
    assert sum(r.forward + r.backward for r in rows.values()) <= p.seconds


def test_own_time_leaves_out_what_is_inside(model):
    """Composed ops: the sums of own times are those of the outermost events, exactly."""
    x = pb.ones((8, 64)).requires_grad_()
    with pb.profile() as p:
        pb.std(model(x)).backward()
    events = [e for e in p.events if e.kind != "module"]
    outermost, end = 0, 0
    for e in events:
        if e.start >= end:
            outermost, end = outermost + e.end - e.start, e.end
    assert round(sum(r.forward + r.backward for r in p.ops()) * 1e9) == outermost
    total = sum(
        e.bytes for e in events if not any(o.start <= e.start and e.end <= o.end and o is not e for o in events)
    )
    assert sum(r.bytes for r in p.ops()) == total


def test_modules(model):
    x = pb.ones((32, 64))
    with pb.profile() as p:
        loss = model(x).sum()
        loss.backward()
    rows = p.modules()
    assert [r.name for r in rows] == [
        "Sequential",
        "Sequential.0 (Linear)",
        "Sequential.1 (GELU)",
        "Sequential.2 (Sequential)",
        "Sequential.2.0 (Linear)",
        "Sequential.2.1 (LayerNorm)",
    ]
    by_name = {r.name: r for r in rows}
    whole, parts = by_name["Sequential"], [by_name[n] for n in list(by_name)[1:4]]
    assert whole.forward >= sum(r.forward for r in parts)
    assert whole.bytes == sum(r.bytes for r in parts) > 0
    steps = [e for e in p.events if e.kind == "backward"]
    assert abs(whole.backward - sum(r.backward for r in parts)) <= 1e-12
    assert whole.backward < sum(e.end - e.start for e in steps) * 1e-9  # the sum's own step is outside of the model
    assert by_name["Sequential.1 (GELU)"].backward == next(e.end - e.start for e in steps if e.name == "gelu") * 1e-9


def test_optimizer_and_tables(model, tmp_path):
    optimizer = pb.optim.Adam(model.parameters())
    with pb.profile() as p:
        model(pb.ones((2, 64))).sum().backward()
        optimizer.step()
    assert "optimizer step" in {r.name for r in p.ops()}
    assert "Sequential.2.1 (LayerNorm)" in str(p) and "layer_norm" in p.table(limit=50)
    p.chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == len(p.events)
    assert all(e["ph"] == "X" and e["dur"] >= 0 for e in events)


def test_threads_are_told_apart():
    def work():
        for _ in range(20):
            pb.sin(pb.ones((1000,)))

    with pb.profile() as p:
        workers = [threading.Thread(target=work) for _ in range(3)]
        for w in workers:
            w.start()
        work()
        for w in workers:
            w.join()
    found = [e.thread for e in p.events if e.name == "sin"]
    assert len(found) == 80 and len(set(found)) == 4


def test_nothing_outside_and_one_at_a_time(model):
    call = nn.Module.__call__
    with pb.profile() as p:
        assert nn.Module.__call__ is not call
        with pytest.raises(RuntimeError, match="a profile is being recorded already"), pb.profile():
            pass
        pb.ones(3) + 1
    before = len(p.events)
    model(pb.ones((2, 64)))
    assert nn.Module.__call__ is call and len(p.events) == before == 1
    with pytest.raises(ValueError), pb.profile() as p:
        raise ValueError
    assert nn.Module.__call__ is call
