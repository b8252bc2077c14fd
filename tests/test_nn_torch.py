"""Layers against PyTorch: the same state dict and input give the same outputs and gradients, in float64."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

import pullback as pb  # noqa: E402
from pullback import nn  # noqa: E402

torch.set_num_threads(1)
TOL = 1e-10


def close(ours, theirs, what):
    a = np.asarray(ours.detach().numpy(), dtype=np.float64)
    b = theirs.detach().numpy()
    assert a.shape == b.shape, what
    if a.size:
        error = np.max(np.abs(a - b) / (1 + np.abs(b)))
        assert error <= TOL, f"{what}: {error}"


def leaves(tree):
    if isinstance(tree, (tuple, list)):
        return [leaf for item in tree for leaf in leaves(item)]
    return [] if tree is None else [tree]


def data(rng, *shape):
    return rng.standard_normal(shape)


def randomise(theirs, rng):
    """Values that no symmetry hides, also for weights that start at 1 and biases that start at 0."""
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.from_numpy(rng.standard_normal(tuple(p.shape)) * 0.4 + 0.2))
        for b in theirs.buffers():
            if b.dtype.is_floating_point:
                b.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tuple(b.shape))))


def compare(ours, theirs, *arrays, train=True, grads=True, ours_kw=None, kw=None, seed=0):
    """Same names, same outputs, same gradients of inputs and parameters, same buffers afterwards."""
    rng = np.random.default_rng(seed)
    theirs = theirs.double().train(train)
    randomise(theirs, rng)
    ours.to(pb.float64).train(train)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    xs = [pb.tensor(a, requires_grad=a.dtype == np.float64) for a in arrays]
    ts = [torch.tensor(a, requires_grad=a.dtype == np.float64) for a in arrays]
    outs = leaves(ours(*xs, **(kw or {} if ours_kw is None else ours_kw)))
    refs = leaves(theirs(*ts, **(kw or {})))
    assert len(outs) == len(refs)
    for i, (y, t) in enumerate(zip(outs, refs, strict=True)):
        close(y, t, f"output {i}")
    if grads:
        cotangents = [rng.standard_normal(tuple(t.shape)) for t in refs]
        loss = sum((y * pb.asarray(c)).sum() for y, c in zip(outs, cotangents, strict=True))
        loss.backward()
        sum((t * torch.from_numpy(c)).sum() for t, c in zip(refs, cotangents, strict=True)).backward()
        for i, (x, t) in enumerate(zip(xs, ts, strict=True)):
            if t.grad is not None:
                close(x.grad, t.grad, f"gradient of input {i}")
        for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), name
            if q.grad is not None:
                close(p.grad, q.grad, f"gradient of {name}")
    for name, value in ours.state_dict().items():
        close(value, theirs.state_dict()[name], f"{name} afterwards")
    return ours, theirs


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3)])
def test_linear(rng, bias, shape):
    compare(nn.Linear(3, 5, bias=bias), torch.nn.Linear(3, 5, bias=bias), data(rng, *shape))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_bilinear(rng, shape):
    compare(nn.Bilinear(3, 4, 5), torch.nn.Bilinear(3, 4, 5), data(rng, *shape, 3), data(rng, *shape, 4))


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"padding_idx": 2},
        {"padding_idx": -1},
        {"scale_grad_by_freq": True},
        {"max_norm": 1.0},
        {"max_norm": 0.7, "norm_type": 1.0},
    ],
    ids=str,
)
def test_embedding(rng, kw):
    indices = np.array([[0, 2, 2, 5], [6, 2, 0, 1]])
    compare(nn.Embedding(7, 3, **kw), torch.nn.Embedding(7, 3, **kw), indices)


class Formula(torch.nn.Module):
    """For the two activations whose PyTorch kernels round a constant to float32 in float64."""

    def __init__(self, f):
        super().__init__()
        self.forward = f


def reference(name, *args, **kw):
    if name == "Hardsigmoid":
        return Formula(lambda x: (x + 3).clamp(0, 6) / 6)
    if name == "CELU":
        alpha = args[0] if args else 1.0
        return Formula(lambda x: torch.where(x > 0, x, alpha * torch.expm1(x / alpha)))
    return getattr(torch.nn, name)(*args, **kw)


@pytest.mark.parametrize(
    "name",
    [
        "ReLU",
        "LeakyReLU",
        "ELU",
        "CELU",
        "SELU",
        "GELU",
        "SiLU",
        "Mish",
        "Softplus",
        "Softsign",
        "Tanh",
        "Tanhshrink",
        "Sigmoid",
        "LogSigmoid",
        "Hardswish",
        "Hardsigmoid",
        "Hardtanh",
        "ReLU6",
    ],
)
def test_activation(rng, name):
    compare(getattr(nn, name)(), reference(name), 3 * data(rng, 5, 7))


@pytest.mark.parametrize(
    "name, args, kw",
    [
        ("LeakyReLU", (0.3,), {}),
        ("LeakyReLU", (0.3, True), {}),
        ("LeakyReLU", (), {"negative_slope": 0.2, "inplace": False}),
        ("ELU", (0.7,), {}),
        ("CELU", (0.7,), {}),
        ("GELU", (), {"approximate": "tanh"}),
        ("GELU", ("tanh",), {}),
        ("Softplus", (2.0,), {}),
        ("Softplus", (2.0, 1.0), {}),
        ("Hardtanh", (-0.5, 2.0), {}),
        ("ReLU", (), {"inplace": True}),
        ("PReLU", (), {}),
        ("PReLU", (7,), {"init": 0.1}),
        ("Softmax", (1,), {}),
        ("Softmax", (), {"dim": 0}),
        ("LogSoftmax", (-1,), {}),
    ],
)
def test_activation_arguments(rng, name, args, kw):
    their_kw = {k: v for k, v in kw.items() if k != "inplace"}
    their_args = args[:1] if name == "LeakyReLU" else args
    compare(getattr(nn, name)(*args, **kw), reference(name, *their_args, **their_kw), 2 * data(rng, 5, 7))


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"stride": 2},
        {"padding": 2, "dilation": 2},
        {"groups": 2, "bias": False},
        {"padding": "same"},
        {"padding": "same", "dilation": 3},
        {"padding": "valid"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 2, "padding_mode": "replicate"},
        {"padding": 2, "padding_mode": "circular"},
        {"padding": "same", "padding_mode": "reflect"},
    ],
    ids=str,
)
@pytest.mark.parametrize("k", [3, 4])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv1d(rng, kw, k):
    compare(nn.Conv1d(4, 6, k, **kw), torch.nn.Conv1d(4, 6, k, **kw), data(rng, 2, 4, 13))


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"stride": (2, 1), "padding": (1, 2)},
        {"dilation": (2, 1), "groups": 2},
        {"padding": "same", "bias": False},
        {"padding": (1, 2), "padding_mode": "reflect"},
        {"padding": (1, 2), "padding_mode": "replicate"},
        {"padding": (1, 2), "padding_mode": "circular"},
    ],
    ids=str,
)
@pytest.mark.parametrize("k", [1, (3, 2)])
def test_conv2d(rng, kw, k):
    compare(nn.Conv2d(4, 6, k, **kw), torch.nn.Conv2d(4, 6, k, **kw), data(rng, 2, 4, 7, 8))


def test_conv_without_batch(rng):
    compare(nn.Conv1d(4, 6, 3), torch.nn.Conv1d(4, 6, 3), data(rng, 4, 9))
    compare(nn.Conv2d(4, 6, 3), torch.nn.Conv2d(4, 6, 3), data(rng, 4, 9, 8))
    compare(nn.ConvTranspose2d(4, 6, 3), torch.nn.ConvTranspose2d(4, 6, 3), data(rng, 4, 5, 6))


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (3, 2), "output_padding": (2, 1)},
        {"groups": 2, "bias": False, "dilation": 2},
    ],
    ids=str,
)
def test_conv_transpose2d(rng, kw):
    compare(nn.ConvTranspose2d(4, 6, 3, **kw), torch.nn.ConvTranspose2d(4, 6, 3, **kw), data(rng, 2, 4, 5, 6))


def test_conv_transpose2d_output_size(rng):
    ours, theirs = (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1),
        torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1),
    )
    compare(ours, theirs, data(rng, 2, 4, 5, 6), kw={"output_size": (10, 11)})


@pytest.mark.parametrize("args", [(2,), (3, 1, 1), ((2, 3), (1, 2))])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (3, 7, 8)])
@pytest.mark.parametrize("name", ["MaxPool2d", "AvgPool2d"])
def test_pool(rng, name, args, shape):
    compare(getattr(nn, name)(*args), getattr(torch.nn, name)(*args), data(rng, *shape))


@pytest.mark.parametrize("size", [1, (2, 3), (None, 5), 4])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (3, 7, 8)])
def test_adaptive_pool(rng, size, shape):
    compare(nn.AdaptiveAvgPool2d(size), torch.nn.AdaptiveAvgPool2d(size), data(rng, *shape))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "kw",
    [{}, {"eps": 1e-2, "momentum": 0.3}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}],
    ids=str,
)
@pytest.mark.parametrize(
    "name, shape", [("BatchNorm1d", (5, 3)), ("BatchNorm1d", (5, 3, 4)), ("BatchNorm2d", (2, 3, 4, 5))]
)
def test_batch_norm(rng, name, shape, kw, train):
    compare(getattr(nn, name)(3, **kw), getattr(torch.nn, name)(3, **kw), data(rng, *shape), train=train)


def test_batch_norm_average_of_batches(rng):
    ours, theirs = nn.BatchNorm1d(3, momentum=None).to(pb.float64), torch.nn.BatchNorm1d(3, momentum=None).double()
    for _ in range(4):
        x = data(rng, 6, 3)
        ours(pb.tensor(x)), theirs(torch.tensor(x))
    for name, value in ours.state_dict().items():
        close(value, theirs.state_dict()[name], name)
    assert ours.num_batches_tracked.item() == 4


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "kw", [{}, {"affine": True}, {"affine": True, "track_running_stats": True, "momentum": 0.2}], ids=str
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5)])
def test_instance_norm(rng, kw, train, shape):
    compare(nn.InstanceNorm2d(3, **kw), torch.nn.InstanceNorm2d(3, **kw), data(rng, *shape), train=train)


@pytest.mark.parametrize("kw", [{}, {"eps": 1e-2}, {"elementwise_affine": False}, {"bias": False}], ids=str)
@pytest.mark.parametrize("shape", [6, (4, 6)])
def test_layer_norm(rng, kw, shape):
    compare(nn.LayerNorm(shape, **kw), torch.nn.LayerNorm(shape, **kw), data(rng, 3, 4, 6))


@pytest.mark.parametrize("kw", [{}, {"eps": 1e-2}, {"elementwise_affine": False}], ids=str)
@pytest.mark.parametrize("shape", [6, (4, 6)])
def test_rms_norm(rng, kw, shape):
    compare(nn.RMSNorm(shape, **kw), torch.nn.RMSNorm(shape, **kw), data(rng, 3, 4, 6))


@pytest.mark.parametrize("kw", [{}, {"affine": False, "eps": 1e-2}], ids=str)
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 3, 4)])
def test_group_norm(rng, kw, shape):
    if shape == (2, 6):
        shape = (5, 6)
    compare(nn.GroupNorm(3, 6, **kw), torch.nn.GroupNorm(3, 6, **kw), data(rng, *shape))


@pytest.mark.parametrize("args", [(), (0,), (1, 2), (-2, -1)])
def test_flatten(rng, args):
    compare(nn.Flatten(*args), torch.nn.Flatten(*args), data(rng, 2, 3, 4, 5))


RNN_CASES = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3},
]


@pytest.mark.parametrize("kw", RNN_CASES, ids=str)
@pytest.mark.parametrize(
    "name, extra",
    [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2})],
)
def test_recurrent(rng, name, extra, kw):
    kw = kw | extra
    compare(getattr(nn, name)(3, 4, **kw), getattr(torch.nn, name)(3, 4, **kw), data(rng, 5, 2, 3))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_recurrent_start_state(rng, name, single):
    ours, theirs = getattr(nn, name)(3, 4, 2).to(pb.float64), getattr(torch.nn, name)(3, 4, 2).double()
    ours.load_state_dict(theirs.state_dict())
    x = data(rng, 5, 3) if single else data(rng, 5, 2, 3)
    start = [data(rng, 2, 4) if single else data(rng, 2, 2, 4) for _ in range(2 if name == "LSTM" else 1)]
    mine = [pb.tensor(s, requires_grad=True) for s in start]
    other = [torch.tensor(s, requires_grad=True) for s in start]
    outs = leaves(ours(pb.tensor(x), tuple(mine) if name == "LSTM" else mine[0]))
    refs = leaves(theirs(torch.tensor(x), tuple(other) if name == "LSTM" else other[0]))
    for i, (a, b) in enumerate(zip(outs, refs, strict=True)):
        close(a, b, f"output {i}")
    sum((a * a).sum() for a in outs).backward()
    sum((b * b).sum() for b in refs).backward()
    for i, (a, b) in enumerate(zip(mine, other, strict=True)):
        close(a.grad, b.grad, f"gradient of start {i}")


MHA_CASES = [
    {},
    {"batch_first": True, "bias": False},
    {"kdim": 5, "vdim": 7},
    {"add_bias_kv": True},
    {"add_zero_attn": True, "batch_first": True},
]


@pytest.mark.parametrize("call", [{}, {"need_weights": False}, {"average_attn_weights": False}], ids=str)
@pytest.mark.parametrize("kw", MHA_CASES, ids=str)
def test_attention(rng, kw, call):
    ours, theirs = nn.MultiheadAttention(8, 2, **kw), torch.nn.MultiheadAttention(8, 2, **kw)
    kd, vd = kw.get("kdim", 8), kw.get("vdim", 8)
    q, k, v = data(rng, 3, 3, 8), data(rng, 4, 3, kd), data(rng, 4, 3, vd)
    if kw.get("batch_first"):
        k, v = k.transpose(1, 0, 2).copy(), v.transpose(1, 0, 2).copy()
    compare(ours, theirs, q, k, v, kw=call)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["bool", "float", "per head", "padding", "both", "mixed"])
@pytest.mark.parametrize("kw", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str)
def test_attention_masks(rng, kind, need_weights, kw):
    ours, theirs = (
        nn.MultiheadAttention(8, 2, batch_first=True, **kw),
        torch.nn.MultiheadAttention(8, 2, batch_first=True, **kw),
    )
    n, length, source = 3, 4, 5
    blocked = rng.random((length, source)) < 0.4
    blocked[:, 0] = False
    padding = np.zeros((n, source), dtype=bool)
    padding[1, 3:] = padding[2, 2] = True
    masks = {
        "bool": {"attn_mask": blocked},
        "float": {"attn_mask": data(rng, length, source)},
        "per head": {"attn_mask": data(rng, n * 2, length, source)},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": blocked, "key_padding_mask": padding},
        "mixed": {"attn_mask": data(rng, length, source), "key_padding_mask": padding},
    }[kind]
    their_masks = dict(masks)
    if kind == "mixed":  # PyTorch wants masks of one dtype
        their_masks["key_padding_mask"] = np.where(padding, -np.inf, 0.0)
    compare(
        ours,
        theirs,
        data(rng, n, length, 8),
        data(rng, n, source, 8),
        data(rng, n, source, 8),
        ours_kw={k: pb.tensor(m) for k, m in masks.items()} | {"need_weights": need_weights},
        kw={k: torch.tensor(m) for k, m in their_masks.items()} | {"need_weights": need_weights},
    )


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 8), (5, 8)])
def test_self_attention_causal(rng, need_weights, shape):
    ours = nn.MultiheadAttention(8, 4, batch_first=True).to(pb.float64)
    theirs = torch.nn.MultiheadAttention(8, 4, batch_first=True).double()
    ours.load_state_dict(theirs.state_dict())
    x = data(rng, *shape)
    mine, other = pb.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    y = ours(mine, mine, mine, need_weights=need_weights, is_causal=True)[0]
    t = theirs(other, other, other, attn_mask=mask, need_weights=need_weights)[0]
    close(y, t, "output")
    (y * y).sum().backward()
    (t * t).sum().backward()
    close(mine.grad, other.grad, "gradient of the input")
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(p.grad, q.grad, f"gradient of {name}")


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_block(rng, causal):
    ours = nn.TransformerBlock(8, 2, 16, causal=causal)
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    compare(ours, theirs, data(rng, 3, 5, 8), kw={"src_mask": mask} if causal else {}, ours_kw={})


def test_state_dict_goes_both_ways():
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten(),
                                 torch.nn.Linear(8, 3))  # fmt: skip
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    ours.load_state_dict(dict(theirs.named_parameters()) | dict(theirs.named_buffers()))  # tensors that require grad
    theirs.load_state_dict({k: torch.from_numpy(v.numpy().copy()) for k, v in ours.state_dict().items()})
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]


def test_half_precision_state():
    theirs = torch.nn.Linear(3, 2).to(torch.bfloat16)
    ours = nn.Linear(3, 2)
    ours.load_state_dict(theirs.state_dict())
    assert ours.weight.dtype == pb.float32
    close(ours.weight, theirs.weight.float(), "weight")


LAYERS = [
    ("Linear", (64, 48), {}),
    ("Bilinear", (10, 12, 9), {}),
    ("Embedding", (60, 30), {}),
    ("Conv1d", (8, 16, 5), {"groups": 2}),
    ("Conv2d", (8, 16, 3), {}),
    ("ConvTranspose2d", (8, 16, 3), {"groups": 2}),
    ("RNN", (20, 30), {}),
    ("GRU", (20, 30), {}),
    ("LSTM", (20, 30), {"proj_size": 7}),
    ("MultiheadAttention", (32, 4), {"add_bias_kv": True}),
    ("MultiheadAttention", (32, 4), {"kdim": 20, "vdim": 24}),
    ("BatchNorm2d", (5,), {}),
    ("LayerNorm", (5,), {}),
    ("PReLU", (5,), {}),
]


@pytest.mark.parametrize("name, args, kw", LAYERS)
def test_initial_values_have_the_same_distribution(name, args, kw):
    """Scale and shape (fourth moment) of every weight over many draws agree with PyTorch's to a few standard errors."""
    pb.manual_seed(3)
    torch.manual_seed(3)
    mine: dict[str, list] = {}
    other: dict[str, list] = {}
    for _ in range(30):
        for values, layer in ((mine, getattr(nn, name)(*args, **kw)), (other, getattr(torch.nn, name)(*args, **kw))):
            for key, p in layer.named_parameters():
                values.setdefault(key, []).append(p.detach().numpy().ravel())
    assert list(mine) == list(other)
    for key in mine:
        a, b = (np.concatenate(v[key]).astype(np.float64) for v in (mine, other))
        if np.ptp(b) == 0:
            assert np.array_equal(a, b), key
            continue
        for power in (1, 2, 4):
            u, v = a**power, b**power
            error = 5 * np.sqrt(u.var() / u.size + v.var() / v.size)
            assert abs(u.mean() - v.mean()) <= error, (key, power)
