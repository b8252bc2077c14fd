"""Settings with which every optimizer trains the digits nets of the demo: `--optimizer NAME`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pullback as pb
from pullback.cuda import to_device
from pullback import optim
from pullback.data import DataLoader
from pullback.train import Trainer


@dataclass(frozen=True)
class Setting:
    """How one optimizer is run.

    words: its keywords. base: the optimizer inside a wrapper, with its keywords. goal: accuracy on the test images.
    schedule: half a cosine from the learning rate down to a hundredth of it; else it stays. batch_size: of a step.
    """

    words: dict[str, Any] = field(default_factory=dict)
    base: tuple[str, dict[str, Any]] | None = None
    goal: float = 0.95
    schedule: bool = True
    batch_size: int = 64


_SGD = ("SGD", {"lr": 0.1, "momentum": 0.9})

#: Found by trying; `python -m pullback demo --optimizer all` walks the table.
SETTINGS: dict[str, Setting] = {
    "SGD": Setting({"lr": 0.1, "momentum": 0.9}),
    "ExpScaledSGD": Setting({"lr": 0.05}),
    "ExpScaled": Setting(base=("Adam", {"lr": 2e-3})),
    "RMSprop": Setting({"lr": 1e-3}),
    "Adagrad": Setting({"lr": 2e-2}),
    "Adadelta": Setting({"lr": 1.0}),
    "Adam": Setting({"lr": 2e-3}),
    "AdamW": Setting({"lr": 2e-3, "weight_decay": 0.05}),
    "NAdam": Setting({"lr": 2e-3}),
    "RAdam": Setting({"lr": 1e-2}),
    "AdagradNorm": Setting({"lr": 3.0}),
    "Lion": Setting({"lr": 5e-4, "weight_decay": 0.1}),
    "Grams": Setting({"lr": 2e-3}),
    "CautiousAdamW": Setting({"lr": 2e-3}),
    "DiffGrad": Setting({"lr": 2e-3}),
    "AdEMAMix": Setting({"lr": 1e-3, "betas": (0.9, 0.999, 0.99)}),
    "Gravity": Setting({"lr": 0.3}),
    "DoG": Setting({"reps_rel": 1e-4}, schedule=False),
    "LDoG": Setting(schedule=False),
    "TDoG": Setting({"lr": 1e4}, schedule=False),
    "ADoG": Setting(schedule=False),
    "UDoG": Setting(schedule=False),
    "OptAMSGrad": Setting({"lr": 5e-4}),
    "OASIS": Setting({"alpha": 3e-3}, schedule=False),
    "SGLD": Setting({"lr": 0.3, "temperature": 1e-5}, goal=0.9),
    "NormalizedGD": Setting({"lr": 0.15}, goal=0.9),
    "SPIDER": Setting({"lr": 0.15, "period": 4}),
    "Muon": Setting({"lr": 2e-2}),
    "LAMB": Setting({"lr": 1e-2}),
    "Prodigy": Setting(),
    "ScheduleFreeAdamW": Setting({"lr": 5e-3}, schedule=False),
    "SAM": Setting(base=_SGD),
    "ASAM": Setting({"rho": 0.5}, base=_SGD),
    "USAM": Setting(base=_SGD),
    "DNSAM": Setting(base=_SGD),
    "GAM": Setting(base=("SGD", {"lr": 0.05, "momentum": 0.9})),
    "GradientRegularization": Setting(base=_SGD),
    "XGrad": Setting(base=_SGD),
    "Lookahead": Setting(base=_SGD),
}


def setting(name: str) -> Setting:
    """The row of an optimizer.

    Raises:
        ValueError: there is no such optimizer.
    """
    if name not in SETTINGS:
        known = ", ".join(sorted(SETTINGS, key=str.lower))
        raise ValueError(f"demo: no optimizer is called {name!r}\nhelp: one of {known}, or all")
    return SETTINGS[name]


def build(name: str, model: Any) -> tuple[Any, Callable[..., Any] | None]:
    """The optimizer of a model, and the step that the trainer needs where there are two of them.

    Muon takes the weights; the biases belong to AdamW.
    """
    row = setting(name)
    kind = getattr(optim, name)
    if row.base is not None:
        inner = getattr(optim, row.base[0])(model.parameters(), **row.base[1])
        return kind(inner, **row.words), None
    if name != "Muon":
        return kind(model.parameters(), **row.words), None
    weights = [p for p in model.parameters() if p.ndim >= 2]
    biases = [p for p in model.parameters() if p.ndim < 2]
    return {"weights": kind(weights, **row.words), "biases": optim.AdamW(biases, lr=2e-3)}, _pair


def _pair(model: Any, batch: Any, ctx: Any) -> dict[str, float]:
    x, y = batch
    prediction = model(x)
    loss = pb.losses.cross_entropy(prediction, y)
    for name in ("weights", "biases"):
        ctx.backward(loss, name)
    for name in ("weights", "biases"):
        ctx.update(name)
    return {"loss": loss.item()}


def train(name: str, model: Any, data: Any, steps: int, *, seed: int = 0, resume: bool = False, **more: Any) -> Trainer:
    """Trains a model on a dataset with the settings of the table; more: further words of the trainer.

    The averages of an optimizer that keeps them are in the parameters afterwards.
    """
    row = setting(name)
    optimizer, step = build(name, model)
    pair = isinstance(optimizer, dict)
    loss = None if pair else pb.losses.cross_entropy
    trainer = Trainer(
        model,
        optimizer,
        loss,
        step=step,
        schedule=_schedule(row, optimizer, steps),
        seed=seed,
        **{"progress": False, **more},
    )
    loader = DataLoader(data, row.batch_size, shuffle=True, seed=seed)
    history = trainer.fit(loader, steps=steps, resume=resume)
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    for each in optimizer.values() if pair else [optimizer]:
        _finish(each)
    return trainer


def accuracy(model: Any, data: Any) -> float:
    """The share of the images of a dataset that a model names rightly."""
    right = 0.0
    device = next(iter(model.parameters())).device
    with pb.no_grad():
        for x, y in (to_device(batch, device) for batch in DataLoader(data, 500)):
            right += (pb.argmax(model(x), axis=1) == y).astype(pb.float32).sum().item()
    return right / len(data)


def walk(steps: int, seed: int, nets: Mapping[str, Callable[[], Any]], data: Any, test: Any) -> list[str]:
    """Trains every net with every optimizer and prints the accuracies; the names of those below their goals."""
    missed = []
    width = max(map(len, SETTINGS))
    for name, row in SETTINGS.items():
        reached = {}
        for net, make in nets.items():
            pb.manual_seed(seed)
            model = make()
            train(name, model, data, steps, seed=seed)
            reached[net] = accuracy(model, test)
        print(
            f"{name:{width}}",
            *(f"{net} {value:.2%}" for net, value in reached.items()),
            f"goal {row.goal:.0%}",
            sep="  ",
            flush=True,
        )
        if not all(value >= row.goal for value in reached.values()):
            missed.append(name)
    return missed


def _schedule(row: Setting, optimizer: Any, steps: int) -> Any:
    """Half a cosine for each optimizer from its rate to a hundredth of it."""
    if not row.schedule:
        return None

    def cosine(high: float) -> Callable[[int], float]:
        return lambda step: high * (0.505 + 0.495 * math.cos(math.pi * min(1.0, step / steps)))

    if isinstance(optimizer, dict):
        return {key: cosine(each.param_groups[0]["lr"]) for key, each in optimizer.items()}
    return cosine(optimizer.param_groups[0]["lr"])


def _finish(optimizer: Any) -> None:
    """Puts the averages of an optimizer that keeps them into the parameters."""
    if not hasattr(optimizer, "averaged_parameters"):
        return
    params = [p for group in optimizer.param_groups for p in group["params"]]
    averages = [a.clone() for a in optimizer.averaged_parameters()]
    with pb.no_grad():
        for p, a in zip(params, averages, strict=True):
            p[...] = a
