"""The table of settings behind `demo --optimizer NAME`: whole, and a handful of its rows train to their goals.

`python -m pullback demo --optimizer all` walks all rows.
"""

from dataclasses import replace
from functools import partial

import pytest

import pullback as pb
from pullback import optim
from pullback.__main__ import main
from pullback.cli import models, optimizers


def classes():
    found = {name: getattr(optim, name) for name in optim.__all__}
    return {n for n, c in found.items() if isinstance(c, type) and issubclass(c, optim.Optimizer)} - {"Optimizer"}


def test_every_optimizer_has_a_row():
    assert set(optimizers.SETTINGS) == classes()
    low = {name for name, row in optimizers.SETTINGS.items() if row.goal < 0.95}
    assert low == {"SGLD", "NormalizedGD"} and all(optimizers.SETTINGS[n].goal == 0.9 for n in low)


@pytest.mark.parametrize("name", sorted(optimizers.SETTINGS))
def test_every_row_makes_steps(name):
    """Ten steps of the MLP; its optimizer is built, saved and loaded."""
    data, _ = pb.data.digits()
    pb.manual_seed(0)
    model = models.mlp(8, hidden=16)
    trainer = optimizers.train(name, model, data, 10)
    assert trainer.step == 10
    again, _ = optimizers.build(name, model)
    for key, opt in trainer.optimizers.items():
        (again[key] if isinstance(again, dict) else again).load_state_dict(opt.state_dict())


@pytest.mark.parametrize("name", ["ADoG", "Lookahead", "Muon", "SGLD", "SPIDER", "UDoG"])
def test_a_handful_reach_their_goals(name):
    data, test = pb.data.digits()
    pb.manual_seed(0)
    model = models.mlp(8)
    optimizers.train(name, model, data, 600)
    assert optimizers.accuracy(model, test) >= optimizers.setting(name).goal


def test_the_command(tmp_path, capsys):
    assert main(["demo", "--optimizer", "SGD", "--steps", "400", "--out", str(tmp_path), "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert out.count("goal 95%") == 2 and "conv net" in out and "MLP" in out
    assert len(list(tmp_path.glob("SGD/*/step-00000400.safetensors"))) == 2
    assert main(["demo", "--optimizer", "SGD", "--steps", "1", "--out", str(tmp_path), "--no-progress"]) == 1
    assert "below the goal: conv net, MLP" in capsys.readouterr().err
    assert main(["demo", "--optimizer", "sgd"]) == 2
    assert "no optimizer is called 'sgd'" in capsys.readouterr().err
    assert main(["demo", "--optimizer", "SGD", "--data", "text", "--path", "x"]) == 2
    assert "--optimizer goes with --data digits" in capsys.readouterr().err


def test_the_walk_names_what_it_missed(monkeypatch, capsys):
    rows = {name: optimizers.SETTINGS[name] for name in ("SGD", "Adam")}
    rows["Adam"] = replace(rows["Adam"], goal=1.1)
    monkeypatch.setattr(optimizers, "SETTINGS", rows)
    data, test = pb.data.digits()
    assert optimizers.walk(400, 0, {"MLP": partial(models.mlp, 8)}, data, test) == ["Adam"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("SGD") and "goal 95%" in lines[0]
