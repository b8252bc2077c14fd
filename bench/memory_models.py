"""The models of bench/memory.py, written once for both libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEADS, CONTEXT, LLAMA_HIDDEN = 768, 12, 256, 2048


@dataclass(frozen=True)
class Model:
    """A model, the data of a batch of n items, and what its bytes are divided by."""

    name: str
    make: Callable[[Any], Any]
    data: Callable[[int], tuple[np.ndarray, np.ndarray | None]]
    dtype: str
    batch: int  # of the figures at a fixed size
    per: float  # values per item in the unit below
    unit: str
    layers: int = 1


def mlp(lib: Any) -> Any:
    """784-1024-1024-10 with relu and dropout."""
    nn = lib.nn
    hidden = [nn.Linear(784, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*hidden, nn.Linear(1024, 10))


def cnn(lib: Any) -> Any:
    """Two convolutions, pooling, two linear layers, on 28x28 images."""
    nn = lib.nn
    convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 12 * 12, 128), nn.ReLU(), nn.Linear(128, 10))


def gpt2(lib: Any) -> Any:
    """A GPT-2 block: LayerNorm, attention, GELU, dropout 0.1 on both branches."""
    nn = lib.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.act, self.drop1, self.drop2 = nn.GELU(), nn.Dropout(0.1), nn.Dropout(0.1)

        def forward(self, x: Any) -> Any:
            q, k, v = (lib.heads(part, HEADS) for part in lib.thirds(self.qkv(self.norm1(x))))
            x = x + self.drop1(self.out(lib.merge(lib.attention(q, k, v))))
            return x + self.drop2(self.down(self.act(self.up(self.norm2(x)))))

    return Block()


def llama(lib: Any) -> Any:
    """A Llama block: RMSNorm, attention, SwiGLU of 2,048."""
    nn = lib.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
            self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
            self.gate, self.up = (nn.Linear(WIDTH, LLAMA_HIDDEN, bias=False) for _ in range(2))
            self.down = nn.Linear(LLAMA_HIDDEN, WIDTH, bias=False)

        def forward(self, x: Any) -> Any:
            h = self.norm1(x)
            q, k, v = (lib.heads(part(h), HEADS) for part in (self.q, self.k, self.v))
            x = x + self.out(lib.merge(lib.attention(q, k, v)))
            h = self.norm2(x)
            return x + self.down(lib.silu_mul(self.gate(h), self.up(h)))

    return Block()


def images(*shape: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    def data(n: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(1)
        return draw.standard_normal((n, *shape), dtype=np.float32), draw.integers(0, 10, n)

    return data


def tokens(n: int) -> tuple[np.ndarray, None]:
    return np.random.default_rng(1).standard_normal((n, CONTEXT, WIDTH), dtype=np.float32), None


MODELS = {
    m.name: m
    for m in (
        Model("MLP", mlp, images(784), "float32", 1024, 1, "bytes per sample"),
        Model("CNN", cnn, images(1, 28, 28), "float32", 64, 1, "bytes per sample"),
        Model("GPT-2 block", gpt2, tokens, "bfloat16", 4, CONTEXT * WIDTH, "bytes per token and width"),
        Model("Llama block", llama, tokens, "bfloat16", 4, CONTEXT * WIDTH, "bytes per token and width"),
    )
}
