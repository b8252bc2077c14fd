"""Fits the start polynomials of csrc/ops/inverses.h: x from the output of an activation with a minimum.

    python tools/inverse_fits.py

Right of the minimum x is a polynomial in u = sqrt(y - y_min), left of it in w = sqrt(log(y_min / y)). Both are
analytic at the minimum. Near it one polynomial stands as it is; another starts two Newton steps in the kernel.
"""

from __future__ import annotations

import math

import numpy as np

NORMAL = 0.3989422804014327
#: Up to here the polynomial stands; from here on it only starts Newton steps.
NEAR = 0.35


def gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    return x * cdf, cdf + x * NORMAL * np.exp(-0.5 * x * x)


def gelu_tanh(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    c = 1.595769121605730711759
    s = 1 / (1 + np.exp(-c * (x + 0.044715 * x**3)))
    return x * s, s + x * s * (1 - s) * c * (1 + 3 * 0.044715 * x * x)


def silu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s = 1 / (1 + np.exp(-x))
    return x * s, s * (1 + x * (1 - s))


def mish(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(np.minimum(x, 30))
    n = e * (e + 2)
    t = n / (n + 2)
    return x * t, t + x * 4 * e * (e + 1) / (n + 2) ** 2


def minimum(f, lo: float, hi: float) -> float:
    """The zero of the derivative, by bisection."""
    for _ in range(200):
        mid = 0.5 * (lo + hi)
        if f(np.array([mid]))[1][0] < 0:
            lo = mid
        else:
            hi = mid
    return 0.5 * (lo + hi)


def fit(t: np.ndarray, x: np.ndarray, x0: float, degree: int, power: float) -> np.ndarray:
    """Coefficients of x - x0 = c1 t + c2 t^2 + ...; errors near t = 0 weigh most."""
    weight = (0.01 + t) ** -power
    a = np.stack([t**k for k in range(1, degree + 1)], axis=1)
    scale = np.abs(a).max(axis=0)
    c, *_ = np.linalg.lstsq(a / scale * weight[:, None], (x - x0) * weight, rcond=None)
    return np.concatenate([[x0], c / scale])


def main() -> None:
    for f, left_end, right_end in ((gelu, -12.5, 5.0), (gelu_tanh, -9.5, 5.0), (silu, -80.0, 12.0), (mish, -80.0, 8.0)):
        x0 = minimum(f, -3.0, -0.3)
        y0 = f(np.array([x0]))[0][0]
        d = np.concatenate([np.geomspace(1e-5, 1, 3000), np.linspace(0, 1, 6000)[1:]])
        xr, xl = x0 + (right_end - x0) * d, x0 + (left_end - x0) * d
        u = np.sqrt(f(xr)[0] - y0)
        yl = f(xl)[0]
        q = np.minimum((yl - y0) / -y0, 1 - 1e-15)
        w = np.sqrt(np.where(q < 0.5, -np.log1p(-q), np.log(y0 / yl)))
        ok_r, ok_l = u > 1e-4, w > 1e-4
        high = float(np.float32(y0))
        print(
            f.__name__,
            f"x_min {x0:.17g}  y_min {y0:.17g} = {high!r} + {y0 - high:.9g}  u_max {u.max():.4g}  w_max {w.max():.4g}",
        )
        for name, t, x in (("right", u[ok_r], xr[ok_r]), ("left", w[ok_l], xl[ok_l])):
            for part, end, power in (("near", NEAR, 0.5), ("far", np.inf, 0.0)):
                here = t <= end
                c = fit(t[here], x[here], x0, 9, power)
                e = np.abs(np.polynomial.polynomial.polyval(t[here], c) - x[here])
                print(f"  {name} {part}: " + ", ".join(f"{v:.12g}" for v in c))
                print(f"    error {e.max():.1e}")


if __name__ == "__main__":
    main()
