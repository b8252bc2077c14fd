"""Tables of a derivative made here, so that tests of the codes do not lean on the solver."""

from __future__ import annotations

import math

import numpy as np

erf = np.vectorize(math.erf)


def gelu(x: np.ndarray) -> np.ndarray:
    """x * Phi(x) in float64."""
    x = np.asarray(x, np.float64)
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_slope(x: np.ndarray) -> np.ndarray:
    """Its derivative; the limits at infinity."""
    x = np.asarray(x, np.float64)
    c = np.clip(x, -40, 40)
    return 0.5 * (1 + erf(c / math.sqrt(2))) + c * np.exp(-c * c / 2) / math.sqrt(2 * math.pi)


def level_of(table, x: np.ndarray) -> np.ndarray:
    """The level of each x by a table's definition, as float32."""
    piece = np.searchsorted(np.asarray(table.boundaries), np.asarray(x, np.float64), side="left")
    return np.asarray(table.levels, np.float32)[np.asarray(table.codes)[piece]]


def gray(k: int) -> int:
    """The Gray code of k: neighbours differ in one bit."""
    return k ^ k >> 1


def minimax_table(slope, bits: int) -> tuple[list[float], list[int], list[float], float]:
    """Equal cells of the slope's range: boundaries, a label per piece, a level per label, the largest error."""
    grid = np.linspace(-12, 12, 200001)
    g = slope(grid)
    low, high = g.min(), g.max()
    n = 1 << bits
    cell = np.clip(((g - low) / (high - low) * n).astype(int), 0, n - 1)
    boundaries, pieces = [], [cell[0]]
    for i in np.flatnonzero(np.diff(cell)):
        up = cell[i + 1] > cell[i]
        edge = low + (high - low) * max(cell[i], cell[i + 1]) / n
        a, b = grid[i], grid[i + 1]
        for _ in range(60):
            m = (a + b) / 2
            a, b = (m, b) if (slope(m) < edge) == up else (a, m)
        boundaries.append(a)
        pieces.append(cell[i + 1])
    levels = [0.0] * n
    for k in range(n):
        levels[gray(k)] = low + (high - low) * (k + 0.5) / n
    return boundaries, [gray(int(k)) for k in pieces], levels, (high - low) / (2 * n)
