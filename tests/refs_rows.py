"""Samples and NumPy references, in float64, of the registry rows outside the Map and Reduce families.

A row maps to a list of Sample: how the op is called on tensors, what NumPy says, and the arrays. Float arrays are
varied by the derivative tests, others are passed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import conv_refs
import numpy as np

import pullback as pb

_rng = np.random.default_rng(11)


@dataclass
class Sample:
    call: Callable[..., Any]  # (op, *tensors)
    want: Callable[..., Any]  # (*arrays)
    arrays: list[np.ndarray] = field(default_factory=list)
    batch: tuple[int, ...] = ()  # arrays whose first axis can be cut to 0
    nan: bool = True  # one NaN in the first array gives NaN where NumPy has it
    half: bool = True  # takes 16-bit floats
    single: bool = True  # the same values in float32


def F(*shape: int, low: float = -1.5, high: float = 1.5) -> np.ndarray:
    """Floats without ties that float32 holds exactly, at least 0.01 apart from 0."""
    n = math.prod(shape)
    grid = (np.arange(n) + 0.5) / max(n, 1) * (high - low) + low
    x = np.round(grid * 1024 + 0.25) / 1024
    return _rng.permutation(np.where(np.abs(x) < 0.01, 0.02, x)).reshape(shape)


def S(call: Callable[..., Any], want: Callable[..., Any], *arrays: Any, **options: Any) -> Sample:
    return Sample(call, want, [np.asarray(a) for a in arrays], **options)


def _softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis, keepdims=True)


def _lse(x, axis=None, keepdims=False):
    top = np.max(x, axis, keepdims=True)
    y = np.log(np.sum(np.exp(x - top), axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis)


def _normal(x, axes, eps, mean=True):
    m = x.mean(axes, keepdims=True) if mean else 0.0
    return (x - m) / np.sqrt(((x - m) ** 2).mean(axes, keepdims=True) + eps)


def _group(x, g, w, b):
    y = _normal(x.reshape(len(x), g, x.shape[1] // g, x.shape[2]), (2, 3), 1e-5).reshape(x.shape)
    return y * w[:, None] + b[:, None]


def _channels(x, m, v, w, b, eps=1e-5):
    return (x - m[:, None]) / np.sqrt(v[:, None] + eps) * w[:, None] + b[:, None]


def _attention(q, k, v, mask=None, causal=False, scale=None):
    s = q @ np.swapaxes(k, -1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    return _softmax(s) @ v


def _transposed(x, w, b, stride, padding, extra, groups=1):
    """conv_transpose2d: every input cell adds its kernel."""
    n, c, h, wide = x.shape
    o, (kh, kw) = w.shape[1] * groups, w.shape[2:]
    y = np.zeros((n, o, (h - 1) * stride + kh + extra, (wide - 1) * stride + kw + extra))
    for g in range(groups):
        ins, outs = slice(g * c // groups, (g + 1) * c // groups), slice(g * w.shape[1], (g + 1) * w.shape[1])
        for i in range(h):
            for j in range(wide):
                at = (slice(None), outs, slice(i * stride, i * stride + kh), slice(j * stride, j * stride + kw))
                y[at] += np.einsum("nc,cohw->nohw", x[:, ins, i, j], w[ins])
    return y[:, :, padding : y.shape[2] - padding, padding : y.shape[3] - padding] + b[:, None, None]


def _conv1(x, w, b, **k):
    k = {n: (1 if n != "padding" else 0, v) if n != "groups" else v for n, v in k.items()}
    return conv_refs.conv2d(x[:, :, None], w[:, :, None], b, **k)[:, :, 0]


def _scatter(x, i, v, axis):
    y = x.copy()
    i = np.broadcast_to(i, v.shape)
    for at in np.ndindex(*i.shape):
        to = list(at)
        to[axis] = i[at]
        y[tuple(to)] += v[at]
    return y


def _cross(x, t, w=None, ignore=None, smooth=0.0, reduction="mean"):
    """x (rows, classes), integer t."""
    logp = x - _lse(x, -1, True)
    weight = np.ones(x.shape[1]) if w is None else w
    hot = np.eye(x.shape[1])[np.where(t == ignore, 0, t)] * (1 - smooth) + smooth / x.shape[1]
    counted = np.ones(len(t)) if ignore is None else (t != ignore).astype(float)
    rows = np.where(counted > 0, -(hot * logp * weight).sum(1), 0.0)
    total = (weight[np.where(t == ignore, 0, t)] * counted).sum()
    return {"none": rows, "sum": rows.sum(), "mean": rows.sum() / total}[reduction]


def _mean(loss):
    return lambda *a: np.mean(loss(*a))


def _cosine(a, b, t):
    c = (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + 1e-12) * ((b * b).sum(-1) + 1e-12))
    return np.where(t == 1, 1 - c, np.maximum(c - 0.1, 0)).mean()


def _mask_of_dropout(x):
    kept = pb.dropout(pb.ones(x.shape, dtype=pb.float64), 0.4, rng=pb.random.Generator(5)).numpy()
    return np.where(kept > 0, kept * x, 0.0)


_T3 = np.array([2, 0, 1])
_SIGNS = np.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])

VIEW = {
    "reshape": [
        S(lambda op, x: op(x, (4, -1)), lambda x: x.reshape(4, 3), F(2, 3, 2)),
        S(lambda op, x: op(x, (-1,)), lambda x: x.ravel(), F(2, 3), batch=(0,)),
    ],
    "permute_dims": [S(lambda op, x: op(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1), F(2, 3, 2), batch=(0,))],
    "matrix_transpose": [S(lambda op, x: op(x), lambda x: np.swapaxes(x, -1, -2), F(2, 3, 2), batch=(0,))],
    "moveaxis": [
        S(lambda op, x: op(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), F(2, 3, 2), batch=(0,)),
        S(lambda op, x: op(x, (0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0)), F(2, 3, 2)),
    ],
    "expand_dims": [
        S(lambda op, x: op(x, 1), lambda x: x[:, None], F(2, 3), batch=(0,)),
        S(lambda op, x: op(x, -1), lambda x: x[..., None], F(3)),
    ],
    "squeeze": [
        S(lambda op, x: op(x), np.squeeze, F(1, 3, 1)),
        S(lambda op, x: op(x, -1), lambda x: x[..., 0], F(2, 3, 1), batch=(0,)),
    ],
    "broadcast_to": [S(lambda op, x: op(x, (2, 3, 2)), lambda x: np.broadcast_to(x, (2, 3, 2)), F(3, 1))],
    "broadcast_arrays": [S(lambda op, a, b: op(a, b), lambda a, b: np.broadcast_arrays(a, b), F(3, 1), F(2))],
    "flip": [
        S(lambda op, x: op(x), np.flip, F(2, 3), batch=(0,)),
        S(lambda op, x: op(x, 1), lambda x: x[:, ::-1], F(2, 3)),
    ],
    "flatten": [
        S(lambda op, x: op(x, 1), lambda x: x.reshape(len(x), 6), F(2, 3, 2), batch=(0,)),
        S(lambda op, x: op(x), lambda x: x.reshape(1), F()),
    ],
    "split": [
        S(lambda op, x: op(x, 2, 1), lambda x: np.split(x, 2, 1), F(2, 4), batch=(0,)),
        S(lambda op, x: op(x, [1, -1]), lambda x: np.split(x, [1, -1]), F(5)),
    ],
    "meshgrid": [
        S(lambda op, a, b: op(a, b), lambda a, b: np.meshgrid(a, b), F(2), F(3), batch=(0,)),
        S(lambda op, a, b: op(a, b, indexing="ij"), lambda a, b: np.meshgrid(a, b, indexing="ij"), F(2), F(3)),
    ],
}

INDEX = {  # linear by an index map
    "concat": [
        S(lambda op, a, b: op([a, b], 1), lambda a, b: np.concatenate([a, b], 1), F(2, 3), F(2, 1), batch=(0, 1)),
        S(lambda op, a, b: op([a, b], None), lambda a, b: np.concatenate([a, b], None), F(2, 2), F(3)),
    ],
    "stack": [S(lambda op, a, b: op([a, b], -1), lambda a, b: np.stack([a, b], -1), F(2, 3), F(2, 3), batch=(0, 1))],
    "unstack": [S(lambda op, x: op(x, axis=1), lambda x: list(np.moveaxis(x, 1, 0)), F(2, 3), batch=(0,))],
    "pad": [
        S(
            lambda op, x: op(x, ((1, 0), (0, 2)), value=0.5),
            lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=0.5),
            F(2, 3),
            batch=(0,),
        ),
        *[
            S(lambda op, x, m=m: op(x, 2, mode=m), lambda x, m=m: np.pad(x, 2, mode=m), F(3, 3))
            for m in ("edge", "reflect", "symmetric", "wrap")
        ],
    ],
    "tile": [S(lambda op, x: op(x, (2, 1, 2)), lambda x: np.tile(x, (2, 1, 2)), F(2, 3))],
    "repeat": [
        S(lambda op, x: op(x, 2), lambda x: np.repeat(x, 2), F(2, 2), batch=(0,)),
        S(lambda op, x, n: op(x, n, axis=1), lambda x, n: np.repeat(x, n, 1), F(2, 3), np.array([0, 2, 1])),
    ],
    "roll": [
        S(lambda op, x: op(x, 2), lambda x: np.roll(x, 2), F(2, 3), batch=(0,)),
        S(lambda op, x: op(x, (1, -1), axis=(0, 1)), lambda x: np.roll(x, (1, -1), (0, 1)), F(2, 3)),
    ],
    "take": [
        S(
            lambda op, x, i: op(x, i, axis=1),
            lambda x, i: np.take(x, i, 1),
            F(2, 3),
            np.array([[2, -1], [0, 2]]),
            batch=(0,),
        ),
        S(lambda op, x, i: op(x, i), lambda x, i: np.take(x, i), F(2, 3), np.array([5, 0, 5])),
    ],
    "embedding": [S(lambda op, w, i: op(i, w), lambda w, i: w[i], F(4, 2), np.array([[1, 1], [3, 0]]), batch=(1,))],
    "take_along_axis": [
        S(
            lambda op, x, i: op(x, i, 1),
            lambda x, i: np.take_along_axis(x, i, 1),
            F(2, 3),
            np.array([[2, 0], [1, 1]]),
            batch=(0, 1),
        ),
    ],
    "scatter_add": [
        S(
            lambda op, x, i, v: op(x, i, v, axis=1),
            lambda x, i, v: _scatter(x, i, v, 1),
            F(2, 3),
            np.array([[2, 0], [1, 1]]),
            F(2, 2),
            batch=(0, 1, 2),
        ),
    ],
    "tril": [
        S(lambda op, x: op(x, k=-1), lambda x: np.tril(x, -1), F(3, 3), batch=()),
        S(lambda op, x: op(x), np.tril, F(2, 2, 3), batch=(0,)),
    ],
    "triu": [S(lambda op, x: op(x, k=1), lambda x: np.triu(x, 1), F(2, 3, 3), batch=(0,))],
    "astype": [
        S(lambda op, x: op(x, pb.float64), lambda x: x, F(2, 3), batch=(0,)),
        S(lambda op, x: op(x, x.dtype), lambda x: x, F(2, 3)),
    ],
}

LINEAR = {
    "matmul": [
        S(lambda op, a, b: op(a, b), np.matmul, F(2, 3, 4), F(4, 2), batch=(0,)),
        S(lambda op, a, b: op(a, b), np.matmul, F(4), F(2, 4, 3)),
        S(lambda op, a, b: op(a, b), np.matmul, F(3), F(3), batch=(0, 1)),
    ],
    "linear": [
        S(lambda op, x, w, b: op(x, w, b), lambda x, w, b: x @ w.T + b, F(3, 4), F(2, 4), F(2), batch=(0,)),
        S(lambda op, x, w: op(x, w), lambda x, w: x @ w.T, F(2, 2, 3), F(2, 3)),
    ],
    "tensordot": [
        S(lambda op, a, b: op(a, b, axes=1), lambda a, b: np.tensordot(a, b, 1), F(2, 3), F(3, 2), batch=(0,)),
        S(lambda op, a, b: op(a, b, axes=([0], [1])), lambda a, b: np.tensordot(a, b, ([0], [1])), F(3, 2), F(2, 3)),
    ],
    "vecdot": [S(lambda op, a, b: op(a, b), lambda a, b: (a * b).sum(-1), F(2, 3), F(3), batch=(0,))],
    "outer": [S(lambda op, a, b: op(a, b), np.outer, F(3), F(2), batch=(0,))],
    "einsum": [
        S(lambda op, a, b: op("bij,bjk->bik", a, b), lambda a, b: a @ b, F(2, 2, 3), F(2, 3, 2), batch=(0, 1)),
        S(lambda op, a: op("ii->i", a), np.diagonal, F(3, 3)),
        S(lambda op, a, b, c: op("i,ij,j->", a, b, c), lambda a, b, c: a @ b @ c, F(2), F(2, 3), F(3)),
    ],
    "conv2d": [
        S(lambda op, x, w, b: op(x, w, b), conv_refs.conv2d, F(2, 2, 3, 3), F(2, 2, 2, 2), F(2), batch=(0,)),
        S(
            lambda op, x, w: op(x, w, stride=2, padding=(1, 0), dilation=(1, 2), groups=2),
            lambda x, w: conv_refs.conv2d(x, w, None, 2, (1, 0), (1, 2), 2),
            F(1, 2, 4, 5),
            F(2, 1, 2, 2),
        ),
    ],
    "conv1d": [
        S(
            lambda op, x, w, b: op(x, w, b, stride=2, padding=1),
            lambda x, w, b: _conv1(x, w, b, stride=2, padding=1),
            F(2, 2, 5),
            F(3, 2, 2),
            F(3),
            batch=(0,),
        ),
    ],
    "conv_transpose2d": [
        S(
            lambda op, x, w, b: op(x, w, b, stride=2, padding=1, output_padding=1),
            lambda x, w, b: _transposed(x, w, b, 2, 1, 1),
            F(1, 2, 2, 3),
            F(2, 2, 3, 3),
            F(2),
            batch=(0,),
        ),
        S(
            lambda op, x, w, b: op(x, w, b, groups=2),
            lambda x, w, b: _transposed(x, w, b, 1, 0, 0, 2),
            F(1, 2, 2, 2),
            F(2, 1, 2, 2),
            F(2),
        ),
    ],
}

ROW = {
    "softmax": [
        S(lambda op, x: op(x), _softmax, F(2, 4), batch=(0,)),
        S(lambda op, x: op(x, 0), lambda x: _softmax(x, 0), F(3, 2)),
    ],
    "log_softmax": [
        S(lambda op, x: op(x), lambda x: np.log(_softmax(x)), F(2, 4), batch=(0,)),
        S(lambda op, x: op(x, 0), lambda x: np.log(_softmax(x, 0)), F(3, 2)),
    ],
    "layer_norm": [
        S(
            lambda op, x, w, b: op(x, w, b),
            lambda x, w, b: _normal(x, -1, 1e-5) * w + b,
            F(2, 4),
            F(4),
            F(4),
            batch=(0,),
        ),
        S(lambda op, x: op(x, axis=(-2, -1), eps=1e-2), lambda x: _normal(x, (-2, -1), 1e-2), F(2, 2, 3)),
    ],
    "rms_norm": [
        S(lambda op, x, w: op(x, w), lambda x, w: _normal(x, -1, 1e-6, False) * w, F(2, 4), F(4), batch=(0,)),
        S(lambda op, x: op(x, eps=1e-2), lambda x: _normal(x, -1, 1e-2, False), F(3, 3)),
    ],
    "group_norm": [
        S(lambda op, x, w, b: op(x, 2, w, b), lambda x, w, b: _group(x, 2, w, b), F(2, 4, 3), F(4), F(4), batch=(0,))
    ],
    "batch_norm": [
        S(
            lambda op, x, w, b: op(x, pb.zeros_like(w), pb.ones_like(w), w, b, training=True),
            lambda x, w, b: _channels(x, x.mean((0, 2)), x.var((0, 2)), w, b),
            F(3, 2, 2),
            F(2),
            F(2),
        ),
        S(
            lambda op, x, w, b: op(
                x, *(pb.tensor(v, dtype=x.dtype).to(x.device) for v in ([0.5, -0.25], [2.0, 0.5])), w, b
            ),
            lambda x, w, b: _channels(x, np.array([0.5, -0.25]), np.array([2.0, 0.5]), w, b),
            F(2, 2, 3),
            F(2),
            F(2),
            batch=(0,),
        ),
    ],
    "argmax": [
        S(lambda op, x: op(x), np.argmax, F(2, 3)),
        S(lambda op, x: op(x, 1, keepdims=True), lambda x: np.argmax(x, 1, keepdims=True), F(2, 3), batch=(0,)),
    ],
    "argmin": [
        S(lambda op, x: op(x), np.argmin, F(2, 3)),
        S(lambda op, x: op(x, 0), lambda x: np.argmin(x, 0), F(2, 3)),
    ],
    "cumulative_sum": [
        S(lambda op, x: op(x, 1), lambda x: np.cumsum(x, 1), F(2, 4), batch=(0,)),
        S(lambda op, x: op(x, include_initial=True), lambda x: np.concatenate([[0.0], np.cumsum(x)]), F(4)),
    ],
    "sort": [
        S(lambda op, x: op(x), np.sort, F(2, 4), batch=(0,)),
        S(lambda op, x: op(x, axis=0, descending=True), lambda x: np.sort(x, 0)[::-1], F(4, 2), nan=False),
    ],
    "argsort": [S(lambda op, x: op(x), np.argsort, F(2, 4), batch=(0,))],
    "topk": [
        S(lambda op, x: op(x, 2), lambda x: (np.sort(x)[:, :-3:-1], np.argsort(x)[:, :-3:-1]), F(2, 4), batch=(0,)),
    ],
    "losses.cross_entropy": [
        S(lambda op, x, t: op(x, t), _cross, F(3, 4), _T3),
        S(
            lambda op, x, t: op(x, t, weight=pb.tensor([0.5, 1.0, 2.0, 1.0], dtype=x.dtype), ignore_index=1),
            lambda x, t: _cross(x, t, np.array([0.5, 1.0, 2.0, 1.0]), 1),
            F(3, 4),
            _T3,
        ),
        S(
            lambda op, x, t: op(x, t, label_smoothing=0.2, reduction="none"),
            lambda x, t: _cross(x, t, smooth=0.2, reduction="none"),
            F(3, 4),
            _T3,
            batch=(0, 1),
        ),
        S(
            lambda op, x, t: op(x, t, axis=1),
            lambda x, t: _cross(np.moveaxis(x, 1, 2).reshape(-1, 3), t.ravel()),
            F(2, 3, 2),
            np.array([[0, 2], [1, 1]]),
        ),
        S(
            lambda op, x, t: op(x, t),
            lambda x, t: -(t * (x - _lse(x, -1, True))).sum(-1).mean(),
            F(2, 3),
            F(2, 3, low=0.1, high=0.6),
        ),
    ],
    "losses.nll": [S(lambda op, x, t: op(x, t), lambda x, t: -x[np.arange(3), t].mean(), F(3, 4), _T3)],
}

CUSTOM = {
    "prod": [
        S(lambda op, x: op(x), np.prod, F(2, 3)),
        S(lambda op, x: op(x, 1), lambda x: x.prod(1), F(2, 3), batch=(0,)),
    ],
    "var": [
        S(lambda op, x: op(x), np.var, F(2, 3)),
        S(lambda op, x: op(x, -1, correction=1), lambda x: x.var(-1, ddof=1), F(2, 4), batch=(0,)),
    ],
    "std": [
        S(lambda op, x: op(x, 0), lambda x: x.std(0), F(3, 2)),
        S(lambda op, x: op(x, -1, correction=1), lambda x: x.std(-1, ddof=1), F(2, 4), batch=(0,)),
    ],
    "logsumexp": [
        S(lambda op, x: op(x, -1), lambda x: _lse(x, -1), F(2, 3), batch=(0,)),
        S(lambda op, x: op(x), _lse, F(2, 3)),
    ],
    "norm": [
        S(lambda op, x: op(x), lambda x: np.sqrt((x * x).sum()), F(2, 3)),
        S(lambda op, x: op(x, 1, -1), lambda x: np.abs(x).sum(-1), F(2, 3), batch=(0,)),
        S(lambda op, x: op(x, 3, 0), lambda x: (np.abs(x) ** 3).sum(0) ** (1 / 3), F(3, 2)),
        S(
            lambda op, x: op(x, math.inf, -1),
            lambda x: np.abs(x).max(-1),
            np.array([[0.5, -2.0, 1.0], [1.5, 0.25, -0.75]]),
        ),
        S(
            lambda op, x: op(x, -math.inf, -1),
            lambda x: np.abs(x).min(-1),
            np.array([[0.5, -2.0, 1.0], [1.5, 0.25, -0.75]]),
        ),
    ],
    "clip": [
        S(lambda op, x: op(x, -0.55, 0.71), lambda x: np.clip(x, -0.55, 0.71), F(2, 4), batch=(0,)),
        S(lambda op, x, a, b: op(x, a, b), np.clip, F(2, 4), np.full((2, 4), -0.617), np.full(4, 0.643)),
    ],
    "dropout": [
        S(lambda op, x: op(x, 0.4, rng=pb.random.Generator(5)), _mask_of_dropout, F(3, 4), batch=(0,), single=False),
        S(lambda op, x: op(x, 0.4, training=False), lambda x: x, F(2, 3)),
    ],
    "bias_act_dropout": [
        S(lambda op, x, b: op(x, b, "tanh"), lambda x, b: np.tanh(x + b), F(3, 4), F(4), batch=(0,)),
        S(
            lambda op, x, b: op(x, b, "tanh", 0.4, rng=pb.random.Generator(5)),
            lambda x, b: _mask_of_dropout(np.tanh(x + b)),
            F(3, 4),
            F(4),
            single=False,
        ),
    ],
    "linear_act": [
        S(
            lambda op, x, w, b: op(x, w, b, "tanh"),
            lambda x, w, b: np.tanh(x @ w.T + b),
            F(3, 4),
            F(2, 4),
            F(2),
            batch=(0,),
        )
    ],
    "linear_cross_entropy": [
        S(lambda op, x, w, t: op(x, w, t), lambda x, w, t: _cross(x @ w.T, t), F(3, 2), F(4, 2), _T3),
        S(
            lambda op, x, w, t: op(x, w, t, label_smoothing=0.2, reduction="none"),
            lambda x, w, t: _cross(x @ w.T, t, smooth=0.2, reduction="none"),
            F(3, 2),
            F(4, 2),
            _T3,
        ),
    ],
    "add_rms_norm": [
        S(
            lambda op, x, r, w: op(x, r, w)[0],
            lambda x, r, w: _normal(x + r, -1, 1e-6, False) * w,
            F(2, 4),
            F(2, 4),
            F(4),
        ),
        S(lambda op, x, r: op(x, r)[1], lambda x, r: x + r, F(2, 4), F(2, 4)),
    ],
    "stop_gradient": [S(lambda op, x: op(x), lambda x: x, F(2, 3), batch=(0,))],
    "max_pool2d": [
        S(lambda op, x: op(x, 2), lambda x: conv_refs.max_pool2d(x, 2), F(1, 2, 4, 4), batch=(0,)),
        S(
            lambda op, x: op(x, (2, 3), stride=1, padding=1),
            lambda x: conv_refs.max_pool2d(x, (2, 3), 1, 1),
            F(2, 3, 4),
        ),
    ],
    "avg_pool2d": [
        S(lambda op, x: op(x, 2), lambda x: conv_refs.avg_pool2d(x, 2), F(1, 2, 4, 4), batch=(0,)),
        S(
            lambda op, x: op(x, (2, 3), stride=1, padding=1),
            lambda x: conv_refs.avg_pool2d(x, (2, 3), 1, 1),
            F(2, 3, 4),
        ),
    ],
    "adaptive_avg_pool2d": [
        S(lambda op, x: op(x, (2, 3)), lambda x: conv_refs.adaptive_avg_pool2d(x, (2, 3)), F(1, 2, 3, 4), batch=(0,)),
    ],
    "scaled_dot_product_attention": [
        S(lambda op, q, k, v: op(q, k, v), _attention, F(2, 3, 2), F(2, 4, 2), F(2, 4, 3), batch=(0, 1, 2)),
        S(
            lambda op, q, k, v: op(q, k, v, causal=True),
            lambda q, k, v: _attention(q, k, v, None, True),
            F(4, 2),
            F(4, 2),
            F(4, 2),
        ),
        S(
            lambda op, q, k, v, m: op(q, k, v, m, scale=0.3),
            lambda q, k, v, m: _attention(q, k, v, m, False, 0.3),
            F(3, 2),
            F(4, 2),
            F(4, 2),
            np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0]], bool),
        ),
        S(lambda op, q, k, v, m: op(q, k, v, m), _attention, F(3, 2), F(4, 2), F(4, 2), F(3, 4)),
    ],
    "losses.mse": [
        S(lambda op, a, b: op(a, b), _mean(lambda a, b: (a - b) ** 2), F(2, 3), F(2, 3)),
        S(lambda op, a, b: op(a, b, reduction="none"), lambda a, b: (a - b) ** 2, F(2, 3), F(2, 3), batch=(0, 1)),
    ],
    "losses.l1": [
        S(lambda op, a, b: op(a, b, reduction="sum"), lambda a, b: np.abs(a - b).sum(), F(2, 3), F(2, 3) + 0.037)
    ],
    "losses.huber": [
        S(
            lambda op, a, b: op(a, b, delta=0.6),
            _mean(lambda a, b: np.where(np.abs(a - b) <= 0.6, (a - b) ** 2 / 2, 0.6 * (np.abs(a - b) - 0.3))),
            F(2, 3),
            F(2, 3),
        ),
    ],
    "losses.smooth_l1": [
        S(
            lambda op, a, b: op(a, b, beta=0.6),
            _mean(lambda a, b: np.where(np.abs(a - b) < 0.6, (a - b) ** 2 / 1.2, np.abs(a - b) - 0.3)),
            F(2, 3),
            F(2, 3),
        ),
    ],
    "losses.bce_with_logits": [
        S(
            lambda op, x, t: op(x, t),
            _mean(lambda x, t: np.logaddexp(0, x) - x * t),
            F(2, 3),
            F(2, 3, low=0.1, high=0.9),
        ),
        S(
            lambda op, x, t, w, p: op(x, t, weight=w, pos_weight=p, reduction="none"),
            lambda x, t, w, p: w * (p * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)),
            F(2, 3),
            F(2, 3, low=0.1, high=0.9),
            F(3, low=0.5, high=2.0),
            F(3, low=0.5, high=2.0),
            batch=(0, 1),
        ),
    ],
    "losses.kl_div": [
        S(
            lambda op, x, t: op(x, t, reduction="batchmean"),
            lambda x, t: (t * (np.log(t) - x)).sum() / 2,
            F(2, 3),
            F(2, 3, low=0.1, high=0.9),
        ),
        S(lambda op, x, t: op(x, t, log_target=True), lambda x, t: (np.exp(t) * (t - x)).mean(), F(2, 3), F(2, 3)),
    ],
    "losses.hinge": [
        S(
            lambda op, x, t: op(x, t.astype(x.dtype), margin=0.8),
            lambda x, t: np.maximum(0, 0.8 - t * x).mean(),
            F(2, 3),
            _SIGNS.astype(np.int64),
        )
    ],
    "losses.cosine_embedding": [
        S(lambda op, a, b, t: op(a, b, t, margin=0.1), _cosine, F(3, 4), F(3, 4), np.array([1, -1, 1])),
    ],
}

#: Rows of all families but Map and Reduce.
OTHER: dict[str, list[Sample]] = {**VIEW, **INDEX, **LINEAR, **ROW, **CUSTOM}
