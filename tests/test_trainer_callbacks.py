"""Callbacks, logs, numbers that are not finite, and interruption of the trainer."""

import json
import math
import os
import signal
import struct
import sys
import threading
import warnings

import pytest
from trainer_cases import net, problem, read_csv, read_events, same, trainer, weights

import pullback as pb
from pullback import nn
from pullback.data import DataLoader
from pullback.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    JSONLogger,
    ModelCheckpoint,
    ProgressBar,
    TensorBoardLogger,
)

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
