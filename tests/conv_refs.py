"""Convolution and pooling in plain NumPy, float64: one loop over the cells of the kernel, or over every window."""

import numpy as np


def pair(v):
    return (v, v) if isinstance(v, int) else tuple(v)


def taps(x_shape, w_shape, stride, padding, dilation):
    """Output size and, for each kernel cell, the window of the padded input that it reads."""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    kh, kw = w_shape[2:]
    oh = (x_shape[2] + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (x_shape[3] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    windows = {}
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + sh * (oh - 1) + 1, sh)
            cols = slice(j * dw, j * dw + sw * (ow - 1) + 1, sw)
            windows[i, j] = (slice(None), slice(None), rows, cols)
    return oh, ow, windows


def grow(x, padding):
    ph, pw = pair(padding)
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))


def shrink(x, padding):
    ph, pw = pair(padding)
    return x[:, :, ph : x.shape[2] - ph, pw : x.shape[3] - pw]


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    oh, ow, windows = taps(x.shape, w.shape, stride, padding, dilation)
    n, o, c = x.shape[0], w.shape[0] // groups, w.shape[1]
    xp = grow(x, padding)
    y = np.zeros((n, groups, o, oh, ow))
    for (i, j), at in windows.items():
        part = xp[at].reshape(n, groups, c, oh, ow)
        y += np.einsum("ngcyx,goc->ngoyx", part, w[:, :, i, j].reshape(groups, o, c))
    y = y.reshape(n, groups * o, oh, ow)
    return y if b is None else y + np.asarray(b, np.float64)[:, None, None]


def conv2d_grads(x, w, g, stride=1, padding=0, dilation=1, groups=1):
    """Gradients of sum(g * conv2d(x, w, b)) in x, w and b."""
    x, w, g = (np.asarray(a, np.float64) for a in (x, w, g))
    oh, ow, windows = taps(x.shape, w.shape, stride, padding, dilation)
    n, o, c = x.shape[0], w.shape[0] // groups, w.shape[1]
    xp = grow(x, padding)
    dx, dw = np.zeros_like(xp), np.zeros_like(w)
    gg = g.reshape(n, groups, o, oh, ow)
    for (i, j), at in windows.items():
        part = xp[at].reshape(n, groups, c, oh, ow)
        dw[:, :, i, j] = np.einsum("ngcyx,ngoyx->goc", part, gg).reshape(groups * o, c)
        back = np.einsum("ngoyx,goc->ngcyx", gg, w[:, :, i, j].reshape(groups, o, c))
        dx[at] += back.reshape(n, groups * c, oh, ow)
    return shrink(dx, padding), dw, g.sum((0, 2, 3))


def windows_of(x, size, stride, padding, fill):
    """Every window as the last two axes: (..., oh, ow, kh, kw)."""
    (kh, kw), (sh, sw), (ph, pw) = pair(size), pair(stride), pair(padding)
    xp = np.pad(np.asarray(x, np.float64), ((0, 0),) * (x.ndim - 2) + ((ph, ph), (pw, pw)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(xp, (kh, kw), axis=(-2, -1))[..., ::sh, ::sw, :, :]


def max_pool2d(x, size, stride=None, padding=0):
    return windows_of(x, size, size if stride is None else stride, padding, -np.inf).max((-2, -1))


def avg_pool2d(x, size, stride=None, padding=0):
    return windows_of(x, size, size if stride is None else stride, padding, 0.0).mean((-2, -1))


def max_pool2d_grad(x, g, size, stride=None, padding=0):
    """The gradient goes to the first maximum of each window, row by row."""
    (kh, kw), (sh, sw), (ph, pw) = pair(size), pair(size if stride is None else stride), pair(padding)
    win = windows_of(x, size, (sh, sw), padding, -np.inf)
    cell = win.reshape(*win.shape[:-2], kh * kw).argmax(-1)
    dx = np.zeros((*x.shape[:-2], x.shape[-2] + 2 * ph, x.shape[-1] + 2 * pw))
    for at in np.ndindex(*cell.shape):
        i, j = at[-2] * sh + cell[at] // kw, at[-1] * sw + cell[at] % kw
        dx[(*at[:-2], i, j)] += g[at]
    return dx[..., ph : ph + x.shape[-2], pw : pw + x.shape[-1]]


def adaptive_avg_pool2d(x, size):
    oh, ow = pair(size)
    h, w = x.shape[-2:]
    y = np.zeros((*x.shape[:-2], oh, ow))
    for i in range(oh):
        for j in range(ow):
            rows = slice(i * h // oh, -(-(i + 1) * h // oh))
            cols = slice(j * w // ow, -(-(j + 1) * w // ow))
            y[..., i, j] = np.asarray(x, np.float64)[..., rows, cols].mean((-2, -1))
    return y
