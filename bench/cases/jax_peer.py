"""The work of some cases in JAX's terms: pure functions of a tree of arrays under jit, its buffers donated."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Work


def adamw(jax: Any, lr: float, decay: float = 0.01) -> Any:
    """One step of AdamW over a tree, as the other sides make it: betas (0.9, 0.999), eps 1e-8."""
    jnp = jax.numpy

    def update(p: Any, g: Any, m: Any, v: Any, t: Any) -> Any:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p * (1 - lr * decay)
        return p - lr * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v

    def step(params: dict[str, Any], grads: dict[str, Any], state: Any) -> Any:
        m, v, t = state
        t = t + 1
        new = {k: update(params[k], grads[k], m[k], v[k], t) for k in params}
        return {k: n[0] for k, n in new.items()}, (
            {k: n[1] for k, n in new.items()},
            {k: n[2] for k, n in new.items()},
            t,
        )

    return step


def mlp_step(lib: Any, weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, lr: float) -> Work:
    """The MLP's training step, whole under jit."""
    jax = lib.jax
    jnp = jax.numpy
    xs, ys = jnp.asarray(x), jnp.asarray(y)
    names = sorted({name.split(".")[0] for name in weights}, key=int)
    adam = adamw(jax, lr)

    def loss_of(params: dict[str, Any]) -> Any:
        h = xs
        for i in names:
            h = h @ params[f"{i}.weight"].T + params[f"{i}.bias"]
            if i != names[-1]:
                h = jax.nn.gelu(h, approximate=False)
        h = h - jax.nn.logsumexp(h, axis=-1, keepdims=True)
        return -jnp.mean(jnp.take_along_axis(h, ys[:, None], axis=1))

    def step(params: Any, state: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params)
        return (*adam(params, grads, state), loss)

    fast = jax.jit(step, donate_argnums=(0, 1))
    held: dict[str, Any] = {}

    def fresh() -> None:
        held["p"] = {k: jnp.array(v) for k, v in weights.items()}
        zeros = [{k: jnp.zeros_like(v) for k, v in held["p"].items()} for _ in range(2)]
        held["s"] = (*zeros, jnp.float32(0))

    def run() -> Any:
        held["p"], held["s"], loss = fast(held["p"], held["s"])
        return loss.block_until_ready()

    def outputs() -> dict[str, np.ndarray]:
        fresh()
        grads = jax.grad(loss_of)(held["p"])
        found = {f"{k}.grad": np.asarray(g) for k, g in grads.items()}
        return found | {"losses": np.array([float(run()) for _ in range(3)])}

    return Work("run()", {"run": run}, outputs)


def cross_entropy(lib: Any, x: np.ndarray, target: np.ndarray) -> Work:
    """The mean loss over rows and its gradient."""
    jax = lib.jax
    jnp = jax.numpy
    logits, classes = jnp.asarray(x), jnp.asarray(target)

    def loss(x: Any) -> Any:
        picked = jnp.take_along_axis(x, classes[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(x, axis=-1) - picked)

    both = jax.jit(jax.value_and_grad(loss))

    def run() -> Any:
        return jax.block_until_ready(both(logits))

    def outputs() -> dict[str, np.ndarray]:
        y, g = run()
        return {"y": np.asarray(y), "x.grad": np.asarray(g)}

    return Work("run()", {"run": run}, outputs)
