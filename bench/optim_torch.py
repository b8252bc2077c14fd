"""The best existing code for each update rule: torch's fused or foreach optimizer, else its ops in a plain loop.

A loop is what a user writes today: in-place ops of PyTorch, tensor by tensor, from the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Tensors = list[Any]
Step = Callable[[], None]


def existing(name: str, **words: Any) -> Callable[[Tensors, Tensors], Step]:
    """The step of a class of torch.optim."""

    def make(params: Tensors, grads: Tensors) -> Step:
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        step: Step = getattr(torch.optim, name)(params, **words).step
        return step

    return make


def loop(slots: int, rule: Callable[..., None], **start: Any) -> Callable[[Tensors, Tensors], Step]:
    """rule(t, p, g, states...) for every tensor; the states start at 0."""

    def make(params: Tensors, grads: Tensors) -> Step:
        states = [[torch.zeros_like(p) for _ in range(slots)] for p in params]
        count = [0]

        def step() -> None:
            count[0] += 1
            for p, g, s in zip(params, grads, states, strict=True):
                rule(count[0], p, g, *s)

        return torch.no_grad()(step)

    return make


def whole(slots: int, rule: Callable[..., None]) -> Callable[[Tensors, Tensors], Step]:
    """rule(t, params, grads, states, kept) for rules with norms over the model; kept is a dict of numbers."""

    def make(params: Tensors, grads: Tensors) -> Step:
        states = [[torch.zeros_like(p) for p in params] for _ in range(slots)]
        kept: dict[str, Any] = {}
        count = [0]

        def step() -> None:
            count[0] += 1
            rule(count[0], params, grads, states, kept)

        return torch.no_grad()(step)

    return make


def norm(tensors: Tensors) -> float:
    return float(torch.stack(torch._foreach_norm(tensors)).double().norm())


def _moments(t: int, g: Any, m: Any, v: Any, eps: float = 1e-8) -> tuple[float, Any]:
    """1 / c1, and sqrt(v / c2) + eps."""
    m.lerp_(g, 0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    return 1 / (1 - 0.9**t), v.sqrt().div_((1 - 0.999**t) ** 0.5).add_(eps)


def lion(t: int, p: Any, g: Any, m: Any) -> None:
    p.add_(torch.lerp(m, g, 0.1).sign_(), alpha=-1e-4)
    m.lerp_(g, 0.01)


def grams(t: int, p: Any, g: Any, m: Any, v: Any) -> None:
    rate, spread = _moments(t, g, m, v, 1e-6)
    p.add_(g.sign().mul_((m / spread).abs_()), alpha=-1e-3 * rate)


def cautious(t: int, p: Any, g: Any, m: Any, v: Any) -> None:
    rate, spread = _moments(t, g, m, v)
    mask = (m * g > 0).to(g.dtype)
    p.add_((m / spread).mul_(mask).div_(mask.mean().clamp_(min=1e-3)), alpha=-1e-3 * rate)


def diffgrad(t: int, p: Any, g: Any, m: Any, v: Any, last: Any) -> None:
    rate, spread = _moments(t, g, m, v)
    p.add_(torch.sigmoid((last - g).abs_()).mul_(m).div_(spread), alpha=-1e-3 * rate)
    last.copy_(g)


def ademamix(t: int, p: Any, g: Any, m: Any, v: Any, n: Any) -> None:
    rate, spread = _moments(t, g, m, v)
    n.lerp_(g, 0.0001)
    p.add_((m * rate).add_(n, alpha=5.0).div_(spread), alpha=-1e-3)


def gravity(t: int, p: Any, g: Any, v: Any) -> None:
    top = g.abs().max()
    b = (0.9 * (t - 1) + 1) / (t + 1)
    v.mul_(b).add_(g / (1 + (g * top) ** 2), alpha=1 - b)
    p.add_(v, alpha=-0.1)


def exp_scaled(t: int, p: Any, g: Any, m: Any) -> None:
    m.mul_(0.9).add_(g)
    p.add_(m, alpha=-1e-3)


def sgld(t: int, p: Any, g: Any) -> None:
    p.add_(g, alpha=-5e-4).add_(torch.randn_like(p), alpha=1e-3**0.5)


def opt_amsgrad(t: int, p: Any, g: Any, m: Any, v: Any, top: Any, w: Any, guess: Any) -> None:
    if t == 1:
        w.copy_(p)
    ahead = torch.lerp(m, g, 0.1)
    off = g - guess
    m.lerp_(g, 0.1)
    v.mul_(0.999).addcmul_(off, off, value=0.001)
    torch.maximum(top, v, out=top).clamp_(min=1e-8)
    root = top.sqrt()
    w.addcdiv_(m, root, value=-1e-3)
    guess.copy_(g)
    p.copy_(w).addcdiv_(ahead, root, value=-1e-3)


def lamb(t: int, p: Any, g: Any, m: Any, v: Any) -> None:
    rate, spread = _moments(t, g, m, v, 1e-6)
    u = (m / spread).mul_(rate)
    p.add_(u, alpha=-1e-3 * float(p.norm() / u.norm()))


def schedule_free(t: int, p: Any, g: Any, z: Any, v: Any) -> None:
    if t == 1:
        z.copy_(p)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    u = g / v.sqrt().div_((1 - 0.999**t) ** 0.5).add_(1e-8)
    p.lerp_(z, 1 / t).add_(u, alpha=2.5e-3 * (0.9 * (1 - 1 / t) - 1))
    z.add_(u, alpha=-2.5e-3)


def adagrad_norm(t: int, params: Tensors, grads: Tensors, states: Any, kept: dict[str, Any]) -> None:
    kept["sum"] = kept.get("sum", 1e-4) + norm(grads) ** 2
    torch._foreach_add_(params, grads, alpha=-1e-2 / kept["sum"] ** 0.5)


def normalized(t: int, params: Tensors, grads: Tensors, states: Any, kept: dict[str, Any]) -> None:
    torch._foreach_add_(params, grads, alpha=-1e-3 / norm(grads))


def dog(t: int, params: Tensors, grads: Tensors, states: Any, kept: dict[str, Any], tame: bool = False) -> None:
    """With the average, as shipped."""
    start, average = states
    if t == 1:
        torch._foreach_copy_(start, params)
        kept["r"], kept["G"] = 1e-6 * (1 + norm(params)), 1e-8
    else:
        kept["r"] = max(kept["r"], norm(torch._foreach_sub(params, start)))
    kept["G"] += norm(grads) ** 2
    torch._foreach_add_(params, grads, alpha=-kept["r"] / kept["G"] ** 0.5)
    torch._foreach_lerp_(average, params, 9 / (8 + t))


def ldog(t: int, p: Any, g: Any, start: Any, average: Any, _kept: dict[int, Any] = {}) -> None:  # noqa: B006
    if t == 1:
        start.copy_(p)
        _kept[id(p)] = [1e-6 * (1 + float(p.norm())), 1e-8]
    kept = _kept[id(p)]
    if t > 1:
        kept[0] = max(kept[0], float((p - start).norm()))
    kept[1] += float(g.norm()) ** 2
    p.add_(g, alpha=-kept[0] / kept[1] ** 0.5)
    average.lerp_(p, 9 / (8 + t))


def adog(t: int, params: Tensors, grads: Tensors, states: Any, kept: dict[str, Any]) -> None:
    start, w, average = states
    if t == 1:
        torch._foreach_copy_(start, params)
        torch._foreach_copy_(w, params)
        kept["r"] = kept["sum"] = 1e-6 * (1 + norm(params))
        kept["G"], kept["a"] = 1e-8, 1.0
    kept["G"] += kept["a"] ** 2 * norm(grads) ** 2
    eta = kept["r"] / kept["G"] ** 0.5
    torch._foreach_add_(params, grads, alpha=-eta)
    torch._foreach_add_(w, grads, alpha=-eta * kept["a"])
    kept["r"] = max(kept["r"], norm(torch._foreach_sub(w, start)))
    kept["sum"] += kept["r"]
    kept["a"] = max(1.0, 0.5 * kept["sum"] / kept["r"])
    torch._foreach_lerp_(params, w, 1 / kept["a"])
    torch._foreach_lerp_(average, params, 9 / (8 + t))


def prodigy(t: int, params: Tensors, grads: Tensors, states: Any, kept: dict[str, Any]) -> None:
    m, v, s, start = states
    if t == 1:
        torch._foreach_copy_(start, params)
        kept.update(d=1e-6, top=1e-6, n=0.0)
    d, beta3 = kept["d"], 0.999**0.5
    way = torch._foreach_mul(torch._foreach_sub(start, params), grads)
    kept["n"] = beta3 * kept["n"] + d / 1e-6 * d * float(torch.stack([w.sum() for w in way]).sum())
    torch._foreach_mul_(m, 0.9)
    torch._foreach_add_(m, grads, alpha=0.1 * d)
    torch._foreach_mul_(v, 0.999)
    torch._foreach_addcmul_(v, grads, grads, value=0.001 * d * d)
    torch._foreach_mul_(s, beta3)
    torch._foreach_add_(s, grads, alpha=d / 1e-6 * d)
    total = float(torch.stack(torch._foreach_norm(s, 1)).sum())
    kept["top"] = max(kept["top"], kept["n"] / total)
    kept["d"] = max(d, kept["top"])
    spread = torch._foreach_sqrt(v)
    torch._foreach_add_(spread, kept["d"] * 1e-8)
    torch._foreach_addcdiv_(params, m, spread, value=-d)
