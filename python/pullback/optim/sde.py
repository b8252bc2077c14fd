"""Stochastic differential equations that model optimizers with small steps, and a simulator of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _core as C
from .._core import Tensor

__all__ = ["sam_drift", "simulate", "usam_drift"]

Function = Callable[[Tensor], Tensor]


def usam_drift(loss: Function, rho: float) -> Function:
    """The gradient of f + rho/2 |grad f|^2, which USAM descends in the limit of small steps.

    Args:
        loss: f of points of shape (paths, n), giving one number per path or their sum. rho: of USAM.

    Returns:
        A function of points of shape (paths, n). Compagnoni et al. 2023.

    >>> drift = pb.optim.sde.usam_drift(lambda x: 0.5 * (x * x).sum(axis=-1), 0.5)
    >>> drift(pb.tensor([[1.0, -2.0]])).tolist()
    [[1.5, -3.0]]
    """
    return _drift(loss, rho, normalised=False)


def sam_drift(loss: Function, rho: float) -> Function:
    """The gradient of f + rho |grad f|, which SAM descends in the limit of small steps. Words as in `usam_drift`."""
    return _drift(loss, rho, normalised=True)


def _drift(loss: Function, rho: float, normalised: bool) -> Function:
    from ..transforms import gradients

    def drift(x: Tensor) -> Tensor:
        before = C._set_grad_enabled(True)
        try:
            x = x.detach().clone()
            x.requires_grad = True
            (slope,) = gradients(loss(x).sum(), [x], create_graph=True)
            if normalised:
                penalty = C.sqrt(C.maximum((slope * slope).sum(axis=-1), 1e-300)).sum()
            else:
                penalty = 0.5 * (slope * slope).sum()
            (turn,) = gradients(penalty, [x]) if penalty.requires_grad else (slope * 0,)
        finally:
            C._set_grad_enabled(before)
        return slope.detach() + rho * turn

    return drift


def simulate(
    drift: Function, diffusion: Function | float, x: Tensor, dt: float, steps: int, *, rng: Any = None
) -> Tensor:
    """Paths of dX = -drift(X) dt + diffusion dW by the Euler-Maruyama method.

    Args:
        drift: function of points of shape (paths, n), giving the same shape.
        diffusion: factor of the noise: a number, or a function of the points giving numbers or (paths, n).
        x: start, (paths, n). dt: length of a step, positive. steps: how many, at least 0.
        rng: a generator of `pb.random`; None takes the default one.

    Returns:
        The points after the last step.

    Raises:
        ValueError: dt is not positive or steps is negative.

    >>> x = pb.optim.sde.simulate(lambda x: x, 0.0, pb.tensor([[1.0]]), 0.5, 2)
    >>> x.tolist()
    [[0.25]]
    """
    if not dt > 0 or steps < 0:
        raise ValueError(
            f"simulate: dt must be positive and steps not negative, got {dt}, {steps}\nhelp: t = dt * steps"
        )
    before = C._set_grad_enabled(False)
    try:
        for _ in range(steps):
            noise = C.draw_normal(x.shape, 0.0, dt**0.5, x.dtype, rng, x.device)
            x = x - dt * drift(x) + (diffusion(x) if callable(diffusion) else diffusion) * noise
    finally:
        C._set_grad_enabled(before)
    return x
