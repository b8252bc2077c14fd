"""Trains a small character GPT with every state format and prints where each run ends.

    python bench/states.py TEXT [--steps 500] [--seeds 2] [--rules AdamW,Lion,AdEMAMix]

TEXT is any plain text of a few hundred kilobytes. A figure is the loss on fixed batches that were not trained on; the
last column is its distance from that of float32 states with the same seed, in percent. Takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import pullback as pb
from pullback.cli.models import CharGPT

RATES = {"AdamW": 1e-3, "Lion": 2e-4, "AdEMAMix": 1e-3}
CONTEXT, BATCH, HELD_OUT = 32, 16, 20


def batch(codes: np.ndarray, draw: np.random.Generator) -> tuple[pb.Tensor, pb.Tensor]:
    """Windows at random places, and the characters that follow them."""
    at = draw.integers(0, len(codes) - CONTEXT - 1, BATCH)
    windows = np.stack([codes[i : i + CONTEXT + 1] for i in at])
    return pb.tensor(windows[:, :-1].copy()), pb.tensor(windows[:, 1:].copy())


def loss_of(model: Any, pair: tuple[pb.Tensor, pb.Tensor]) -> pb.Tensor:
    """Mean cross-entropy by character."""
    return pb.losses.cross_entropy(model(pair[0]), pair[1])


def train(codes: np.ndarray, vocabulary: int, rule: str, state: str, steps: int, seed: int) -> float:
    """The held-out loss after the last step. The rate falls linearly over the second half."""
    cut = len(codes) * 9 // 10
    pb.random.manual_seed(seed)
    model = CharGPT(vocabulary, context=CONTEXT, layers=2, heads=4, width=64)
    optimizer = getattr(pb.optim, rule)(model.parameters(), lr=RATES[rule], state=state)
    draw = np.random.default_rng(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATES[rule] * min(1.0, 2 * (1 - step / steps), (step + 1) / 50)
        loss = loss_of(model, batch(codes[:cut], draw))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(clip_norm=1.0)
    test = np.random.default_rng(10**6)
    with pb.no_grad():
        return float(np.mean([loss_of(model, batch(codes[cut:], test)).item() for _ in range(HELD_OUT)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rules", default=",".join(RATES))
    options = parser.parse_args()
    letters, codes = np.unique(list(options.text.read_text()), return_inverse=True)
    print(f"{'rule':10} {'state':10} {'loss':>8} {'percent of float32':>20}")
    for rule in options.rules.split(","):
        base: list[float] = []
        for state in ("float32", "bfloat16", "int8"):
            ends = [train(codes, len(letters), rule, state, options.steps, seed) for seed in range(options.seeds)]
            base = base or ends
            off = [100 * (end / start - 1) for end, start in zip(ends, base, strict=True)]
            print(f"{rule:10} {state:10} {np.mean(ends):8.4f} {', '.join(f'{x:+.2f}' for x in off):>20}", flush=True)


if __name__ == "__main__":
    main()
