"""Why smooth activations stand analog noise: "Leveraging Continuously Differentiable Activation Functions for Learning
in Quantized Noisy Environments" (arXiv 2402.02593), in small.

    python examples/noisy_activations.py [--runs 3] [--epochs 15] [--plot noisy_activations.png]

Part one measures how far the noise of b-bit hardware moves a derivative. Part two trains a network of two convolutions
and a linear layer on the 8x8 digits. Each layer sees clipped, rounded and noisy inputs and weights, and its outputs get
noise, clipping and rounding again; gradients go straight through. The activation is a blend from ReLU (i = 0) to GELU
(i = 1).
"""

from __future__ import annotations

import argparse
import statistics

import pullback as pb
from pullback import nn

ACTIVATIONS = {"ReLU": pb.relu, "LeakyReLU": pb.leaky_relu, "ELU": pb.elu, "SiLU": pb.silu, "GELU": pb.gelu}
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAKAGE = 0.3


def derivative_error(f, bits: int, n: int = 200_000) -> float:
    """The mean of |f'(x + noise) - f'(x)| for x and noise of the size of a step."""
    step = 2 / (2**bits - 1)
    x = pb.random.uniform((n,), low=-step / 2, high=step / 2, dtype=pb.float64)
    noise = pb.random.normal((n,), std=step / 2, dtype=pb.float64)
    slope = pb.grad(lambda v: f(v).sum())
    return pb.abs(slope(x + noise) - slope(x)).mean().item()


class Analog(nn.Module):
    """A layer on hardware of b bits: its inputs, weights and outputs are limited, rounded and noisy."""

    def __init__(self, layer: nn.Module, bits: int) -> None:
        self.layer, self.round, self.noise = layer, nn.ReducePrecision(bits), nn.GaussianNoise(LEAKAGE, bits)

    def forward(self, x):
        def enter(v):
            return self.noise(self.round(pb.clip(v, -1, 1)))

        weights = {name: enter(p) for name, p in self.layer.named_parameters()}
        y = pb.functional_call(self.layer, weights, enter(x))
        return self.round(pb.clip(self.noise(y), -1, 1))


def network(bits: int, i: float) -> nn.Module:
    def act():
        return nn.RectifierBlend(i, 1.0, 0.0)

    return nn.Sequential(
        Analog(nn.Conv2d(1, 12, 3, padding=1), bits),
        act(),
        Analog(nn.Conv2d(12, 12, 3, padding=1), bits),
        act(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        Analog(nn.Linear(12 * 4 * 4, 10), bits),
    )


def accuracy(model: nn.Module, x: pb.Tensor, y: pb.Tensor) -> float:
    with pb.no_grad():
        return (pb.argmax(model(x), axis=1) == y).astype(pb.float32).mean().item()


def train(bits: int, i: float, epochs: int, seed: int) -> float:
    """The accuracy on the test images, with the noise that was there in training, mean of five passes."""
    pb.manual_seed(seed)
    training, test = pb.data.digits()
    model = network(bits, i)
    opt = pb.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(epochs):
        for x, y in pb.data.DataLoader(training, 64, shuffle=True, seed=seed):
            loss = pb.losses.cross_entropy(4 * model(x), y)  # outputs lie in [-1, 1]
            opt.zero_grad()
            loss.backward()
            opt.step()
    x, y = test.tensors
    return statistics.mean(accuracy(model, x, y) for _ in range(5))


def plot(path: str, errors: dict, results: dict) -> None:
    from matplotlib.figure import Figure

    left, right = (figure := Figure(figsize=(10, 4), layout="constrained")).subplots(1, 2)
    for name, row in errors.items():
        left.plot(list(row), list(row.values()), marker="o", markersize=4, label=name)
    left.set(xlabel="bits", ylabel="mean |f'(x + noise) - f'(x)|", yscale="log", title="derivative near 0")
    for bits, row in results.items():
        mean = [statistics.mean(v) for v in row.values()]
        line = right.plot(list(row), mean, marker="o", label=f"{bits} bits")[0]
        for i, values in row.items():
            right.scatter([i] * len(values), values, s=8, color=line.get_color(), alpha=0.5)
    right.set(xlabel="i: from ReLU to GELU", ylabel="test accuracy", title="digits on noisy hardware")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="seeds per setting [3]")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training images [15]")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4], help="precisions to train at [3 4]")
    parser.add_argument("--plot", default=None, help="write an image file")
    args = parser.parse_args()
    pb.manual_seed(0)
    errors = {name: {b: derivative_error(f, b) for b in (2, 4, 6, 8)} for name, f in ACTIVATIONS.items()}
    for name, row in errors.items():
        print(f"{name:10}", "  ".join(f"{b} bits {e:.5f}" for b, e in row.items()))
    results: dict[int, dict[float, list[float]]] = {}
    for bits in args.bits:
        for i in BLENDS:
            found = [train(bits, i, args.epochs, seed) for seed in range(args.runs)]
            results.setdefault(bits, {})[i] = found
            print(
                f"{bits} bits, i = {i:.2f}: accuracy {statistics.mean(found):.3f}",
                [round(v, 3) for v in found],
                flush=True,
            )
    if args.plot:
        plot(args.plot, errors, results)


if __name__ == "__main__":
    main()
