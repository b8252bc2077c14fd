"""The trainer against steps made by hand, and everything around them: logs, checkpoints, errors."""

import csv
import functools
import itertools
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import pullback as pb
from pullback import nn
from pullback.data import DataLoader, TensorDataset
from pullback.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    JSONLogger,
    LRMonitor,
    ModelCheckpoint,
    ProgressBar,
    TensorBoardLogger,
    Trainer,
)

cross_entropy = pb.losses.cross_entropy


def net(seed=1, dropout=0.0):
    pb.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def problem(n=20, seed=2):
    rng = pb.random.Generator(seed)
    x = pb.random.normal((n, 4), rng=rng)
    return TensorDataset(x, pb.argmax(x[:, :3], axis=1))


def sgd(model, lr=0.1, **more):
    return pb.optim.SGD(model.parameters(), lr=lr, **more)


def trainer(model, *, optimizer=None, loss=cross_entropy, **more):
    return Trainer(model, optimizer or sgd(model), loss, **({"progress": False} | more))


def weights(model):
    return {name: np.asarray(t.tolist()) for name, t in model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# ---- steps


def test_a_fit_is_the_loop_one_would_write():
    model, by_hand = net(), net()
    data = problem()
    history = trainer(model).fit(DataLoader(data, 8), epochs=3)
    optimizer, losses = sgd(by_hand), []
    for _ in range(3):
        for x, y in DataLoader(data, 8):
            loss = cross_entropy(by_hand(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    same(weights(model), weights(by_hand))
    assert [r["loss"] for r in history.steps] == losses
    assert [r["step"] for r in history.steps] == list(range(1, 10))
    assert [r["epoch"] for r in history.steps] == [1] * 3 + [2] * 3 + [3] * 3
    # The epoch's mean counts items: batches of 8, 8 and 4.
    expected = [(8 * a + 8 * b + 4 * c) / 20 for a, b, c in zip(losses[::3], losses[1::3], losses[2::3], strict=True)]
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-12)
    assert model.training and "9 steps, 3 epochs" in repr(history) and history.seconds > 0


def test_steps_end_inside_an_epoch_and_numbers_are_totals():
    t = trainer(net())
    loader = DataLoader(problem(), 8)
    assert len(t.fit(loader, steps=4).steps) == 4
    assert (t.step, t.epoch, t.batch) == (4, 1, 1) and [r["epoch"] for r in t.history.epochs] == [1, 2]
    assert len(t.fit(loader, epochs=2).steps) == 6  # goes on with the second batch of the epoch
    assert [r["epoch"] for r in t.history.epochs] == [1, 2]
    whole = trainer(net())
    whole.fit(loader := DataLoader(problem(), 8), epochs=2)
    same(weights(t.model), weights(whole.model))
    assert t.history.epochs == whole.history.epochs and loader.position == 0
    assert len(t.fit(loader, epochs=2).steps) == 6 and len(t.fit(loader, epochs=9, steps=7).steps) == 7


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (6, 6, 6, 2), (5, 1), (7,)])
def test_accumulation_equals_the_full_batch(sizes):
    """Windows of batches of any size give the gradient of the mean over all their items."""
    data = problem(sum(sizes))
    ends = np.cumsum([0, *sizes])
    batches = [data[int(a) : int(b)] for a, b in itertools.pairwise(ends)]
    full, parts = net(), net()
    trainer(full).fit([data[:]], steps=1)
    history = trainer(parts, accumulate=len(sizes)).fit(batches, steps=1)
    assert len(history.steps) == 1
    for name, w in weights(parts).items():
        np.testing.assert_allclose(w, weights(full)[name], atol=2e-7, err_msg=name)


def test_a_short_last_window_has_its_own_normalisation():
    data = problem(22)
    model, by_hand = net(), net()
    history = trainer(model, accumulate=3).fit(DataLoader(data, 4), epochs=1)  # batches 4 4 4 | 4 4 2
    assert len(history.steps) == 2
    trainer(by_hand).fit([data[:12], data[12:]], epochs=1)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, weights(by_hand)[name], atol=2e-7, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
def test_accumulation_counts_only_what_the_loss_counts(weighted):
    x, y = problem(12)[:]
    y = pb.where(pb.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1]) == 1, pb.tensor(-1), y)
    options = {"ignore_index": -1} | ({"weight": pb.tensor([1.0, 2.0, 5.0])} if weighted else {})
    loss = functools.partial(cross_entropy, **options)
    full, parts = net(), net()
    trainer(full, loss=loss).fit([(x, y)], steps=1)
    trainer(parts, loss=loss, accumulate=3).fit([(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)], steps=1)
    for name, w in weights(parts).items():
        np.testing.assert_allclose(w, weights(full)[name], atol=2e-7, err_msg=name)


def test_accumulation_with_a_sum_a_count_and_nothing_to_count():
    x, y = problem(12)[:]
    batches = [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]
    full, parts = net(), net()
    loss = functools.partial(cross_entropy, reduction="sum")
    trainer(full, loss=loss, optimizer=sgd(full, 0.01)).fit([(x, y)], steps=1)
    trainer(parts, loss=loss, optimizer=sgd(parts, 0.01), accumulate=3).fit(batches, steps=1)
    for name, w in weights(parts).items():
        np.testing.assert_allclose(w, weights(full)[name], atol=2e-7, err_msg=name)
    model, by_hand = net(), net()
    trainer(model, accumulate=3, count=lambda batch: 1.0 if batch is batches[0] else 0.0).fit(batches, steps=1)
    trainer(by_hand).fit(batches[:1], steps=1)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, weights(by_hand)[name], atol=2e-7, err_msg=name)
    model = net()
    ignored = functools.partial(cross_entropy, ignore_index=0)
    trainer(model, loss=ignored, accumulate=2).fit([(x, y * 0), (x, y * 0)], steps=1)
    same(weights(model), weights(net()))


def test_clip_norm():
    model, by_hand = net(), net()
    x, y = problem()[:]
    trainer(model, clip_norm=0.01).fit([(x, y)], steps=1)
    cross_entropy(by_hand(x), y).backward()
    norm = math.sqrt(sum(float(pb.sum(p.grad * p.grad)) for p in by_hand.parameters()))
    assert norm > 0.01
    for name, p in by_hand.named_parameters():
        expected = np.asarray(p.tolist()) - 0.1 * np.asarray(p.grad.tolist()) * 0.01 / norm
        np.testing.assert_allclose(weights(model)[name], expected, rtol=1e-5, atol=1e-7)


def test_dict_batches_with_a_step_function():
    class Data:
        def __len__(self):
            return 20

        def __getitem__(self, i):
            return {"x": problem()[i][0], "y": problem()[i][1]}

    seen = []

    def step(model, batch, ctx):
        prediction = model(batch["x"])
        seen.append((ctx.step, ctx.epoch, ctx.training))
        return {"loss": cross_entropy(prediction, batch["y"]), "largest": pb.max(prediction)}

    model, plain = net(), net()
    t = Trainer(model, sgd(model), step=step, progress=False)
    history = t.fit(DataLoader(Data(), 8), DataLoader(Data(), 20), epochs=2)
    trainer(plain).fit(DataLoader(problem(), 8), epochs=2)
    same(weights(model), weights(plain))
    assert seen[:4] == [(1, 1, True), (2, 1, True), (3, 1, True), (4, 1, False)]
    assert set(history.epochs[0]) == {"epoch", "step", "loss", "largest", "valid_loss", "valid_largest"}


class Gan(nn.Module):
    def __init__(self):
        self.g = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
        self.d = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def gan_step(model, batch, ctx):
    bce = pb.losses.bce_with_logits
    noise = pb.random.normal((batch.shape[0], 2))
    real, fake = model.d(batch), model.d(model.g(noise).detach())
    d = bce(real, pb.ones(real.shape)) + bce(fake, pb.zeros(fake.shape))
    ctx.backward(d, "d")
    ctx.update("d")
    score = model.d(model.g(noise))
    g = bce(score, pb.ones(score.shape))
    ctx.backward(g, "g")
    ctx.update("g")
    return {"d": d, "g": g}


def gan_trainer(**more):
    pb.manual_seed(3)
    model = Gan()
    optimizers = {part: pb.optim.Adam(getattr(model, part).parameters(), lr=0.01, betas=(0.5, 0.9)) for part in "dg"}
    return Trainer(model, optimizers, step=gan_step, progress=False, **more)


def test_a_gan_with_two_optimizers():
    data = pb.random.normal((256, 1), mean=3.0, std=0.5, rng=pb.random.Generator(4))
    t = gan_trainer()
    loader = DataLoader([data[i] for i in range(256)], 64, shuffle=True)
    history = t.fit(loader, steps=400)
    with pb.no_grad():
        made = t.model.g(pb.random.normal((1000, 2), rng=pb.random.Generator(5)))
    assert abs(float(pb.mean(made)) - 3.0) <= 0.4
    assert set(history.steps[0]) == {"step", "epoch", "d", "g"} and all(p.grad is None for p in t.model.parameters())
    assert set(t.evaluate([data[:8]])) == {"d", "g"}


def test_two_optimizers_get_only_their_own_gradients():
    batch = pb.random.normal((8, 1), rng=pb.random.Generator(4))
    t, by_hand = gan_trainer(), gan_trainer()
    t.fit([batch], steps=1)
    pb.manual_seed(0)
    model = by_hand.model

    def update(loss, part):
        parameters = list(getattr(model, part).parameters())
        for p, g in zip(parameters, pb.gradients(loss, parameters), strict=True):
            p.grad = g

    ctx = SimpleNamespace(backward=update, update=lambda part: by_hand.update(part))
    gan_step(model, batch, ctx)
    same(weights(t.model), weights(model))


def test_two_optimizers_accumulate():
    whole, parts = gan_trainer(), gan_trainer(accumulate=2)
    batch = pb.random.normal((8, 1), rng=pb.random.Generator(4))
    counted = []
    parts.optimizers["d"].step = lambda **_: counted.append("d")
    parts.optimizers["g"].step = lambda **_: counted.append("g")
    parts.fit([batch[:6], batch[6:], batch], steps=2)
    assert counted == ["d", "g", "d", "g"] and parts.step == 2
    assert len(whole.fit([batch], steps=1).steps) == 1


class TwoPasses(pb.optim.SGD):
    """A rule of two gradients: the second one at the point the first one leads to."""

    needs_closure = True

    def step(self, closure=None, **options):
        closure()
        return super().step(closure, **options)


def test_a_closure_optimizer_sees_the_whole_window():
    data = problem(10)
    model, plain = net(), net()
    history = trainer(model, optimizer=TwoPasses(model.parameters(), lr=0.1), accumulate=2).fit(
        [data[:6], data[6:]], steps=1
    )
    trainer(plain).fit([data[:]], steps=1)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, weights(plain)[name], atol=2e-7)
    assert len(history.steps) == 1 and set(history.steps[0]) == {"step", "epoch", "loss"}


# ---- validation, metrics, averages, schedules


def test_validation_and_metrics_are_means_over_items():
    model = net()
    data, held_out = problem(), problem(10, seed=7)

    def share(prediction, target):
        return pb.mean((pb.argmax(prediction, axis=1) == target).astype(pb.float32))

    t = trainer(model, metrics={"accuracy": "accuracy", "mine": share})
    history = t.fit(DataLoader(data, 8), DataLoader(held_out, 4), epochs=2)
    x, y = held_out[:]
    expected = t.evaluate([(x, y)])
    assert history["valid_loss"][-1] == pytest.approx(expected["loss"], rel=1e-6)
    assert history["valid_accuracy"][-1] == pytest.approx(expected["accuracy"], rel=1e-6)
    prediction = np.asarray(model(x).tolist())
    assert expected["accuracy"] == pytest.approx(np.mean(prediction.argmax(1) == np.asarray(y.tolist())))
    assert history["accuracy"] == history["mine"] and model.training
    assert t.history.steps[0]["accuracy"] in [i / 8 for i in range(9)] and trainer(net(), metrics=["accuracy"]).metrics


def test_evaluation_is_in_eval_mode_without_gradients():
    seen = []

    class Probe(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(pb.ones(1))

        def forward(self, x):
            y = x * self.w
            seen.append((self.training, y.requires_grad))
            return y

    t = trainer(Probe(), loss=pb.losses.mse)
    batch = (pb.ones((2, 1)), pb.zeros((2, 1)))
    t.fit([batch], [batch], steps=1)
    assert seen == [(True, True), (False, False)] and t.model.training
    t.model.eval()
    t.evaluate([batch])
    assert not t.model.training


def test_ema_is_what_is_validated():
    model = net()
    x, y = problem()[:]
    t = trainer(model, ema=0.5)
    history = t.fit([(x, y)], [(x, y)], epochs=3)
    replay, points = net(), []
    points.append(weights(replay))
    average = weights(replay)
    for _ in range(3):
        trainer(replay).fit([(x, y)], steps=1)
        average = {k: 0.5 * average[k] + 0.5 * v for k, v in weights(replay).items()}
    with t.averaged():
        for name, w in weights(model).items():
            np.testing.assert_allclose(w, average[name], atol=1e-6)
        inside = t.model(x)
    same(weights(model), weights(replay))
    assert history["valid_loss"][-1] == pytest.approx(cross_entropy(inside, y).item(), rel=1e-6)
    assert history["valid_loss"][-1] != pytest.approx(cross_entropy(model(x), y).item(), rel=1e-6)
    own = pb.optim.EMA(model, 0.9)
    assert trainer(model, ema=own).ema is own


def test_a_function_as_schedule():
    model = net()
    t = trainer(model, schedule=lambda step: 0.1 / (step + 1), callbacks=[LRMonitor()])
    history = t.fit([problem()[:]], steps=3)
    assert [r["lr"] for r in history.steps] == [0.1, 0.05, 0.1 / 3]


def test_a_schedule_object_steps_after_each_step():
    model = net()
    optimizer = sgd(model)
    t = trainer(
        model,
        optimizer=optimizer,
        schedule=pb.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
        callbacks=[LRMonitor()],
    )
    history = t.fit([problem()[:]], steps=5)
    assert [r["lr"] for r in history.steps] == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_a_schedule_that_takes_a_metric_steps_after_each_epoch():
    model = net()
    optimizer = sgd(model, lr=0.0)  # nothing improves
    optimizer.param_groups[0]["lr"] = 1e-9
    t = trainer(
        model,
        optimizer=optimizer,
        schedule=pb.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, eps=0.0),
        callbacks=[LRMonitor()],
    )
    rates = [r["lr"] for r in t.fit([problem()[:]] * 2, epochs=3).steps]
    assert rates[0] == rates[3] == 1e-9 and rates[4] == pytest.approx(1e-10)


def test_schedules_by_optimizer():
    t = gan_trainer(schedule={"d": lambda step: 0.5, "g": lambda step: 0.25}, callbacks=[LRMonitor()])
    record = t.fit([pb.ones((4, 1))], steps=1).steps[0]
    assert (record["lr_d"], record["lr_g"]) == (0.5, 0.25)


# ---- callbacks and logs


def test_callbacks_are_called_in_order():
    calls = []

    class Note(Callback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                return lambda trainer, *record: calls.append((name, trainer.step, *(set(r) for r in record)))
            return super().__getattribute__(name)

    trainer(net(), callbacks=[Note()]).fit(DataLoader(problem(), 10), epochs=1)
    record = {"step", "epoch", "loss"}
    assert calls == [
        ("on_fit_start", 0),
        ("on_epoch_start", 0),
        ("on_step_end", 1, record),
        ("on_step_end", 2, record),
        ("on_epoch_end", 2, record),
        ("on_fit_end", 2),
    ]


def test_a_callback_stops_the_run():
    class Stop(Callback):
        def on_step_end(self, trainer, record):
            trainer.stop = trainer.step == 2

    history = trainer(net(), callbacks=[Stop()]).fit(DataLoader(problem(), 5), epochs=9)
    assert len(history.steps) == 2 and history.stopped == "callback"


def test_early_stopping_and_the_best_model(tmp_path):
    values = iter([3.0, 2.0, 2.5, 2.4, 2.3, 1.0])
    points = []

    class Valid(Callback):
        priority = -1

        def on_epoch_end(self, trainer, record):
            record["valid_loss"] = next(values)
            points.append(weights(trainer.model))

    model = net()
    best = tmp_path / "best.safetensors"
    callbacks = [Valid(), EarlyStopping(patience=2, restore_best=True), ModelCheckpoint(best)]
    history = trainer(model, callbacks=callbacks).fit([problem()[:]], epochs=9)
    assert len(history.epochs) == 4 and history.stopped == "callback"
    same(weights(model), points[1])
    model.load_state_dict(pb.load(best))
    same(weights(model), points[1])


def test_early_stopping_modes_and_errors():
    stopping = EarlyStopping("accuracy", mode="max", min_delta=0.1)
    assert stopping.improved({"accuracy": 0.5}) and not stopping.improved({"accuracy": 0.55})
    assert stopping.improved({"accuracy": 0.65}) and not stopping.improved({"accuracy": math.nan})
    with pytest.raises(KeyError, match="the epoch has no 'accuracy'"):
        stopping.improved({"loss": 1.0})
    with pytest.raises(ValueError, match="unknown mode 'up'"):
        EarlyStopping(mode="up")


def test_csv_and_json_logs(tmp_path):
    logs = [
        CSVLogger(tmp_path / "a" / "steps.csv"),
        CSVLogger(tmp_path / "epochs.csv", on="epoch"),
        JSONLogger(tmp_path / "log.jsonl"),
    ]
    data = DataLoader(problem(), 8)
    history = trainer(net(), callbacks=logs).fit(data, data, epochs=2)
    rows = read_csv(tmp_path / "a" / "steps.csv")
    assert [{k: float(v) for k, v in r.items()} for r in rows] == history.steps
    rows = read_csv(tmp_path / "epochs.csv")
    assert [{k: float(v) for k, v in r.items()} for r in rows] == history.epochs
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in r.items() if k != "kind"} for r in lines if r["kind"] == "step"] == history.steps
    assert [{k: v for k, v in r.items() if k != "kind"} for r in lines if r["kind"] == "epoch"] == history.epochs
    with pytest.raises(ValueError, match="unknown on='batch'"):
        CSVLogger(tmp_path / "x", on="batch")


def test_csv_refuses_new_columns(tmp_path):
    log = CSVLogger(tmp_path / "x.csv")
    log.on_fit_start(None)
    log.on_step_end(None, {"step": 1, "loss": 0.5})
    with pytest.raises(ValueError, match="new is not among the columns step, loss"):
        log.on_step_end(None, {"step": 2, "new": 1})
    log.on_fit_end(None)


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_events(path):
    """(step, {tag: value}) of each record of an event file."""
    raw, out = path.read_bytes(), []
    while raw:
        n = struct.unpack("<Q", raw[:8])[0]
        data, raw = raw[12 : 12 + n], raw[16 + n :]
        at, step, values = 9, 0, {}
        assert data[0] == 9  # wall time, a double
        if data[at] == 0x10:
            at, step, shift = at + 1, 0, 0
            while True:
                step |= (data[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if data[at - 1] < 128:
                    break
            at += 2 if data[at + 1] < 128 else 3
            while at < len(data):
                tag = data[at + 4 : at + 4 + data[at + 3]]
                values[tag.decode()] = struct.unpack("<f", data[at + 5 + len(tag) : at + 9 + len(tag)])[0]
                at += 2 + data[at + 1]
        out.append((step, values))
    return out


def test_tensorboard_events(tmp_path):
    history = trainer(net(), callbacks=[TensorBoardLogger(tmp_path)]).fit(DataLoader(problem(), 8), epochs=2)
    path = next(tmp_path.iterdir())
    events = read_events(path)
    assert len(events) == 1 + 6 + 2 and [s for s, v in events if "step/loss" in v] == [1, 2, 3, 4, 5, 6]
    assert events[1][1]["step/loss"] == pytest.approx(history.steps[0]["loss"], rel=1e-6)
    # crc32c of the nine bytes every description of it uses, then masked
    from pullback.train.loggers import _masked_crc

    assert _masked_crc(b"123456789") == struct.pack(
        "<I", ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )


def test_progress_with_and_without_tqdm(capsys, monkeypatch):
    data = [problem()[:]]
    trainer(net(), progress=True).fit(data, data, epochs=3)
    err = capsys.readouterr().err
    assert "3/3" in err and "loss " in err and "valid_loss" in err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    trainer(net(), callbacks=[ProgressBar(seconds=0.0)]).fit(data, epochs=3)
    err = capsys.readouterr().err
    assert "step 3/3  loss " in err and "steps/s" in err
    trainer(net()).fit(data, epochs=1)
    assert capsys.readouterr().err == ""


def test_history_plot(tmp_path, monkeypatch):
    history = trainer(net()).fit([problem()[:]], [problem()[:]], epochs=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of matplotlib's own dependencies
        history.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="matplotlib cannot be imported\nhelp: pip install"):
        history.plot(tmp_path / "x.png")
    with pytest.raises(KeyError, match="no epoch has 'foo'"):
        history["foo"]


def test_history_state_keeps_every_number():
    a, b = History(), History()
    a.steps = [{"step": 1, "epoch": 1, "loss": 0.1, "x": math.inf}, {"step": 2, "epoch": 1, "loss": 1e-300, "n": 2**60}]
    a.epochs = [{"epoch": 1, "step": 2}]
    b.load_state_dict(a.state_dict())
    assert b.steps == a.steps and b.epochs == a.epochs
    assert [list(r) for r in b.steps] == [["step", "epoch", "loss", "x"], ["step", "epoch", "loss", "n"]]


# ---- numbers that are not finite


class Bad(nn.Module):
    def __init__(self, at):
        self.at = at
        self.w = nn.Parameter(pb.ones(1))

    def forward(self, x):
        return x * self.w if self.at != "module" else x * self.w / 0.0


@pytest.mark.parametrize(
    "at, text",
    [
        ("module", r"the first output that is not finite is that of module '1' \(Bad\)"),
        ("batch", "the batch itself has numbers that are not finite"),
        ("loss", "the outputs of all modules are finite: the loss itself is not"),
        ("parameter", r"module '0' \(Linear\); parameter '0.weight' is not finite"),
    ],
)
def test_a_loss_that_is_not_finite(at, text, tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), Bad(at), nn.ReLU())
    good, bad = pb.ones((3, 2)), pb.ones((3, 2)) * (math.nan if at == "batch" else 1.0)

    class Break(Callback):
        def on_step_end(self, trainer, record):
            if at == "parameter":
                model.load_state_dict({"0.weight": pb.full((2, 2), math.inf)}, strict=False)

    def loss(p, y):
        value = pb.losses.mse(p, y)
        return pb.log(value * 0.0) if at == "loss" and t.step == 1 else value

    t = trainer(model, loss=loss, callbacks=[Break()], checkpoint_dir=tmp_path, checkpoint_every=1)
    if at == "module":
        model[1].at = None
        Break.on_step_end = lambda self, trainer, record: setattr(model[1], "at", "module")
    with pytest.raises(FloatingPointError, match=rf"the loss is -?(nan|inf) at step 2 \(epoch 1\): .*{text}") as info:
        t.fit([(good, good), (bad, good)], epochs=1)
    assert "\nhelp: " in str(info.value) and t.step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.safetensors"]
    assert model[0]._forward_hooks in (None, {})


def test_a_gradient_that_is_not_finite():
    model = net()

    def loss(p, y):
        return pb.sum(pb.sqrt(p * 0.0))

    with pytest.raises(FloatingPointError, match=r"a gradient is not finite at step 1 \(epoch 1\), though the loss is"):
        trainer(model, loss=loss, clip_norm=1.0).fit([problem()[:]], steps=1)
    same(weights(model), weights(net()))


# ---- interruption


class Interrupt(Callback):
    def __init__(self, step, times=1):
        self.at, self.times = step, times

    def on_step_end(self, trainer, record):
        if trainer.step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_and_stops(tmp_path, capsys):
    def make(*callbacks):
        model = net(dropout=0.5)
        return trainer(model, callbacks=callbacks, checkpoint_dir=tmp_path if callbacks else None)

    def loader():
        return DataLoader(problem(), 6, shuffle=True)

    first = make(Interrupt(5))
    history = first.fit(loader(), epochs=3)
    assert (
        history.stopped == "interrupted"
        and first.step == 5
        and "interrupted: ending this step" in capsys.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [p.name for p in tmp_path.iterdir()][-1].startswith("step-") and (
        tmp_path / "step-00000005.safetensors"
    ).exists()
    again = make(Interrupt(99))
    assert again.fit(loader(), epochs=3).stopped is None
    whole = make()
    whole.fit(loader(), epochs=3)
    same(weights(again.model), weights(whole.model))
    assert again.history.steps == whole.history.steps and again.history.epochs == whole.history.epochs


def test_a_second_ctrl_c_stops_at_once():
    t = trainer(net(), callbacks=[Interrupt(2, times=2)])
    with pytest.raises(KeyboardInterrupt):
        t.fit(DataLoader(problem(), 4), epochs=3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_fit_in_a_thread_leaves_signals_alone():
    out = []
    thread = threading.Thread(target=lambda: out.append(trainer(net()).fit([problem()[:]], steps=2)))
    thread.start()
    thread.join()
    assert len(out[0].steps) == 2


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
        ({"precision": "bfloat16"}, "precision='bfloat16' is not built yet"),
        ({"saved": 3}, "saved=3 is not built yet"),
        ({"memory_budget": 10}, "memory_budget=10 is not built yet"),
        ({"capture": True}, "capture=True is not built yet"),
        ({"update": "in_backward"}, "update='in_backward' is not built yet"),
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
