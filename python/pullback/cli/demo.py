"""`python -m pullback demo`: trains on real data, reports, and writes a loss plot and a checkpoint."""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pullback as pb
from pullback.cuda import to_device
from pullback.data import DataLoader, RandomWindows, Windows
from pullback.train import Trainer

from . import models, optimizers

_GOAL = 0.97


def _saved(text: str) -> int | str:
    """A number of bits, or "input", "output" or "recompute"."""
    return int(text) if text.isdigit() else text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the demo."""
    parser.add_argument("--data", choices=("digits", "mnist", "text"), default="digits", help="what to train on")
    parser.add_argument("--root", metavar="DIR", help="folder of the MNIST files, for --data mnist")
    parser.add_argument("--path", metavar="FILE", help="a text file, for --data text")
    parser.add_argument("--out", metavar="DIR", default="demo-output", help="where results go (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps (default: 1000; for text 2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--saved", type=_saved, metavar="WHAT", help="what activations keep for backward, as in Trainer(saved=)"
    )
    parser.add_argument(
        "--optimizer", metavar="NAME", help="a class of pb.optim instead of AdamW, for --data digits; or all of them"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Runs the demo; 0 where every goal is reached."""
    if options.threads is not None:
        pb.set_num_threads(options.threads)
    pb.empty((0,), device=options.device)  # raises where the device is not there
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"demo: --steps must be at least 1, got {options.steps}\nhelp: leave it out for the default")
    if options.optimizer is not None:
        if options.data != "digits":
            raise ValueError("demo: --optimizer goes with --data digits\nhelp: leave --data out")
        return _optimizer(options)
    if options.data == "text":
        if options.path is None:
            raise ValueError("demo: --data text needs a file\nhelp: pass --path FILE")
        return _text(options)
    if options.data == "mnist":
        if options.root is None:
            raise ValueError("demo: --data mnist needs the folder of its files\nhelp: pass --root DIR")
        train, test = pb.data.mnist(options.root), pb.data.mnist(options.root, train=False)
    else:
        train, test = pb.data.digits()
    size = train.tensors[0].shape[-1]
    accuracy = {
        name: _digits(options, name, partial(make, size), train, test)
        for name, make in (("conv net", models.conv_net), ("MLP", models.mlp))
    }
    if options.data == "mnist":  # its images are too few for a network that does not know what a neighbour is
        del accuracy["MLP"]
    missed = [name for name, value in accuracy.items() if not value >= _GOAL]
    if missed:
        print(f"below {_GOAL:.0%}: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def _digits(options: argparse.Namespace, name: str, make: Callable[[], Any], train: Any, test: Any) -> float:
    """Trains one classifier; its accuracy on the test images."""
    pb.manual_seed(options.seed)
    model = make().to(options.device)
    batch_size = 64
    steps = options.steps or 1000
    optimizer = pb.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    loss = pb.losses.cross_entropy
    folder = Path(options.out) / name.replace(" ", "-")
    trainer = Trainer(
        model,
        optimizer,
        loss,
        metrics=["accuracy"],
        schedule=_cosine(steps, 2e-3, 2e-5),
        saved=options.saved,
        checkpoint_dir=folder,
        seed=options.seed,
        progress=not options.no_progress,
    )
    loader = DataLoader(train, batch_size, shuffle=True, seed=options.seed)
    print(f"{name}: {_size(model):,} parameters, {len(train):,} images, {steps:,} steps of {batch_size}")
    _fit(trainer, loader, DataLoader(test, 500), steps, options)
    accuracy = trainer.evaluate(DataLoader(test, 500))["accuracy"]
    x, y = to_device(train.batch(pb.arange(min(batch_size, len(train)))), options.device)
    _report(trainer, folder, f"test accuracy {accuracy:.2%}", lambda: loss(model(x), y))
    return accuracy


def _optimizer(options: argparse.Namespace) -> int:
    """Trains both classifiers with the committed settings of an optimizer, or of all of them."""
    train, test = pb.data.digits()
    size = train.tensors[0].shape[-1]
    nets = {"conv net": partial(models.conv_net, size), "MLP": partial(models.mlp, size)}
    steps = options.steps or 1000
    if options.optimizer == "all":
        missed = optimizers.walk(steps, options.seed, nets, train, test)
    else:
        row, missed = optimizers.setting(options.optimizer), []
        for name, make in nets.items():
            pb.manual_seed(options.seed)
            model = make().to(options.device)
            folder = Path(options.out) / options.optimizer / name.replace(" ", "-")
            print(f"{name}: {_size(model):,} parameters, {steps:,} steps of {row.batch_size}, {options.optimizer}")
            trainer = optimizers.train(
                options.optimizer, model, train, steps, seed=options.seed, resume=options.resume,
                saved=options.saved, checkpoint_dir=folder, progress=not options.no_progress,
            )  # fmt: skip
            value = optimizers.accuracy(model, test)
            forward = partial(_loss, model, *to_device(test.tensors, options.device))
            _report(trainer, folder, f"test accuracy {value:.2%}, goal {row.goal:.0%}", forward)
            if not value >= row.goal:
                missed.append(name)
    if missed:
        print(f"below the goal: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def _text(options: argparse.Namespace) -> int:
    """Trains a character GPT and prints what it writes."""
    text = pb.data.text(options.path)
    context, batch_size, steps = 64, 12, options.steps or 2000
    pb.manual_seed(options.seed)
    model = models.CharGPT(len(text.vocabulary), context).to(options.device)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = pb.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.1)
    loss = pb.losses.cross_entropy
    folder = Path(options.out) / "text"
    trainer = Trainer(
        model,
        optimizer,
        loss,
        schedule=_cosine(steps, 2e-3, 1e-4, warmup=min(100, steps // 10)),
        clip_norm=1.0,
        saved=options.saved,
        checkpoint_dir=folder,
        seed=options.seed,
        progress=not options.no_progress,
    )
    train = DataLoader(RandomWindows(text.train, context, 250 * batch_size), batch_size, seed=options.seed)
    valid = DataLoader(Windows(text.valid, context, stride=context), 64)
    print(
        f"char GPT: {_size(model):,} parameters, {len(text):,} characters, {steps:,} steps of {batch_size} x {context}"
    )
    _fit(trainer, train, valid, steps, options)
    x, y = to_device(next(iter(train)), options.device)
    result = f"validation loss {trainer.history['valid_loss'][-1]:.4f}"
    _report(trainer, folder, result, lambda: loss(model(x), y))
    model.eval()
    start = text.encode("\n" if "\n" in text.vocabulary else text.vocabulary[0]).to(options.device)
    sample = model.sample(start, 300, rng=pb.random.Generator(options.seed))
    print("-" * 72, text.decode(sample[1:]), "-" * 72, sep="\n")
    return 0


def _cosine(steps: int, high: float, low: float, warmup: int = 0) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine from high to low."""

    def rate(step: int) -> float:
        if step < warmup:
            return high * (step + 1) / (warmup + 1)
        part = min(1.0, (step - warmup) / max(1, steps - warmup))
        return low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * part))

    return rate


def _fit(trainer: Trainer, train: Any, valid: Any, steps: int, options: argparse.Namespace) -> None:
    history = trainer.fit(train, valid, steps=steps, resume=bool(options.resume))
    if history.stopped == "interrupted":
        raise KeyboardInterrupt


def _loss(model: Any, x: Any, y: Any) -> Any:
    return pb.losses.cross_entropy(model(x), y)


def _report(trainer: Trainer, folder: Path, result: str, forward: Callable[[], Any]) -> None:
    made = trainer.history.made
    speed = f", {made / trainer.history.seconds:.1f} steps per second" if made else ""
    with trainer.keeping.around(trainer.model, forward):
        kept = pb.memory.saved_bytes(forward())
    print(f"  {result}{speed}, {kept:,} bytes kept for backward")
    assert trainer.checkpoints is not None
    path = trainer.checkpoints.files()[-1]
    print(f"  checkpoint {path}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    plot = folder / "loss.png"
    try:
        trainer.history.plot(plot)
    except ImportError as error:
        print(f"  no loss plot: {str(error).splitlines()[-1]}")
    else:
        print(f"  loss plot {plot}")


def _size(model: Any) -> int:
    return sum(p.size for p in model.parameters())
