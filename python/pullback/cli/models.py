"""The models of the demo."""

from __future__ import annotations

import math
from typing import Any

import pullback as pb
from pullback import nn


def mlp(size: int, classes: int = 10, hidden: int = 128) -> Any:
    """Two hidden layers on images of shape (1, size, size)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size * size, hidden),
        nn.GELU(),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Linear(hidden, classes),
    )


def conv_net(size: int, classes: int = 10, channels: tuple[int, int] = (16, 32)) -> Any:
    """Two convolutions, each followed by pooling, on images of shape (1, size, size)."""
    first, second = channels
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int):
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Any) -> Any:  # (B, T, C) -> (B, T, C)
        b, t, c = x.shape
        qkv = pb.permute_dims(pb.reshape(self.qkv(x), (b, t, 3, self.heads, c // self.heads)), (2, 0, 3, 1, 4))
        y = pb.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], causal=True)  # (B, heads, T, C / heads)
        return self.out(pb.reshape(pb.permute_dims(y, (0, 2, 1, 3)), (b, t, c)))


class Block(nn.Module):
    """Attention and a feed-forward part, each on normalised input and added to the stream."""

    def __init__(self, width: int, heads: int):
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.down(pb.gelu(self.up(self.norm2(x))))


class CharGPT(nn.Module):
    """A transformer over characters; the embedding is also the output layer.

    Args:
        vocabulary: number of characters.
        context: longest input.
        layers, heads, width: of the transformer.
    """

    def __init__(self, vocabulary: int, context: int = 64, layers: int = 4, heads: int = 4, width: int = 128):
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:  # what ends on the stream is smaller, so that its variance does not grow with depth
                residual = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal(p, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)

    def forward(self, codes: Any) -> Any:  # (B, T) -> (B, T, vocabulary)
        x = self.tokens(codes) + self.places(pb.arange(codes.shape[1]))
        for block in self.blocks:
            x = block(x)
        return pb.matmul(self.norm(x), self.tokens.weight.T)

    def sample(self, codes: Any, length: int, *, temperature: float = 0.8, rng: Any = None) -> Any:
        """Continues a 1-D tensor of codes by `length` drawn ones."""
        with pb.no_grad():
            for _ in range(length):
                window = pb.expand_dims(codes[-self.context :], 0)
                logits = self(window)[0, -1] / temperature
                codes = pb.concat([codes, pb.reshape(pb.random.categorical(logits, rng=rng), (1,))])
        return codes
