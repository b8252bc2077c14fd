"""Checkpoints of the trainer, bad arguments, and a run without numpy."""

import json
import os
import subprocess
import sys

import pytest
from trainer_cases import cross_entropy, net, problem, read_csv, read_events, same, sgd, trainer, weights

import pullback as pb
from pullback import nn
from pullback.data import DataLoader
from pullback.train import (
    Callback,
    CSVLogger,
    JSONLogger,
    TensorBoardLogger,
    Trainer,
)

# ---- checkpoints


def full_trainer(folder=None, seed=1, **more):
    model = net(seed, dropout=0.3)
    optimizer = pb.optim.AdamW(model.parameters(), lr=0.01)
    return Trainer(
        model,
        optimizer,
        cross_entropy,
        schedule=pb.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20),
        clip_norm=1.0,
        accumulate=2,
        ema=0.9,
        checkpoint_dir=folder,
        progress=False,
        **more,
    )


def loader(**more):
    return DataLoader(problem(22), 4, shuffle=True, seed=5, **more)


@pytest.mark.parametrize("stop", range(1, 9))
def test_save_and_load_go_on_exactly(tmp_path, stop):
    whole = full_trainer()
    whole.fit(loader(), loader(), epochs=3)
    first = full_trainer()
    first.fit(loader(), loader(), steps=stop)
    first.save(tmp_path / "f")
    second = full_trainer(seed=9)
    pb.random.normal(7)
    second.load(tmp_path / "f")
    second.fit(loader(workers=2), loader(), epochs=3)
    whole.save(tmp_path / "whole")
    second.save(tmp_path / "second")
    if stop % 3 == 0:  # only the validation loader has run once more where an epoch was cut
        assert (tmp_path / "whole").read_bytes() == (tmp_path / "second").read_bytes()
    same(weights(whole.model), weights(second.model))
    assert whole.history.steps == second.history.steps
    assert [r["loss"] for r in whole.history.epochs] == [r["loss"] for r in second.history.epochs]


def test_checkpoints_are_kept_and_resumed(tmp_path):
    t = full_trainer(tmp_path, checkpoint_every=2, keep=2)
    t.fit(loader(), epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000008.safetensors", "step-00000009.safetensors"]
    (tmp_path / ".step-00000010.safetensors.123.tmp").write_bytes(b"left by a killed save")
    before = {p.name: p.read_bytes() for p in t.checkpoints.files()}
    again = full_trainer(tmp_path, checkpoint_every=2, keep=2)
    assert len(again.fit(loader(), epochs=3).steps) == 9
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert len(again.fit(loader(), epochs=4, resume=True).steps) == 12


def test_a_checkpoint_is_plain_safetensors(tmp_path):
    t = full_trainer(tmp_path)
    t.fit(loader(), epochs=1)
    tensors = pb.load(t.checkpoints.files()[-1])
    for name, p in t.model.state_dict().items():
        assert tensors[f"model/{name}"].tolist() == p.tolist()


def test_the_newest_torn_checkpoint_is_passed_over(tmp_path):
    t = full_trainer(tmp_path, checkpoint_every=3)
    t.fit(loader(), epochs=3)
    good = (tmp_path / "step-00000009.safetensors").read_bytes()
    (tmp_path / "step-00000009.safetensors").write_bytes(good[: len(good) // 2])
    again = full_trainer(tmp_path, checkpoint_every=3)
    with pytest.warns(UserWarning, match="resuming from step-00000006.*newer checkpoints are damaged"):
        again.fit(loader(), epochs=3)
    assert (tmp_path / "step-00000009.safetensors").read_bytes() == good
    for p in tmp_path.iterdir():
        p.write_bytes(b"")
    with pytest.raises(pb.CheckpointError, match=r"no checkpoint in .* is whole"):
        full_trainer(tmp_path).fit(loader(), epochs=3)
    assert len(full_trainer(tmp_path).fit(loader(), epochs=1, resume=False).steps) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003.safetensors"]


def test_a_checkpoint_of_another_model(tmp_path):
    full_trainer(tmp_path).fit(loader(), epochs=1)
    path = next(tmp_path.iterdir())
    before = path.read_bytes()
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3))
    start = weights(model)
    for other, text in [
        (
            trainer(model, ema=0.9, checkpoint_dir=tmp_path, schedule=lambda s: 0.1),
            r"'0.weight' as float32\[8, 4\], the model has float32\[9, 4\]",
        ),
        (trainer(nn.Linear(4, 3), checkpoint_dir=tmp_path), "no 'weight'"),
        (trainer(net(), checkpoint_dir=tmp_path), "an EMA on one side only"),
        (trainer(net(), ema=0.9, checkpoint_dir=tmp_path), "1 schedules, here are 0"),
        (trainer(net(), optimizer={"a": sgd(net())}, checkpoint_dir=tmp_path), r"optimizers \[''\], here are \['a'\]"),
    ]:
        with pytest.raises(pb.CheckpointError, match=f"checkpoint of another model or trainer: it has {text}"):
            other.fit(loader(), epochs=1)
    short = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(pb.CheckpointError, match=r"it has '3\.bias', which the model has not"):
        trainer(short, checkpoint_dir=tmp_path).fit(loader(), epochs=1)
    changed = net()
    sched = pb.optim.lr_scheduler.CosineAnnealingLR(o := sgd(changed), T_max=20)
    with pytest.raises(pb.CheckpointError, match="a state that does not fit"):
        trainer(changed, optimizer=o, ema=0.9, schedule=sched, checkpoint_dir=tmp_path).fit(loader(), epochs=1)
    same(weights(model), start)
    same(weights(changed), weights(net()))
    assert path.read_bytes() == before


def test_other_files_and_missing_checkpoints(tmp_path):
    pb.save(tmp_path / "plain", {"a": pb.ones(1)})
    with pytest.raises(pb.CheckpointError, match="holds no state of a trainer"):
        full_trainer().load(tmp_path / "plain")
    pb.save(tmp_path / "old", {}, {"trainer": '{"format": 99, "state": {}}'})
    with pytest.raises(pb.CheckpointError, match="format 99"):
        full_trainer().load(tmp_path / "old")
    with pytest.raises(pb.CheckpointError, match="resume=True, but there is no checkpoint"):
        full_trainer(tmp_path / "none").fit(loader(), epochs=1, resume=True)
    with pytest.raises(FileNotFoundError):
        full_trainer().fit(loader(), epochs=1, resume=tmp_path / "nothing")


def test_a_state_of_other_data(tmp_path):
    full_trainer(tmp_path).fit(loader(), epochs=1)
    with pytest.raises(pb.CheckpointError, match="saved position has batch_size=4, this loader has 5"):
        full_trainer(tmp_path).fit(DataLoader(problem(22), 5, shuffle=True, seed=5), epochs=2)


def test_a_list_of_batches_resumes_too(tmp_path):
    data = problem(24)
    batches = [data[i : i + 4] for i in range(0, 24, 4)]
    whole, first, second = full_trainer(), full_trainer(), full_trainer(seed=9)
    whole.fit(batches, epochs=2)
    first.fit(batches, steps=4)
    first.save(tmp_path / "f")
    second.fit(batches, epochs=2, resume=tmp_path / "f")
    same(weights(whole.model), weights(second.model))


def test_a_full_disk_loses_no_checkpoint(tmp_path, monkeypatch):
    t = full_trainer(tmp_path)
    t.fit(loader(), epochs=1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        t.fit(loader(), epochs=2)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_state_that_no_file_can_hold(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"x": object()}

    with pytest.raises(TypeError, match="callbacks/0/1/x is a object, which a checkpoint cannot hold"):
        trainer(net(), callbacks=[Odd()]).save(tmp_path / "f")


def test_logs_are_cut_back_to_the_checkpoint(tmp_path):
    def make(*more):
        logs = [CSVLogger(tmp_path / "s.csv"), JSONLogger(tmp_path / "l.jsonl"), TensorBoardLogger(tmp_path / "tb")]
        return full_trainer(tmp_path / "c", checkpoint_every=4, callbacks=[*logs, *more])

    class Die(Callback):
        def on_step_end(self, trainer, record):
            if trainer.step == 7:
                raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="as if killed"):
        make(Die()).fit(loader(), epochs=3)
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 1 + 7
    make().fit(loader(), epochs=3)
    rows = read_csv(tmp_path / "s.csv")
    assert [int(r["step"]) for r in rows] == list(range(1, 10))
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert [r["step"] for r in lines if r["kind"] == "step"] == list(range(1, 10))
    events = read_events(next((tmp_path / "tb").iterdir()))
    assert [s for s, v in events if "step/loss" in v] == list(range(1, 10))
    (tmp_path / "s.csv").write_text("")
    with pytest.warns(UserWarning, match="is shorter than when it was checkpointed"):
        make().fit(loader(), epochs=4)


# ---- bad arguments


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"precision": "float8"}, "precision must be 'float32' or 'bfloat16' or 'float16', got 'float8'"),
        ({"capture": True, "accumulate": 2}, "capture=True is impossible here: a step of several batches"),
        ({"capture": True, "detect_anomaly": True}, "capture=True is impossible here: detect_anomaly"),
        ({"capture": True, "update": "in_backward"}, "capture=True is impossible here: update="),
        ({"capture": True, "loss": None, "step": len}, "capture=True is impossible here: step= may do"),
        ({"update": "before"}, "update must be 'after' or 'in_backward', got 'before'"),
        ({"accumulate": 0}, "accumulate must be an integer of at least 1, got 0"),
        ({"keep": 0}, "keep must be an integer of at least 1"),
        ({"checkpoint_every": 1.5}, "checkpoint_every must be an integer"),
        ({"checkpoint_every": 5}, "checkpoint_every needs a folder"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"loss": None}, "either loss or step"),
        ({"step": len}, "either loss or step"),
        ({"metrics": ["recall"]}, "no metric 'recall'"),
        ({"schedule": 3}, "a int is no schedule"),
        ({"schedule": {"x": len}}, "the schedule names 'x'"),
        ({"optimizer": {}}, "the dict of optimizers is empty"),
    ],
)
def test_bad_trainer_arguments(arguments, text):
    model = net()
    with pytest.raises(ValueError, match=text) as info:
        Trainer(model, **({"optimizer": sgd(model), "loss": cross_entropy} | arguments))
    assert "\nhelp: " in str(info.value)


@pytest.mark.parametrize(
    "step, kind, text",
    [
        (lambda m, b, c: None, TypeError, "step must return a scalar loss or a dict of numbers, got NoneType"),
        (lambda m, b, c: {"loss": "x"}, TypeError, "step must return a scalar loss"),
        (lambda m, b, c: {"x": 1.0}, ValueError, "step returned no loss and did not call ctx.backward"),
        (lambda m, b, c: m(b[0]), pb.ShapeError, r"the loss must be one number, got \(20, 3\)"),
        (lambda m, b, c: {"loss": 1.0}, pb.ShapeError, "the loss must be one number, got float"),
        (lambda m, b, c: pb.ones(()), pb.GraphError, "does not depend on a parameter"),
        (lambda m, b, c: c.backward(m(b[0]).sum(), "x"), ValueError, "no optimizer 'x'; there are ''"),
    ],
)
def test_bad_step_functions(step, kind, text):
    model = net()
    with pytest.raises(kind, match=text) as info:
        Trainer(model, sgd(model), step=step, progress=False).fit([problem()[:]], steps=1)
    assert "\nhelp: " in str(info.value)


def test_bad_fits():
    t = trainer(net())
    with pytest.raises(ValueError, match="it needs a length"):
        t.fit([problem()[:]])
    with pytest.raises(ValueError, match="the training data gave no batch"):
        t.fit([], epochs=1)
    with pytest.raises(ValueError, match="evaluate: the data gave no batch"):
        t.evaluate([])
    with pytest.raises(TypeError, match=r"a batch must be \(x, y\), got dict"):
        t.fit([{"x": 1}], steps=1)
    with pytest.raises(ValueError, match=r"with several optimizers call ctx\.backward"):
        Trainer(net(), {"a": sgd(net()), "b": sgd(net())}, cross_entropy, progress=False).fit([problem()[:]], steps=1)


# ---- without numpy


def test_everything_without_numpy(tmp_path):
    code = f"""
import sys
sys.modules["numpy"] = None
import pullback as pb
x = pb.random.normal((200, 2), rng=pb.random.Generator(1))
y = (x[:, 0] * x[:, 1] > 0).astype(pb.int64)
pb.manual_seed(0)
model = pb.nn.Sequential(pb.nn.Linear(2, 32), pb.nn.Tanh(), pb.nn.Linear(32, 2))
t = pb.train.Trainer(model, pb.optim.Adam(model.parameters(), lr=0.02), pb.losses.cross_entropy,
                     metrics=["accuracy"], checkpoint_dir={str(tmp_path / "c")!r}, ema=0.5, clip_norm=5.0)
loader = pb.data.DataLoader(pb.data.TensorDataset(x, y), 50, shuffle=True, workers=2)
t.fit(loader, loader, epochs=40)
pb.save({str(tmp_path / "m")!r}, model.state_dict())
other = pb.nn.Sequential(pb.nn.Linear(2, 32), pb.nn.Tanh(), pb.nn.Linear(32, 2))
other.load_state_dict(pb.load({str(tmp_path / "m")!r}))
assert other(x).tolist() == model(x).tolist()
accuracy = t.evaluate(loader)["accuracy"]
assert accuracy > 0.9, accuracy
assert sys.modules["numpy"] is None
print("done", accuracy)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("done"), done.stderr
