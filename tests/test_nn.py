"""The module tree: names, state dicts, copies, hooks, functional_call, transforms, containers."""

import collections
import copy
import math
import pickle

import pytest

import pullback as pb
from pullback import nn


class Net(nn.Module):
    """Everything the tree knows: containers, shared objects, buffers, private names."""

    def __init__(self):
        self.first = nn.Linear(2, 3)
        self.layers = [nn.Linear(3, 3), {"deep": nn.Linear(3, 3)}, (nn.ReLU(),)]
        self.scale = nn.Parameter(pb.tensor([1.0, 2.0]))
        self.table = {"a": nn.Parameter(pb.tensor(3.0)), 1: pb.tensor([4.0])}
        self.count = pb.tensor(0)
        self._hidden = nn.Linear(9, 9)
        self._cache = pb.zeros(2)
        self.size = 7
        self.names = ["x", "y"]
        self.last = self.layers[0]
        self.tied = self.scale

    def forward(self, x):
        x = self.layers[0](self.first(x))
        return self.last(self.layers[1]["deep"](x)) * self.tied[0] + self.table["a"]


NAMES = [
    "scale",
    "table.a",
    "tied",
    "table.1",
    "count",
    "first.weight",
    "first.bias",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.deep.weight",
    "layers.1.deep.bias",
    "last.weight",
    "last.bias",
]


def test_tree_names():
    net = Net()
    assert list(net.state_dict()) == NAMES
    unique = [n for n in NAMES if not n.startswith("last") and n != "tied"]
    assert [n for n, _ in net.named_parameters()] == [n for n in unique if n not in ("table.1", "count")]
    assert [n for n, _ in net.named_buffers()] == ["table.1", "count"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "layers.0", "layers.1.deep", "layers.2.0"]
    assert [n for n, _ in net.named_children()] == ["first", "layers.0", "layers.1.deep", "layers.2.0"]
    assert len(list(net.parameters())) == 8 and len(list(net.buffers())) == 2
    assert len(list(net.modules())) == 5 and len(list(net.children())) == 4
    assert next(n for n, _ in net.named_parameters("net")) == "net.scale"
    assert net.state_dict()["tied"]._address == net.state_dict()["scale"]._address


def test_parameter():
    data = pb.tensor([1.0, 2.0])
    p = nn.Parameter(data)
    assert isinstance(p, pb.Tensor) and p.requires_grad and p.is_leaf
    data[0] = 5.0
    assert p.tolist() == [5.0, 2.0]
    frozen = nn.Parameter(pb.tensor([1, 2]), requires_grad=False)
    assert not frozen.requires_grad and frozen.dtype == pb.int64
    assert nn.Parameter([1.0, 2.0]).dtype == pb.float32
    assert not isinstance(p * 2, nn.Parameter)
    with pytest.raises(pb.DTypeError, match="only floating tensors"):
        nn.Parameter(pb.tensor([1, 2]))
    (p * p).sum().backward()
    assert p.grad.tolist() == [10.0, 4.0]


def test_no_super_init_and_class_attribute():
    class Bare(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(pb.ones(2))

        def forward(self, x):
            return x * self.w

    m = Bare()
    assert "training" not in vars(m) and m.training is True and nn.Module.training is True
    assert m.eval() is m and m.training is False and nn.Module.training is True
    assert m.train() is m and m.training is True
    assert m(pb.tensor([3.0, 4.0])).tolist() == [3.0, 4.0]


def test_train_reaches_the_tree():
    net = Net().eval()
    assert all(not m.training for m in net.modules())
    assert net._hidden.training
    net.train()
    assert all(m.training for m in net.modules())


def test_forward_is_needed():
    with pytest.raises(NotImplementedError, match="has no forward"):
        nn.Module()(1)


def test_cycles():
    a, b = nn.Module(), nn.Module()
    a.child, b.parent = b, a
    with pytest.raises(ValueError, match=r"'child.parent' contains itself"):
        list(a.parameters())
    b._parent = b.parent
    del b.parent
    assert len(list(a.modules())) == 2
    loop = []
    loop += [loop, nn.Linear(1, 1)]
    a.loop = loop
    assert [n for n, _ in a.named_parameters()] == ["loop.1.weight", "loop.1.bias"]


def test_names_that_meet():
    m = nn.Module()
    m.d = {1: pb.zeros(1), "1": pb.ones(1)}
    with pytest.raises(ValueError, match=r"two tensors have the name 'd.1'"):
        m.state_dict()


def test_apply_and_requires_grad():
    net = Net()
    seen = []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "Linear", "Linear", "ReLU", "Net"]
    assert net.requires_grad_(False) is net
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(pb.ones((1, 2))).sum().backward()
    assert net.first.weight.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_to():
    net = nn.BatchNorm1d(2)
    weight = net.weight
    net(pb.tensor([[1.0, 2.0], [3.0, 5.0]])).sum().backward()
    assert net.to(pb.float64) is net
    assert net.weight is weight and weight.dtype == pb.float64 and weight.grad.dtype == pb.float64
    assert weight.is_leaf and weight.requires_grad
    assert net.running_mean.dtype == pb.float64 and net.num_batches_tracked.dtype == pb.int64
    before = weight._address
    net.to("cpu").to(pb.float64)
    assert weight._address == before
    shared = Net().to(pb.bfloat16)
    assert shared.scale is shared.tied and shared.tied.dtype == pb.bfloat16
    with pytest.raises(pb.DTypeError, match="not a floating dtype"):
        net.to(pb.int32)
    with pytest.raises(pb.DeviceError, match="not available"):
        net.to("cuda:7")


def test_repr():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.LayerNorm(4)))
    assert repr(model).splitlines() == [
        "Sequential(  # 24 parameters",
        "  (0): Linear(in_features=3, out_features=4, bias=True)  # 16 parameters",
        "  (1): Sequential(  # 8 parameters",
        "    (0): ReLU()",
        "    (1): LayerNorm((4,), eps=1e-05, elementwise_affine=True)  # 8 parameters",
        "  )",
        ")",
    ]
    assert repr(nn.PReLU()) == "PReLU(num_parameters=1)  # 1 parameter"
    assert repr(nn.Linear(1000, 1000, bias=False)).endswith("# 1,000,000 parameters")
    assert "(layers.1.deep): Linear" in repr(Net())
    for name in nn.__all__:
        kind = getattr(nn, name)
        assert not isinstance(kind, type) or kind.__doc__, name


# ---- state dicts


def test_state_dict_round_trip():
    a, b = Net(), Net()
    assert a.first.weight.tolist() != b.first.weight.tolist()
    result = b.load_state_dict(a.state_dict())
    assert result.missing_keys == [] and result.unexpected_keys == []
    for name, value in a.state_dict().items():
        assert b.state_dict()[name].tolist() == value.tolist() and not value.requires_grad
    assert b.scale is b.tied


def test_load_copies_and_casts():
    m = nn.Linear(2, 1)
    weight, source = m.weight, pb.tensor([[1.0, 2.0]], dtype=pb.float64)
    m.load_state_dict({"weight": source, "bias": [0.5]})
    source[0, 0] = 9.0
    assert m.weight is weight and weight.tolist() == [[1.0, 2.0]] and weight.dtype == pb.float32
    assert m.bias.tolist() == [0.5] and m.bias.requires_grad


def test_load_of_numpy_arrays():
    np = pytest.importorskip("numpy")
    m = nn.Linear(2, 1)
    m.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3], dtype=np.int64)})
    assert m(pb.tensor([1.0, 1.0])).tolist() == [6.0]


def test_load_errors_name_everything_and_write_nothing():
    m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {k: v.tolist() for k, v in m.state_dict().items()}
    bad = {"0.weight": pb.zeros((3, 2)), "0.bias": pb.zeros(4), "1.weight": pb.zeros((1, 5)), "2.weight": pb.zeros(1)}
    with pytest.raises(pb.CheckpointError) as info:
        m.load_state_dict(bad)
    text = str(info.value)
    for part in (
        "Sequential",
        "0.bias is (3,) here and (4,) there",
        "1.weight is (1, 3) here and (1, 5) there",
        "missing: 1.bias",
        "unexpected: 2.weight",
        "help: ",
    ):
        assert part in text
    with pytest.raises(pb.CheckpointError, match="shapes differ"):
        m.load_state_dict(bad, strict=False)
    assert {k: v.tolist() for k, v in m.state_dict().items()} == before
    result = m.load_state_dict({"0.bias": pb.ones(3), "other": pb.ones(3)}, strict=False)
    assert result == (["0.weight", "1.weight", "1.bias"], ["other"])
    assert m[0].bias.tolist() == [1.0, 1.0, 1.0]


def test_load_needs_one_name_of_a_shared_tensor():
    m = Net()
    state = {k: v for k, v in m.state_dict().items() if not k.startswith("last") and k != "scale"}
    state["tied"] = pb.tensor([8.0, 9.0])
    assert m.load_state_dict(state) == ([], [])
    assert m.scale.tolist() == [8.0, 9.0]


def test_load_makes_saved_tensors_stale():
    m = nn.Linear(2, 1)
    loss = (m(pb.ones((1, 2), dtype=pb.float32) * m.weight)).sum()
    m.load_state_dict({"weight": pb.ones((1, 2)), "bias": pb.ones(1)})
    with pytest.raises(pb.GraphError):
        loss.backward()


# ---- copies


def test_deepcopy():
    net = Net()
    other = copy.deepcopy(net)
    assert other.last is other.layers[0] and other.tied is other.scale
    assert isinstance(other.scale, nn.Parameter) and other.scale is not net.scale
    x = pb.tensor([[1.0, -2.0]])
    assert other(x).tolist() == net(x).tolist()
    with pb.no_grad():
        other.first.weight[0, 0] = 50.0
    assert other(x).tolist() != net(x).tolist()


@pytest.mark.parametrize("name", sorted(n for n in nn.__all__ if isinstance(getattr(nn, n), type)))
def test_every_class_pickles(name):
    """By its own name, with the same state."""
    args = {
        "Parameter": (pb.ones(2),),
        "Linear": (2, 3),
        "Bilinear": (2, 3, 4),
        "Embedding": (4, 2),
        "Conv1d": (2, 2, 3),
        "Conv2d": (2, 2, 3),
        "ConvTranspose2d": (2, 2, 3),
        "MaxPool2d": (2,),
        "AvgPool2d": (2,),
        "LayerNorm": (3,),
        "AdaptiveAvgPool2d": (1,),
        "BatchNorm1d": (2,),
        "BatchNorm2d": (2,),
        "InstanceNorm2d": (2,),
        "RMSNorm": (3,),
        "GroupNorm": (1, 2),
        "RNN": (2, 3),
        "GRU": (2, 3),
        "LSTM": (2, 3),
        "MultiheadAttention": (4, 2),
        "TransformerBlock": (4, 2),
        "Sequential": (nn.Linear(1, 1),),
        "ModuleList": ([nn.Linear(1, 1)],),
        "ModuleDict": ({"a": nn.Linear(1, 1)},),
        "ReducePrecision": (4,),
        "GaussianNoise": (0.3, 4),
        "RectifierBlend": (0.5, 1.0, 0.1),
    }.get(name, ())
    kind = getattr(nn, name)
    obj = kind(*args)
    for other in (pickle.loads(pickle.dumps(obj)), copy.deepcopy(obj)):
        assert type(other) is kind
        if isinstance(obj, nn.Module):
            assert repr(other) == repr(obj)
            mine, copied = obj.state_dict(), other.state_dict()
            assert list(mine) == list(copied)
            assert all(mine[k].tobytes() == copied[k].tobytes() for k in mine)
        else:
            assert other.tobytes() == obj.tobytes() and other.requires_grad == obj.requires_grad


# ---- hooks


def test_hooks():
    m = nn.Linear(1, 1, bias=False)
    m.load_state_dict({"weight": [[2.0]]})
    calls = []
    a = m.register_forward_pre_hook(lambda module, args: calls.append(("pre", module, args[0].item())))
    b = m.register_forward_hook(lambda module, args, out: calls.append(("post", args[0].item(), out.item())))
    assert m(pb.tensor([3.0])).tolist() == [6.0]
    assert calls == [("pre", m, 3.0), ("post", 3.0, 6.0)]
    c = m.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    d = m.register_forward_pre_hook(lambda module, args: args[0] + 1)
    e = m.register_forward_hook(lambda module, args, out: out * 10)
    assert m(pb.tensor([3.0])).tolist() == [100.0]
    for handle in (a, b, c, d, e):
        handle.remove()
        handle.remove()
    calls.clear()
    assert m(pb.tensor([3.0])).tolist() == [6.0] and calls == []
    assert nn.Linear(1, 1)._forward_hooks is None


# ---- functional_call


def test_functional_call():
    net = Net()
    before = {k: v.tolist() for k, v in net.state_dict().items()}
    objects = [net.scale, net.table["a"], net.layers, net.table, net.layers[0].weight]
    new = {k: v * 0 + 2 for k, v in net.state_dict().items() if k not in ("last.weight", "last.bias", "tied")}
    x = pb.tensor([[1.0, 1.0]])
    out = pb.functional_call(net, new, x)
    # 2 + 2 + 2 = 6; then three layers h -> 6 h + 2; times 2, plus 2
    assert out.tolist() == [[(6 * (6 * (6 * 6 + 2) + 2) + 2) * 2 + 2.0] * 3]
    assert {k: v.tolist() for k, v in net.state_dict().items()} == before
    after = [net.scale, net.table["a"], net.layers, net.table, net.layers[0].weight]
    assert all(a is b for a, b in zip(objects, after, strict=True))
    assert net.tied is net.scale


def test_functional_call_restores_after_an_error():
    class Fails(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(pb.ones(1))
            self.pair = (nn.Parameter(pb.zeros(1)), [nn.Parameter(pb.zeros(1))])

        def forward(self):
            assert self.w.item() == 5.0 and self.pair[1][0].item() == 6.0
            assert [n for n, _ in self.named_parameters()] == ["w", "pair.0", "pair.1.0"]
            raise RuntimeError("inside")

    m = Fails()
    w, pair = m.w, m.pair
    with pytest.raises(RuntimeError, match="inside"):
        pb.functional_call(m, {"w": pb.tensor([5.0]), "pair.1.0": pb.tensor([6.0])})
    assert m.w is w and m.pair is pair and pair[1][0].item() == 0.0


def test_functional_call_writes_no_statistics():
    m = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    before = {k: v.tolist() for k, v in m.state_dict().items()}
    mean = pb.tensor([7.0, 7.0])
    x = pb.tensor([[1.0, 2.0], [3.0, 5.0]])
    pb.functional_call(m, {"1.bias": pb.ones(1)}, x)
    pb.functional_call(m, {"0.running_mean": mean}, x)
    assert {k: v.tolist() for k, v in m.state_dict().items()} == before
    assert mean.tolist() == [7.0, 7.0]
    m(x)
    assert m[0].running_mean.tolist() != [0.0, 0.0]
    m.eval()
    shifted = pb.functional_call(m[0], {"running_mean": mean, "running_var": pb.ones(2)}, x)
    assert pb.max(pb.abs(shifted - (x - 7) / math.sqrt(1 + 1e-5))).item() <= 1e-5


def test_functional_call_is_differentiable():
    m = nn.Linear(2, 1)
    params = {"weight": pb.tensor([[1.0, 2.0]], requires_grad=True), "bias": pb.tensor([0.0], requires_grad=True)}
    pb.functional_call(m, params, pb.tensor([[3.0, 4.0]])).sum().backward()
    assert params["weight"].grad.tolist() == [[3.0, 4.0]] and params["bias"].grad.tolist() == [1.0]
    assert m.weight.grad is None


def test_functional_call_shared():
    m = Net()
    one, two = pb.tensor([1.0, 1.0]), pb.tensor([2.0, 2.0])
    pb.functional_call(m, {"scale": one, "tied": one}, pb.ones((1, 2)))
    with pytest.raises(ValueError, match="shares its tensor with another name"):
        pb.functional_call(m, {"scale": one, "tied": two}, pb.ones((1, 2)))
    a = pb.functional_call(m, {"tied": two}, pb.ones((1, 2)))
    b = pb.functional_call(m, {"scale": two}, pb.ones((1, 2)))
    assert a.tolist() == b.tolist()


def test_functional_call_errors():
    m = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"Linear has no wait, bios"):
        pb.functional_call(m, {"wait": pb.ones(1), "bios": pb.ones(1)}, pb.ones(2))
    with pytest.raises(pb.ShapeError, match=r"weight is \(1, 2\), the replacement is \(2, 1\)"):
        pb.functional_call(m, {"weight": pb.ones((2, 1))}, pb.ones(2))


def test_transforms_of_modules():
    """grad, value_and_grad, jvp and hvp take a module; the gradient fits functional_call; nesting keeps parameters."""
    m = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).to(pb.float64)
    x = pb.tensor([[0.3, -0.2], [1.0, 0.5]], dtype=pb.float64)

    def loss(model, x):
        return (model(x) * model(x)).sum()

    value, g = pb.value_and_grad(loss)(m, x)
    assert list(g) == [n for n, _ in m.named_parameters()]
    loss(m, x).backward()
    for name, p in m.named_parameters():
        assert pb.max(pb.abs(p.grad - g[name])).item() <= 1e-14
    stepped = {n: p.detach() - 0.01 * g[n] for n, p in m.named_parameters()}
    lower = pb.functional_call(m, stepped, x)
    assert (lower * lower).sum().item() < value.item()
    v = {n: pb.ones_like(p.detach()) for n, p in m.named_parameters()}
    (product,) = pb.hvp(lambda model: loss(model, x), (m,), (v,))
    eps = 1e-5
    ends = []
    for sign in (1, -1):
        moved = {n: p.detach() + sign * eps * v[n] for n, p in m.named_parameters()}
        with nn.replaced(m, moved):
            ends.append(pb.grad(loss)(m, x))
    for name in g:
        difference = (ends[0][name] - ends[1][name]) / (2 * eps)
        assert pb.max(pb.abs(product[name] - difference)).item() <= 1e-7


# ---- containers


def test_sequential():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    m = nn.Sequential(a, b, c)
    x = pb.ones((4, 2))
    assert m(x).tolist() == c(b(a(x))).tolist()
    assert len(m) == 3 and m[-1] is c and list(m) == [a, b, c]
    assert isinstance(m[:2], nn.Sequential) and list(m[:2]) == [a, b]
    assert m.append(nn.ReLU()) is m and len(m) == 4
    del m[3]
    m[1] = nn.Tanh()
    assert repr(m[1]) == "Tanh()"
    named = nn.Sequential(collections.OrderedDict(first=a, act=b, last=c))
    assert list(named.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert named.act is b and named(x).tolist() == c(b(a(x))).tolist()
    assert [n for n, _ in named[1:].named_children()] == ["act", "last"]
    named.append(nn.ReLU())
    assert [n for n, _ in named.named_children()] == ["first", "act", "last", "3"]
    del named[0]
    assert [n for n, _ in named.named_children()] == ["act", "last", "2"]
    with pytest.raises(AttributeError, match="no attribute 'first'"):
        named.first  # noqa: B018
    assert nn.Sequential()(x) is x
    with pytest.raises(TypeError, match="items are modules, got function"):
        nn.Sequential(lambda x: x)


def test_module_list_and_dict():
    items = nn.ModuleList([nn.Linear(1, 1)])
    items.append(nn.ReLU()).extend([nn.Tanh(), nn.Linear(1, 1)])
    items.insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in items] == ["Linear", "Sigmoid", "ReLU", "Tanh", "Linear"]
    assert list(items.state_dict()) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert isinstance(items[1:3], nn.ModuleList) and len(items[1:3]) == 2
    with pytest.raises(TypeError, match="ModuleList: items are modules"):
        items.append(3)
    d = nn.ModuleDict({"a": nn.Linear(1, 1), "train": nn.ReLU()})
    d["b"] = nn.Linear(1, 1)
    d.update({"c": nn.Tanh()})
    assert list(d) == list(d.keys()) == ["a", "train", "b", "c"] and len(d) == 4 and "a" in d
    assert [k for k, _ in d.items()] == list(d) and len(list(d.values())) == 4
    assert list(d.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    removed = d.pop("a")
    del d["b"]
    assert isinstance(removed, nn.Linear) and list(d) == ["train", "c"]
    with pytest.raises(TypeError, match="keys are strings"):
        d[3] = nn.ReLU()
