"""Draws docs/images/fewbit_NAME.png: the tables of each activation over its derivative. Needs matplotlib.

python tools/fewbit_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import pullback as pb
from pullback.fewbit import tables as T

OUT = Path(__file__).parent.parent / "docs/images"
COLUMNS = [
    ("interval", "normal"),
    ("interval", "uniform"),
    ("value", "normal"),
    ("value", "uniform"),
    ("minimax", "normal"),
]


def draw(name: str) -> Path:
    reach = 4 if name in ("gelu", "gelu_tanh", "sigmoid", "tanh", "tanhshrink", "selu", "elu", "celu") else 6
    # Points beside each other at 0 and at the jumps of hardswish show them as steps.
    x = np.unique(np.concatenate([np.linspace(-reach, reach, 2401), *(np.array([b, b + 1e-9]) for b in (-3, 0, 3))]))
    values = tuple(T._constants(name).values())
    g = T.derivative_of(name, values)(pb.asarray(x)).numpy()
    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    axes = figure.subplots(4, len(COLUMNS), sharex=True, sharey=True)
    for row, bits in zip(axes, (1, 2, 3, 4), strict=True):
        for ax, (scheme, weight) in zip(row, COLUMNS, strict=True):
            t = pb.fewbit.table(name, bits, weight=weight, scheme=scheme)
            ax.plot(x, g, color="0.6", linewidth=1.5)
            ax.plot(x, t(x).numpy(), color="tab:blue", linewidth=0.9)
            bound = f"max {t.max_error:.3f}" if scheme == "minimax" else f"error {t.error:.2e}"
            ax.set_title(f"{bits} bits, {bound}", fontsize=7, pad=2)
            ax.tick_params(labelsize=6, length=2)
            if bits == 4:
                label = scheme if scheme == "minimax" else f"{scheme}, {weight}"
                ax.set_xlabel(label, fontsize=8)
    path = OUT / f"fewbit_{name}.png"
    figure.savefig(path, dpi=75)
    Image.open(path).convert("RGB").quantize(16).save(path, optimize=True)
    return path


def rows() -> str:
    """Root mean square errors under N(0, 1)."""
    lines = []
    for name in ("gelu", "silu", "tanh", "sigmoid", "selu", "softplus"):
        for scheme in ("interval", "value", "minimax", "unbiased"):
            errors = [f"{pb.fewbit.table(name, b, scheme=scheme).error ** 0.5:.4f}" for b in (1, 2, 3, 4)]
            lines.append(f"| {name} | {scheme} | {' | '.join(errors)} |")
    return "\n".join(lines)


def main() -> None:
    if "--rows" in sys.argv:
        return print(rows())
    OUT.mkdir(parents=True, exist_ok=True)
    sizes = {name: draw(name).stat().st_size for name in T.SMOOTH}
    print(f"{len(sizes)} pictures, {sum(sizes.values())} bytes")


if __name__ == "__main__":
    main()
