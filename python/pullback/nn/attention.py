"""Multi-head attention and the transformer block."""

from __future__ import annotations

import math
from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn import init
from pullback.nn.activation import GELU
from pullback.nn.linear import Dropout, Linear
from pullback.nn.module import Module, Parameter
from pullback.nn.norm import LayerNorm

__all__ = ["MultiheadAttention", "TransformerBlock"]


class MultiheadAttention(Module):
    """Attention of several heads with learned projections.

    Inputs are (L, N, E), (N, L, E) with `batch_first`, or (L, E) without a batch.

    Args:
        embed_dim: width E of queries and outputs.
        num_heads: heads; it divides embed_dim.
        dropout: probability of dropping an attention weight in training [0.0].
        bias: whether the projections have biases [True].
        add_bias_kv: append a learned key and value [False].
        add_zero_attn: append a key and value of zeros [False].
        kdim, vdim: widths of keys and values [embed_dim].
        batch_first: the batch axis comes before the length axis [False].
        saved: 4 or 8 keeps the inputs of the projections and q, k, v for backward in that many bits.

    `in_proj_weight` (3 E, E) holds the projections of queries, keys and values one below the other; with other widths
    `q_proj_weight`, `k_proj_weight`, `v_proj_weight` hold one each.

    Raises:
        ValueError: the heads do not divide embed_dim.

    Example:
        >>> attention = pb.nn.MultiheadAttention(8, 2, batch_first=True)
        >>> x = pb.zeros((1, 5, 8))
        >>> out, weights = attention(x, x, x)
        >>> out.shape, weights.shape
        ((1, 5, 8), (1, 5, 5))
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: Any = None, dtype: Any = None, *, saved: Any = None,
    ) -> None:  # fmt: skip
        self.saved = saved
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: width {embed_dim} does not split into {num_heads} heads\n"
                "help: num_heads divides embed_dim"
            )
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn

        def new(*shape: int) -> Parameter:
            return Parameter(pb.zeros(shape, dtype=dtype or pb.float32, device=device))

        same = self.kdim == embed_dim and self.vdim == embed_dim
        self.in_proj_weight = new(3 * embed_dim, embed_dim) if same else None
        self.q_proj_weight = None if same else new(embed_dim, embed_dim)
        self.k_proj_weight = None if same else new(embed_dim, self.kdim)
        self.v_proj_weight = None if same else new(embed_dim, self.vdim)
        self.in_proj_bias = new(3 * embed_dim) if bias else None
        self.bias_k = new(1, 1, embed_dim) if add_bias_kv else None
        self.bias_v = new(1, 1, embed_dim) if add_bias_kv else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype, saved=saved)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the projections anew (Xavier uniform); biases are 0."""
        for w in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if w is not None:
                init.xavier_uniform(w)
        for b in (self.in_proj_bias, self.out_proj.bias):
            if b is not None:
                init.zeros(b)
        for b in (self.bias_k, self.bias_v):
            if b is not None:
                init.xavier_normal(b)

    def forward(
        self, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
        attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[C.Tensor, C.Tensor | None]:  # fmt: skip
        """(output, weights). Masks mean what they mean in PyTorch's layer: True = do not attend; floats are added.

        Args:
            query, key, value: lengths L, S, S and widths embed_dim, kdim, vdim.
            key_padding_mask: (N, S), or (S,) without a batch.
            need_weights: False returns None for the weights and takes the fused kernel [True].
            attn_mask: (L, S) or (N * num_heads, L, S).
            average_attn_weights: weights are (N, L, S), the mean over heads, instead of (N, num_heads, L, S) [True].
            is_causal: position i attends to positions up to i, in addition to the masks [False].

        Raises:
            ShapeError: ranks, lengths, widths or mask shapes do not fit.
        """
        single = query.ndim == 2
        q = self._batched(query, query.ndim)
        k = q if key is query else self._batched(key, query.ndim)
        v = k if value is key else self._batched(value, query.ndim)
        if k.shape[:2] != v.shape[:2] or q.shape[0] != k.shape[0]:
            raise pb.ShapeError(
                f"MultiheadAttention: query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}\n"
                "help: all have one batch size, and keys and values one length"
            )
        q, k, v = self._project(q, k, v)
        n, length, _ = q.shape
        source = k.shape[1]
        plain = attn_mask is None and key_padding_mask is None and self.bias_k is None and not self.add_zero_attn
        fused_causal = is_causal and plain and not need_weights and length == source
        mask = self._mask(attn_mask, key_padding_mask, n, length, source, is_causal and not fused_causal)
        k, v, mask = self._extend(k, v, mask)
        q, k, v = (self._split(t) for t in (q, k, v))
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = pb.matmul(q, pb.permute_dims(k, (0, 1, 3, 2))) * (1 / math.sqrt(self.head_dim))
            weights = pb.softmax(scores if mask is None else scores + _added(mask, scores.dtype), axis=-1)
            if p:
                weights = pb.dropout(weights, p)
            out = pb.matmul(weights, v)
        else:
            out = pb.scaled_dot_product_attention(q, k, v, mask, causal=fused_causal, dropout=p, saved=self.saved)
        out = self.out_proj(pb.reshape(pb.permute_dims(out, (0, 2, 1, 3)), (n, length, self.embed_dim)))
        if weights is not None and average_attn_weights:
            weights = pb.mean(weights, axis=1)
        if single:
            return pb.squeeze(out, 0), None if weights is None else pb.squeeze(weights, 0)
        return out if self.batch_first else pb.permute_dims(out, (1, 0, 2)), weights

    def _batched(self, x: Any, rank: int) -> C.Tensor:
        if x.ndim != rank or rank not in (2, 3):
            raise pb.ShapeError(
                f"MultiheadAttention: input of shape {tuple(x.shape)}\n"
                "help: query, key and value all have 3 axes, or all 2 (no batch)"
            )
        if rank == 2:
            return pb.expand_dims(x, 0)
        return x if self.batch_first else pb.permute_dims(x, (1, 0, 2))

    def _project(self, q: C.Tensor, k: C.Tensor, v: C.Tensor) -> list[C.Tensor]:
        e = self.embed_dim
        if self.in_proj_weight is not None and q is k and k is v:  # self-attention: one product
            return pb.split(pb.linear(q, self.in_proj_weight, self.in_proj_bias, saved=self.saved), 3, axis=-1)
        if self.in_proj_weight is not None:
            weights: list[Any] = [self.in_proj_weight[i * e : (i + 1) * e] for i in range(3)]
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        bias = self.in_proj_bias
        biases = [None] * 3 if bias is None else [bias[i * e : (i + 1) * e] for i in range(3)]
        return [pb.linear(x, w, b, saved=self.saved) for x, w, b in zip((q, k, v), weights, biases, strict=True)]

    def _extend(self, k: C.Tensor, v: C.Tensor, mask: Any) -> tuple[C.Tensor, C.Tensor, Any]:
        n, more = k.shape[0], 0
        if self.bias_k is not None:
            shape = (n, 1, self.embed_dim)
            k = pb.concat([k, pb.broadcast_to(self.bias_k, shape)], axis=1)
            v = pb.concat([v, pb.broadcast_to(self.bias_v, shape)], axis=1)
            more += 1
        if self.add_zero_attn:
            zero = pb.zeros((n, 1, self.embed_dim), dtype=k.dtype, device=k.device)
            k, v = pb.concat([k, zero], axis=1), pb.concat([v, zero], axis=1)
            more += 1
        if mask is not None and more:  # everybody attends to what was appended
            tail = (*mask.shape[:-1], more)
            make = pb.ones if mask.dtype == pb.bool else pb.zeros
            free = make(tail, dtype=mask.dtype, device=mask.device)
            mask = pb.concat([mask, free], axis=-1)
        return k, v, mask

    def _split(self, x: C.Tensor) -> C.Tensor:
        n, length, _ = x.shape
        return pb.permute_dims(pb.reshape(x, (n, length, self.num_heads, self.head_dim)), (0, 2, 1, 3))

    def _mask(self, attn: Any, padding: Any, n: int, length: int, source: int, causal: bool) -> Any:
        """One mask that broadcasts to (N, heads, L, S): bool, True = attend, or float, added."""
        parts = []
        if attn is not None:
            parts.append(self._shaped(attn, n, length, source))
        if padding is not None:
            if tuple(padding.shape) != (n, source) and (n, tuple(padding.shape)) != (1, (source,)):
                raise pb.ShapeError(
                    f"MultiheadAttention: key_padding_mask {tuple(padding.shape)} for {n} rows of {source} keys\n"
                    "help: it has the shape (N, S)"
                )
            parts.append(pb.reshape(padding, (n, 1, 1, source)))
        parts = [pb.logical_not(m) if m.dtype == pb.bool else m for m in parts]
        if causal:
            parts.append(pb.tril(pb.ones((length, source), dtype=pb.bool, device=self.out_proj.weight.device)))
        if not parts:
            return None
        mask, *rest = parts
        for other in rest:
            if mask.dtype == pb.bool and other.dtype == pb.bool:
                mask = pb.logical_and(mask, other)
            else:
                floating = mask.dtype if mask.dtype != pb.bool else other.dtype
                mask = _added(mask, floating) + _added(other, floating)
        return mask

    def _shaped(self, mask: Any, n: int, length: int, source: int) -> Any:
        if tuple(mask.shape) == (length, source):
            return mask
        if tuple(mask.shape) == (n * self.num_heads, length, source):
            return pb.reshape(mask, (n, self.num_heads, length, source))
        raise pb.ShapeError(
            f"MultiheadAttention: attn_mask {tuple(mask.shape)} for {length} queries and {source} keys\n"
            "help: it has the shape (L, S) or (N * num_heads, L, S)"
        )

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, batch_first={self.batch_first}"


def _added(mask: C.Tensor, dtype: Any) -> C.Tensor:
    """The mask as numbers to add to the scores."""
    if mask.dtype != pb.bool:
        return mask
    like = {"dtype": dtype, "device": mask.device}
    return pb.where(mask, pb.zeros((), **like), pb.full((), -math.inf, **like))


class TransformerBlock(Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)), on (N, L, E) or (L, E).

    The names are those of PyTorch's TransformerEncoderLayer, which computes the same with norm_first=True and
    activation="gelu".

    Args:
        d_model: width E.
        nhead: attention heads.
        dim_feedforward: width of the hidden layer; None takes 4 * d_model.
        dropout: on the attention weights, the hidden layer and both branches, in training [0.0].
        layer_norm_eps: eps of both norms [1e-5].
        bias: whether linear maps and norms have biases [True].
        causal: position i sees positions up to i [False].

    Example:
        >>> block = pb.nn.TransformerBlock(8, 2, causal=True)
        >>> block(pb.zeros((1, 5, 8))).shape
        (1, 5, 8)
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int | None = None, dropout: float = 0.0,
        layer_norm_eps: float = 1e-5, bias: bool = True, causal: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        hidden = 4 * d_model if dim_feedforward is None else dim_feedforward
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.causal = causal
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=True, **where)
        self.linear1 = Linear(d_model, hidden, bias=bias, **where)
        self.activation = GELU()
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(hidden, d_model, bias=bias, **where)
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **where)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **where)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)

    def forward(self, x: Any, attn_mask: Any = None, key_padding_mask: Any = None) -> C.Tensor:
        """Masks as in `MultiheadAttention`: True = do not attend."""
        h = self.norm1(x)
        h = self.self_attn(
            h, h, h, key_padding_mask=key_padding_mask, need_weights=False, attn_mask=attn_mask, is_causal=self.causal
        )[0]
        x = x + self.dropout1(h)
        h = self.linear2(self.dropout(self.activation(self.linear1(self.norm2(x)))))
        return x + self.dropout2(h)

    def extra_repr(self) -> str:
        return f"causal={self.causal}"
