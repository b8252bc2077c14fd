"""Layers without PyTorch: closed forms, modes, gradcheck, argument errors."""

import math

import pytest

import pullback as pb
from pullback import nn


def test_linear_closed_form():
    m = nn.Linear(2, 2)
    m.load_state_dict({"weight": [[1.0, 2.0], [3.0, 4.0]], "bias": [0.5, -0.5]})
    assert m(pb.tensor([[1.0, 1.0], [0.0, 2.0]])).tolist() == [[3.5, 6.5], [4.5, 7.5]]
    assert nn.Linear(3, 2, dtype=pb.float64).weight.dtype == pb.float64
    assert nn.Linear(0, 2)(pb.zeros((3, 0))).shape == (3, 2)


def test_dropout_modes():
    m = nn.Dropout(0.5)
    x = pb.ones(1000)
    assert set(m(x).tolist()) == {0.0, 2.0}
    assert m.eval()(x) is x
    m.train()
    m._rng = pb.random.Generator(3)
    first = m(x).tolist()
    m._rng = pb.random.Generator(3)
    assert m(x).tolist() == first
    assert nn.Dropout(1.0)(x).sum().item() == 0.0
    assert nn.Dropout(0.0)(x) is x


def test_dropout_between_recurrent_layers():
    m = nn.GRU(2, 3, num_layers=2, dropout=0.5)
    x = pb.ones((4, 1, 2))
    assert m(x)[0].tolist() != m(x)[0].tolist()
    m.eval()
    assert m(x)[0].tolist() == m(x)[0].tolist()
    block = nn.TransformerBlock(4, 2, dropout=0.5)
    y = pb.ones((1, 3, 4)) + pb.reshape(pb.arange(12), (1, 3, 4))
    assert block(y).tolist() != block(y).tolist()
    assert block.eval()(y).tolist() == block(y).tolist()


def test_causal_block_sees_no_future():
    block = nn.TransformerBlock(8, 2, causal=True)
    x = pb.random.normal((1, 6, 8))
    y = pb.concat([x[:, :4], x[:, 4:] * -3.0 + 1.0], axis=1)
    a, b = block(x), block(y)
    assert pb.max(pb.abs(a[:, :4] - b[:, :4])).item() <= 1e-6
    assert pb.max(pb.abs(a[:, 4:] - b[:, 4:])).item() > 1e-2


def test_sine_and_softmax():
    x = pb.tensor([0.0, 0.1, -0.2], dtype=pb.float64)
    assert nn.Sine(30.0)(x).tolist() == pytest.approx([math.sin(30 * v) for v in x.tolist()], abs=1e-14)
    assert nn.Sine()(x).tolist() == pytest.approx([math.sin(v) for v in x.tolist()], abs=1e-15)
    assert nn.Softmax()(pb.tensor([0.0, math.log(3.0)])).tolist() == pytest.approx([0.25, 0.75], abs=1e-7)


def test_activation_keeps_its_choice():
    m = nn.ReLU(saved="input")
    assert m.saved == "input" and m(pb.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
    assert repr(m) == "ReLU(saved='input')"
    assert repr(nn.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"


def test_embedding_padding():
    m = nn.Embedding(4, 3, padding_idx=1)
    assert m.weight[1].tolist() == [0.0, 0.0, 0.0]
    m(pb.tensor([0, 1, 1, 2])).sum().backward()
    assert [row[0] for row in m.weight.grad.tolist()] == [1.0, 0.0, 1.0, 0.0]


def test_unstack():
    x = pb.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], dtype=pb.float64, requires_grad=True)
    parts = pb.unstack(x, axis=2)
    assert isinstance(parts, tuple) and [p.tolist() for p in parts] == [[[1.0, 4.0]], [[2.0, 5.0]], [[3.0, 6.0]]]
    assert pb.unstack(pb.permute_dims(x, (2, 1, 0)))[1].tolist() == [[2.0], [5.0]]
    (parts[0] * parts[2]).sum().backward()  # the middle part gets no cotangent
    assert x.grad.tolist() == [[[3.0, 0.0, 1.0], [6.0, 0.0, 4.0]]]
    assert pb.unstack(pb.zeros((0, 2))) == () and len(pb.unstack(pb.zeros((2, 0)))) == 2
    assert pb.unstack(pb.tensor([1, 2]))[1].item() == 2
    with pytest.raises(pb.ShapeError, match="axis"):
        pb.unstack(x, axis=3)

    def f(v):
        a, b, c = pb.unstack(v, axis=-1)
        return a * b * b, pb.sin(c)

    assert pb.testing.gradcheck(f, pb.tensor([[0.3, 1.2, -0.4], [1.0, 0.2, 0.7]], dtype=pb.float64), order=2)


SMALL = [
    (lambda: nn.Linear(3, 2), (2, 3)),
    (lambda: nn.Conv2d(1, 2, 2), (1, 1, 3, 3)),
    (lambda: nn.BatchNorm1d(2), (3, 2)),
    (lambda: nn.LayerNorm(3), (2, 3)),
    (lambda: nn.RMSNorm(3), (2, 3)),
    (lambda: nn.GroupNorm(1, 2), (2, 2, 2)),
    (lambda: nn.RNN(2, 2), (3, 1, 2)),
    (lambda: nn.GRU(2, 2), (3, 1, 2)),
    (lambda: nn.LSTM(2, 2), (3, 1, 2)),
    (lambda: nn.TransformerBlock(4, 2, 4, causal=True), (1, 3, 4)),
    (lambda: nn.Sequential(nn.Linear(3, 2), nn.PReLU(), nn.Softmax(-1)), (2, 3)),
]


@pytest.mark.parametrize("make, shape", SMALL, ids=[type(m()).__name__ for m, _ in SMALL])
def test_layers_pass_gradcheck(make, shape):
    """By the input and every parameter, in both modes."""
    m = make().to(pb.float64)
    names = [n for n, _ in m.named_parameters()]
    x = pb.random.normal(shape, dtype=pb.float64)

    def f(x, *params):
        return pb.functional_call(m, dict(zip(names, params, strict=True)), x)

    assert pb.testing.gradcheck(f, [x, *(p.detach() for p in m.parameters())], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_second_order(kind):
    m = kind(2, 2).to(pb.float64)
    x = pb.random.normal((2, 1, 2), dtype=pb.float64)
    assert pb.testing.gradcheck(lambda v: m(v)[0], x, order=2)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: nn.Bilinear(0, 1, 1), ValueError, "in1_features must be positive"),
        (lambda: nn.Bilinear(2, 3, 1)(pb.zeros((4, 2)), pb.zeros((5, 3))), pb.ShapeError, "all axes but the last"),
        (lambda: nn.Linear(2, 3)(pb.zeros((4, 5))), pb.ShapeError, "linear"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, "outside a table of 3 rows"),
        (lambda: nn.Embedding(3, 2, sparse=True), ValueError, "gradients are dense"),
        (lambda: nn.Embedding(3, 2)(pb.tensor([3])), IndexError, "3"),
        (lambda: nn.Dropout(1.5), ValueError, "p must be in"),
        (lambda: nn.Flatten(2, 1)(pb.zeros((2, 3, 4))), pb.ShapeError, "axes 2 to 1"),
        (lambda: nn.Flatten(1)(pb.zeros(2)), pb.ShapeError, "axes 1 to -1"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "do not split into 2 groups"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, "needs an int or 2 ints"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, "unknown padding 'full'"),
        (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), ValueError, "needs stride 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ValueError, "unknown padding_mode"),
        (lambda: nn.Conv2d(3, 4, 3)(pb.zeros((3, 8))), pb.ShapeError, "it has 4 axes"),
        (lambda: nn.Conv2d(3, 4, 3)(pb.zeros((1, 2, 8, 8))), pb.ShapeError, "conv2d"),
        (lambda: nn.Conv1d(3, 4, 3)(pb.zeros((1, 3, 8, 8))), pb.ShapeError, "it has 3 axes"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), ValueError, "pad the input first"),
        (lambda: nn.ConvTranspose2d(1, 1, 3, stride=2)(pb.zeros((1, 1, 4, 4)), (20, 20)), pb.ShapeError, "output_size"),
        (lambda: nn.MaxPool2d(2, dilation=2), ValueError, "dilation="),
        (lambda: nn.MaxPool2d(2, return_indices=True), ValueError, "return_indices=True is not supported"),
        (lambda: nn.AvgPool2d(2, ceil_mode=True), ValueError, "ceil_mode=True is not supported"),
        (lambda: nn.MaxPool2d(2)(pb.zeros((3, 3))), pb.ShapeError, "it is .N, C, H, W."),
        (lambda: nn.BatchNorm1d(3)(pb.zeros((2, 4))), pb.ShapeError, "3 channels"),
        (lambda: nn.BatchNorm2d(3)(pb.zeros((2, 3))), pb.ShapeError, "has 4 axes"),
        (lambda: nn.InstanceNorm2d(3)(pb.zeros((2, 4, 5, 5))), pb.ShapeError, "3 channels"),
        (lambda: nn.LayerNorm(()), ValueError, "normalized_shape is empty"),
        (lambda: nn.LayerNorm((3, 4))(pb.zeros((2, 4, 3))), pb.ShapeError, r"normalized_shape \(3, 4\)"),
        (lambda: nn.RMSNorm((3, 4))(pb.zeros(4)), pb.ShapeError, r"normalized_shape \(3, 4\)"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "do not split into 3 groups"),
        (lambda: nn.GroupNorm(2, 4)(pb.zeros((2, 3))), pb.ShapeError, "axis 1 is the channel"),
        (lambda: nn.RNN(2, 0), ValueError, "both are positive"),
        (lambda: nn.RNN(2, 3, nonlinearity="gelu"), ValueError, "unknown nonlinearity"),
        (lambda: nn.GRU(2, 3, dropout=2.0), ValueError, "dropout must be in"),
        (lambda: nn.LSTM(2, 3, proj_size=3), ValueError, "must be below hidden_size"),
        (lambda: nn.GRU(2, 3)(pb.zeros((4, 1, 3))), pb.ShapeError, "input of shape"),
        (lambda: nn.GRU(2, 3)(pb.zeros((0, 1, 2))), pb.ShapeError, "a sequence of length 0"),
        (lambda: nn.GRU(2, 3)(pb.zeros((4, 1, 2)), pb.zeros((2, 1, 3))), pb.ShapeError, "start state of shape"),
        (lambda: nn.LSTM(2, 3)(pb.zeros((4, 1, 2)), pb.zeros((1, 1, 3))), pb.ShapeError, "start state of shape"),
        (lambda: nn.MultiheadAttention(5, 2), ValueError, "does not split into 2 heads"),
        (lambda: nn.MultiheadAttention(4, 2)(*[pb.zeros(4)] * 3), pb.ShapeError, "all have 3 axes"),
        (
            lambda: nn.MultiheadAttention(4, 2)(pb.zeros((3, 2, 4)), *[pb.zeros((3, 1, 4))] * 2),
            pb.ShapeError,
            "one batch size",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[pb.zeros((3, 2, 4))] * 3, attn_mask=pb.zeros((3, 2))),
            pb.ShapeError,
            "attn_mask",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[pb.zeros((3, 2, 4))] * 3, key_padding_mask=pb.zeros((3, 2))),
            pb.ShapeError,
            "key_padding_mask",
        ),
        (lambda: nn.GELU("erf"), ValueError, "approximate must be"),
        (lambda: pb.gelu(pb.zeros(2), approximate="fast"), ValueError, "approximate"),
        (lambda: nn.ReLU(0.1), TypeError, "takes 0 arguments"),
        (lambda: nn.ELU(beta=1.0), TypeError, "unexpected argument 'beta'"),
        (lambda: nn.ELU(1.0, alpha=1.0), TypeError, "unexpected argument 'alpha'"),
        (lambda: nn.PReLU(3)(pb.zeros((2, 4))), pb.ShapeError, "one channel per weight"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as info:
        call()
    assert "help: " in str(info.value)
