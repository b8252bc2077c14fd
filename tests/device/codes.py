"""Derivative codes and masks kept by ops on a device: the same words and gradients as on the CPU."""

from __future__ import annotations

import common
import numpy as np
import pytest

import pullback as pb

SIZES = (1, 31, 32, 33, 1000, 5003)


def gradient(device, dtype, f, n):
    x = pb.asarray(3 * np.sin(1.7 * np.arange(n))).astype(dtype).to(device)
    x.requires_grad = True
    y = f(x)
    assert y.device == x.device
    y.backward(pb.asarray(np.cos(0.9 * np.arange(n))).astype(dtype).to(device))
    return y.detach(), x.grad


@pytest.mark.parametrize("dtype", [pb.float32, pb.bfloat16, pb.float16])
@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_every_width(bits, dtype):
    for n in SIZES:
        got, want = (gradient(d, dtype, lambda x: pb.gelu(x, saved=bits), n) for d in (common.DEVICE, "cpu"))
        for a, b in zip(got, want, strict=True):
            common.same(a, b)


@pytest.mark.parametrize("name", ["silu", "tanh", "sigmoid", "mish", "softplus", "elu"])
def test_codes_of_activations(name):
    f = getattr(pb, name)
    got, want = (gradient(d, pb.float32, lambda x: f(x, saved=3), 1000) for d in (common.DEVICE, "cpu"))
    for a, b in zip(got, want, strict=True):
        common.same(a, b)


def test_codes_of_views_keep_their_order():
    def f(x):
        return pb.gelu(pb.reshape(x, (40, 25)).mT[::2], saved=2).reshape(-1)

    def run(device):
        x = pb.asarray(3 * np.sin(np.arange(1000.0))).astype(pb.float32).to(device)
        x.requires_grad = True
        y = f(x)
        y.backward(pb.ones_like(y))
        return x.grad

    common.same(run(common.DEVICE), run("cpu"))


def test_bytes_kept_are_those_of_the_cpu():
    def kept(device):
        x = pb.zeros((4096,), device=device)
        x.requires_grad = True
        return pb.memory.saved_bytes(pb.gelu(x * 2.0, saved=3).sum())

    assert kept(common.DEVICE) == kept("cpu")


@pytest.mark.parametrize("f", [lambda x: pb.clip(x, -1, 1), lambda x: pb.relu(x * 1.5) * 2.0, abs, pb.hardswish])
def test_masks(f):
    got, want = (gradient(d, pb.float32, f, 5003) for d in (common.DEVICE, "cpu"))
    for a, b in zip(got, want, strict=True):
        common.same(a, b)


def test_inverted_outputs():
    got, want = (
        gradient(d, pb.float32, lambda x: pb.gelu(x * 1.0, saved="output"), 2000) for d in (common.DEVICE, "cpu")
    )
    common.same(got[0], want[0])
    common.close(got[1], want[1], 1e-6)


def test_pack_and_unpack():
    codes = pb.asarray(np.arange(1000) * 7 % 8).astype(pb.uint8)
    words = pb.fewbit.pack(codes.to(common.DEVICE), 3)
    assert words.device != "cpu"
    common.same(words, pb.fewbit.pack(codes, 3))
    common.same(pb.fewbit.unpack(words, 3, 1000), codes)


def test_what_has_no_kernel_says_so():
    x = pb.ones((4, 64), device=common.DEVICE)
    x.requires_grad = True
    layer = pb.nn.Linear(64, 8).to(common.DEVICE)
    with pytest.raises(pb.DeviceError, match="no CUDA kernel for this call"), pb.saving(inputs=8):
        layer(x * 2.0)
    code = pb.fewbit.Code(3, scheme="unbiased")
    with pytest.raises(pb.DeviceError, match="no CUDA kernel for this call"):
        pb.gelu(x, saved=code)


def test_dropout_of_attention_draws_as_on_the_cpu():
    def run(device):
        pb.manual_seed(3)
        pb.random.uniform((5,))  # the draws that follow begin at an offset
        q = pb.asarray(np.sin(np.arange(2 * 4 * 8 * 16.0)).reshape(2, 4, 8, 16)).astype(pb.float32).to(device)
        q.requires_grad = True
        y = pb.scaled_dot_product_attention(q, q, q, dropout=0.25)
        y.sum().backward()
        return y.detach(), q.grad

    for a, b in zip(run(common.DEVICE), run("cpu"), strict=True):
        common.close(a, b, 2e-6)
