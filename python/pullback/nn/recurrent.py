"""Recurrent layers. One product per layer covers the inputs of all times; the loop over time does the rest."""

from __future__ import annotations

import math
from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn import init
from pullback.nn.module import Module, Parameter

__all__ = ["GRU", "LSTM", "RNN"]


class _Recurrent(Module):
    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool, dropout: float,
        bidirectional: bool, proj_size: int, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        kind = type(self).__name__
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError(f"{kind}: hidden_size {hidden_size} and num_layers {num_layers}\nhelp: both are positive")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{kind}: dropout must be in [0, 1], got {dropout}\nhelp: it is a probability")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"{kind}: proj_size {proj_size} must be below hidden_size {hidden_size}\nhelp: 0 is none")
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout = batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        state, rows = proj_size or hidden_size, self.gates * hidden_size
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            width = input_size if layer == 0 else state * directions
            for end in self._ends(layer):
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, state)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes |= {"weight_hr": (proj_size, hidden_size)}
                for name, shape in shapes.items():
                    empty = pb.empty(shape, dtype=dtype or pb.float32, device=device)
                    setattr(self, name + end, Parameter(empty))
        self.reset_parameters()

    def _ends(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    def reset_parameters(self) -> None:
        """Draws every weight and bias anew, uniform within 1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform(p, -bound, bound)

    def _step(self, x: C.Tensor, state: tuple[C.Tensor, ...], end: str) -> tuple[C.Tensor, ...]:
        """The state after one time; x is the input's share of the gates, (N, gates * hidden)."""
        raise NotImplementedError

    def _shapes(self, n: int) -> list[tuple[int, int, int]]:
        """Shapes of the parts of the state, over layers and directions."""
        return [(self.num_layers * (2 if self.bidirectional else 1), n, self.proj_size or self.hidden_size)]

    def _start(self, x: C.Tensor, given: Any, n: int, single: bool) -> list[C.Tensor]:
        shapes = self._shapes(n)
        if given is None:
            return [pb.zeros(shape, dtype=x.dtype, device=x.device) for shape in shapes]
        parts = list(given) if isinstance(given, (tuple, list)) else [given]
        parts = [pb.expand_dims(p, 1) for p in parts] if single else parts
        if [tuple(p.shape) for p in parts] != shapes:
            raise pb.ShapeError(
                f"{type(self).__name__}: start state of shape {', '.join(str(tuple(p.shape)) for p in parts)}, "
                f"needs {', '.join(map(str, shapes))}\nhelp: (layers * directions, batch, size)"
            )
        return parts

    def _run(self, x: Any, given: Any) -> tuple[C.Tensor, tuple[C.Tensor, ...]]:
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise pb.ShapeError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}\n"
                f"help: it is (L, N, {self.input_size}), (N, L, {self.input_size}) with batch_first, "
                f"or (L, {self.input_size})"
            )
        single = x.ndim == 2
        if single:
            x = pb.expand_dims(x, 1)
        elif self.batch_first:
            x = pb.permute_dims(x, (1, 0, 2))
        if x.shape[0] == 0:
            raise pb.ShapeError(f"{type(self).__name__}: a sequence of length 0\nhelp: give at least one time step")
        start = [pb.unstack(part, axis=0) for part in self._start(x, given, x.shape[1], single)]
        last: list[tuple[C.Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = pb.dropout(x, self.dropout)
            outs = []
            for end in self._ends(layer):
                state = tuple(part[len(last)] for part in start)
                ys, state = self._scan(x, state, end)
                outs.append(ys)
                last.append(state)
            x = outs[0] if len(outs) == 1 else pb.concat(outs, axis=-1)
        final = tuple(pb.stack(list(part)) for part in zip(*last, strict=True))
        if single:
            return pb.squeeze(x, 1), tuple(pb.squeeze(part, 1) for part in final)
        return (pb.permute_dims(x, (1, 0, 2)) if self.batch_first else x), final

    def _scan(self, x: C.Tensor, state: tuple[C.Tensor, ...], end: str) -> tuple[C.Tensor, tuple[C.Tensor, ...]]:
        inputs = pb.linear(x, getattr(self, "weight_ih" + end), getattr(self, "bias_ih" + end, None))
        shares = pb.unstack(inputs, axis=0)
        backwards = end.endswith("_reverse")
        outs = []
        for share in reversed(shares) if backwards else shares:
            state = self._step(share, state, end)
            outs.append(state[0])
        return pb.stack(outs[::-1] if backwards else outs), state

    def _hidden(self, h: C.Tensor, end: str) -> C.Tensor:
        return pb.linear(h, getattr(self, "weight_hh" + end), getattr(self, "bias_hh" + end, None))

    def _gates(self, x: C.Tensor) -> Any:
        return pb.unstack(pb.reshape(x, (x.shape[0], self.gates, self.hidden_size)), axis=1)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0),
                              ("bidirectional", False), ("proj_size", 0)):  # fmt: skip
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(_Recurrent):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), layer upon layer.

    Args:
        input_size, hidden_size: widths of the input and of the state.
        num_layers: layers, each fed with the one below [1].
        nonlinearity: "tanh" or "relu".
        bias: whether there are biases [True].
        batch_first: inputs and outputs are (N, L, *) instead of (L, N, *) [False].
        dropout: probability between layers, in training [0.0].
        bidirectional: a second set of weights reads backwards; outputs are joined [False].

    Called as rnn(x, h0=None); returns (outputs, last state (layers * directions, N, hidden_size)).

    Example:
        >>> out, h = pb.nn.RNN(3, 4)(pb.zeros((5, 2, 3)))
        >>> out.shape, h.shape
        ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: unknown nonlinearity {nonlinearity!r}\nhelp: 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def forward(self, x: Any, h0: Any = None) -> tuple[C.Tensor, C.Tensor]:
        out, (h,) = self._run(x, h0)
        return out, h

    def _step(self, x: C.Tensor, state: tuple[C.Tensor, ...], end: str) -> tuple[C.Tensor, ...]:
        z = x + self._hidden(state[0], end)
        return (pb.tanh(z) if self.nonlinearity == "tanh" else pb.relu(z),)


class GRU(_Recurrent):
    """Gated recurrent unit: gates r, z and candidate n, in this order in the weights. Arguments are those of `RNN`.

    n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h = (1 - z) n + z h.

    Example:
        >>> out, h = pb.nn.GRU(3, 4)(pb.zeros((5, 2, 3)))
        >>> out.shape, h.shape
        ((5, 2, 4), (1, 2, 4))
    """

    gates = 3

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def forward(self, x: Any, h0: Any = None) -> tuple[C.Tensor, C.Tensor]:
        out, (h,) = self._run(x, h0)
        return out, h

    def _step(self, x: C.Tensor, state: tuple[C.Tensor, ...], end: str) -> tuple[C.Tensor, ...]:
        (h,) = state
        xr, xz, xn = self._gates(x)
        hr, hz, hn = self._gates(self._hidden(h, end))
        r, z = pb.sigmoid(xr + hr), pb.sigmoid(xz + hz)
        n = pb.tanh(xn + r * hn)
        return (n + z * (h - n),)


class LSTM(_Recurrent):
    """Long short-term memory: gates i, f, g, o, in this order in the weights. Arguments are those of `RNN`.

    c = f c + i g, h = o tanh(c); `proj_size` > 0 multiplies h by `weight_hr` (proj_size, hidden_size).
    Called as lstm(x, (h0, c0)); returns (outputs, (h, c)).

    Example:
        >>> out, (h, c) = pb.nn.LSTM(3, 4)(pb.zeros((5, 2, 3)))
        >>> out.shape, h.shape, c.shape
        ((5, 2, 4), (1, 2, 4), (1, 2, 4))
    """

    gates = 4

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
                         device, dtype)  # fmt: skip

    def forward(self, x: Any, state: Any = None) -> tuple[C.Tensor, tuple[C.Tensor, C.Tensor]]:
        out, (h, c) = self._run(x, state)
        return out, (h, c)

    def _shapes(self, n: int) -> list[tuple[int, int, int]]:
        (first,) = super()._shapes(n)
        return [first, (first[0], n, self.hidden_size)]

    def _step(self, x: C.Tensor, state: tuple[C.Tensor, ...], end: str) -> tuple[C.Tensor, ...]:
        h, c = state
        i, f, g, o = self._gates(x + self._hidden(h, end))
        c = pb.sigmoid(f) * c + pb.sigmoid(i) * pb.tanh(g)
        h = pb.sigmoid(o) * pb.tanh(c)
        return (pb.linear(h, getattr(self, "weight_hr" + end)) if self.proj_size else h), c
