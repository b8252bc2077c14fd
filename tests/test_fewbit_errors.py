"""What the solver of few-bit tables, its tables and the shipped ones refuse."""

import math

import pytest

import pullback as pb
from pullback import _core
from pullback.fewbit import Table, solve, table
from pullback.fewbit.tables import derivative_of

G = derivative_of("gelu")
BAD = [
    ({"bits": 0}, ValueError, r"fewbit.solve: bits must be 1 to 8, got 0\nhelp"),
    ({"bits": 9}, ValueError, "bits must be 1 to 8, got 9"),
    ({"bits": -(2**70)}, ValueError, "bits must be 1 to 8"),
    ({"bits": 2.5}, TypeError, "integer"),
    ({"domain": (1, 1)}, ValueError, "the domain is empty or not finite"),
    ({"domain": (3, -3)}, ValueError, "the domain is empty"),
    ({"domain": (0, math.inf)}, ValueError, "the domain is empty or not finite"),
    ({"domain": (math.nan, 1)}, ValueError, "the domain is empty or not finite"),
    ({"domain": 4}, ValueError, r"domain is 4\nhelp: domain="),
    ({"breakpoints": (1, -1)}, ValueError, r"breakpoints must ascend\nhelp"),
    ({"breakpoints": (1, 1)}, ValueError, "breakpoints must ascend"),
    ({"breakpoints": (-11,)}, ValueError, "breakpoint -11.0* lies outside the domain"),
    ({"breakpoints": (math.nan,)}, ValueError, "breakpoint nan lies outside the domain"),
    ({"scheme": "best"}, ValueError, r"no scheme is called 'best'\nhelp: interval"),
    ({"scheme": "folded"}, ValueError, "'folded' needs an even derivative"),
    ({"weight": "laplace"}, ValueError, "no weight is called 'laplace'"),
    ({"weight": 3}, TypeError, "weight is a int"),
    ({"weight": lambda x: x * 0}, ValueError, "the weight is zero everywhere in the domain"),
    ({"weight": lambda x: -pb.exp(-x * x)}, ValueError, r"the weight is -.* at x = .*\nhelp"),
    ({"weight": lambda x: x * math.nan}, ValueError, r"the weight is -?nan at x = "),
    ({"weight": lambda x: x.nothing}, TypeError, "weight cannot be evaluated"),
    ({"weight": ([1, 2], [0, 1])}, ValueError, "one edge more than counts, got 2 and 2"),
    ({"weight": ([], [0])}, ValueError, "one edge more than counts"),
    ({"weight": ([1, 2], [0, 1, 1])}, ValueError, "edges of the histogram must be finite and ascend"),
    ({"weight": ([1, -2], [0, 1, 2])}, ValueError, "counts of the histogram must be finite and not negative"),
    ({"weight": ([0, 0], [0, 1, 2])}, ValueError, "the histogram is empty"),
    ({"weight": (1, 2, 3)}, ValueError, "the histogram is not two lists of numbers"),
    ({"derivative": lambda x: pb.sqrt(x)}, ValueError, r"the derivative is -?nan at x = -.*\nhelp: it must be finite"),
    ({"derivative": lambda x: 1 / pb.maximum(x, 0)}, ValueError, "the derivative is inf at x = -"),
    ({"derivative": lambda x: x * 1e200}, ValueError, "no finite integral"),
    ({"derivative": lambda x: x.nothing}, TypeError, "derivative cannot be evaluated"),
    ({"derivative": None}, TypeError, "derivative is a NoneType"),
    ({"derivative": lambda x: pb.where(x > 20, math.nan, 1.0), "scheme": "minimax"}, ValueError, "'minimax' needs"),
    ({"derivative": lambda x: pb.where(x < -20, math.inf, 1.0), "scheme": "unbiased"}, ValueError, "'unbiased' needs"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD)
def test_errors_of_solve(arguments, kind, message):
    call = {"derivative": G, "bits": 3, **arguments}
    with pytest.raises(kind, match=message):
        solve(call.pop("derivative"), call.pop("bits"), **call)


def test_a_function_that_changes_its_mind():
    with pytest.raises(
        pb.ShapeError, match=r"it returned shape \(3,\) for \d+ points\nhelp: return one number per point"
    ):
        solve(lambda x: x[:3], 2)


def test_what_the_core_refuses():
    """The core takes functions of float64 tensors only; `solve` sees to it."""
    call = {"weight": "normal", "bits": 2, "scheme": "value", "lo": -1, "hi": 1, "breakpoints": []}
    call |= {"heights": [], "edges": []}
    with pytest.raises(pb.ShapeError, match=r"a function must return as many float64 numbers as it gets"):
        _core.fewbit_solve(derivative=lambda x: x.astype(pb.float32), **call)
    with pytest.raises(pb.DTypeError, match="takes tensors, got float"):
        _core.fewbit_solve(derivative=lambda x: 1.0, **call)


def test_errors_of_table():
    with pytest.raises(ValueError, match=r"no activation is called 'gulu'\nhelp: relu"):
        table("gulu", 3)
    with pytest.raises(TypeError, match=r"gelu takes no argument 'alpha'\nhelp"):
        table("gelu", 3, alpha=1.0)
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'erf'"):
        table("gelu", 3, approximate="erf")
    with pytest.raises(ValueError, match="the constants of elu must be finite"):
        table("elu", 3, alpha=math.nan)
    with pytest.raises(ValueError, match="no weight is called 'none'"):
        table("relu", 1, weight="none")
    with pytest.raises(ValueError, match="no weight is called 'none'"):
        table("gelu", 1, weight="none")
    with pytest.raises(ValueError, match="bits must be 1 to 8, got 12"):
        table("gelu", 12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": (0,)}, "1 boundaries, 1 codes, 2 levels"),
        ({"levels": (0.0,)}, "1 levels"),
        ({"second": (0.0,)}, "1 second levels at 1 bits"),
        ({"codes": (0, 2)}, "a code lies outside 0 .. 1"),
        ({"boundaries": (math.nan,)}, "boundaries must be finite and ascend"),
        ({"boundaries": (1.0, 0.0), "codes": (0, 1, 0)}, "boundaries must be finite and ascend"),
    ],
)
def test_errors_of_a_table(fields, message):
    base = {"boundaries": (0.0,), "codes": (0, 1), "levels": (0.0, 1.0), "error": 0.0, "max_error": 0.0}
    with pytest.raises(ValueError, match=message):
        Table(1, "value", **{**base, **fields})


def test_an_unbiased_table_has_no_value():
    with pytest.raises(ValueError, match=r"an unbiased code is random\nhelp"):
        table("gelu", 2, scheme="unbiased")(pb.zeros(2))
