"""Whole training steps: forward, loss, backward, AdamW, on one fixed batch."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import Case, Work, jax_peer, normal

VOCABULARY, WIDTH, HEADS, LAYERS, CONTEXT, SEQUENCES = 65, 128, 4, 4, 128, 16


def mlp(lib: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """784-1024-1024-10 with GELU, batch 128."""
    nn = lib.nn
    model = nn.Sequential(nn.Linear(784, 1024), nn.GELU(), nn.Linear(1024, 1024), nn.GELU(), nn.Linear(1024, 10))
    return model, normal((128, 784), 1), np.random.default_rng(2).integers(0, 10, 128)


def cnn(lib: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Convolutions to 32 and 64 channels, pooling, two linear layers, on 28x28 images, batch 64."""
    nn = lib.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    return model, normal((64, 1, 28, 28), 1), np.random.default_rng(2).integers(0, 10, 64)


def gpt(lib: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """A character GPT: 4 layers, 128 wide, 4 heads, context 128, batch 16."""
    nn = lib.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.act = nn.GELU()

        def forward(self, x: Any) -> Any:
            q, k, v = (lib.heads(part, HEADS) for part in lib.thirds(self.qkv(self.norm1(x))))
            x = x + self.out(lib.merge(lib.attention(q, k, v)))
            return x + self.down(self.act(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
            self._range = lib.tensor(np.arange(CONTEXT))

        def forward(self, x: Any) -> Any:
            x = self.tokens(x) + self.places(self._range)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)).reshape((SEQUENCES * CONTEXT, VOCABULARY))

    draw = np.random.default_rng(2)
    x, y = draw.integers(0, VOCABULARY, (SEQUENCES, CONTEXT)), draw.integers(0, VOCABULARY, SEQUENCES * CONTEXT)
    return GPT(), x, y


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The same weights on every side: normal numbers scaled as is usual, from a seed per parameter in name order."""
    state = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        if len(shape) > 1:
            value = normal(
                shape, seed, 0.02 if "tokens" in name or "places" in name else 1 / math.sqrt(math.prod(shape[1:]))
            )
        else:
            value = normal(shape, seed, 0.02) + np.float32("norm" in name and name.endswith("weight"))
        state[name] = value
    return state


def of_jax(lib: Any, make: Any) -> Work:
    """The MLP's step for JAX, with the names and weights of the other sides."""
    if make is not mlp:
        raise NotImplementedError(f"{make.__name__} is not written for JAX")
    widths = (784, 1024, 1024, 10)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        shapes |= {f"{2 * i}.weight": (m, n), f"{2 * i}.bias": (m,)}
    draw = np.random.default_rng(2).integers(0, 10, 128)
    return jax_peer.mlp_step(lib, weights(shapes), normal((128, 784), 1), draw, 3e-4)


def prepare(make: Callable[[Any], tuple[Any, np.ndarray, np.ndarray]], half: bool = False) -> Callable[[Any], Work]:
    """One step is one run; outputs are all gradients of the first step and the losses of three. half: the forward under
    autocast to bfloat16."""

    def build(lib: Any) -> Work:
        if lib.name == "jax":
            return of_jax(lib, make)
        model, x, y = make(lib)
        start = weights({name: tuple(p.shape) for name, p in model.named_parameters()})
        model.load_state_dict({name: lib.tensor(value) for name, value in start.items()})
        parameters = list(model.named_parameters())
        x, y = lib.tensor(x), lib.tensor(y)
        if make is cnn:
            model, x = lib.layout(model, x)
        optimizer = lib.adamw([p for _, p in parameters], 3e-4)
        model = lib.compiled(model)
        around = lib.autocast if half else contextlib.nullcontext

        def step() -> Any:
            optimizer.zero_grad()
            with around():
                loss = lib.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        def outputs() -> dict[str, np.ndarray]:
            losses = [step().item()]
            found = {f"{name}.grad": np.array(lib.array(p.grad)) for name, p in parameters}
            losses += [step().item() for _ in range(2)]
            return found | {"losses": np.array(losses)}

        return Work("step()", {"step": step}, outputs)

    return build


# Operations: three products per weight and sample (two for the first layer); attention as a full square.
V3 = "pullback-v3"
STEPS: dict[str, tuple[Any, float, tuple[str, ...]]] = {
    "MLP": (mlp, 1.22e9, (V3, "torch-compile", "jax")),
    "CNN": (cnn, 4.58e9, (V3, "torch-channels-last")),
    "char-GPT": (gpt, 11.4e9, (V3, "torch-compile")),
}
CASES = [
    Case(f"{name} step", "training", prepare(make), flop=flop, tolerance=2e-4, sides=sides)
    for name, (make, flop, sides) in STEPS.items()
]
# bfloat16 has 8 bits: gradients of two libraries agree to a few of its roundings, summed over the layers.
CASES += [
    Case(
        f"{name} step bfloat16",
        "bfloat16",
        prepare(make, half=True),
        flop=flop,
        tolerance=2**-4,
        apart=0.25,
        sides=("pullback-float32",),
    )
    for name, (make, flop, _) in STEPS.items()
]
