"""Attention with several heads, and the encoder layer built on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ..creation import ones, zeros
from ..dtypes import bool_
from ..errors import ConfigError, ShapeError
from ..ops.elementwise import where
from ..ops.manipulation import triu
from ..ops.shape import broadcast_to, concat, permute_dims
from ..tensor import Tensor
from . import functional as F
from . import init
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm
from .parameter import Parameter


class MultiheadAttention(Module):
    """Attention of several heads: each looks at its own projection of keys and values.

    Args:
        embed_dim: features E of the queries and of the result.
        num_heads: heads N, which share the features.
        dropout: probability of dropping an attention weight in training.
        bias: whether projections have biases.
        add_bias_kv: add a learned key and value at the end of the sequences.
        add_zero_attn: add a key and value of zeros at the end.
        kdim, vdim: features of keys and values, where they differ from E.
        batch_first: tensors are (B, T, E), not (T, B, E).

    Masks follow torch.nn: True in a boolean mask means that a position is *left out*. (In
    `F.scaled_dot_product_attention` it means that it takes part, also as in torch.)

    Source: Vaswani et al. 2017, "Attention is all you need".
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim % num_heads:
            raise ConfigError(
                f"MultiheadAttention: {num_heads} heads cannot share {embed_dim} features equally."
            )
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_proj_weight: Parameter | None = None
        self.q_proj_weight: Parameter | None = None
        self.k_proj_weight: Parameter | None = None
        self.v_proj_weight: Parameter | None = None
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = init.parameter(3 * embed_dim, embed_dim, **place)
        else:
            self.q_proj_weight = init.parameter(embed_dim, embed_dim, **place)
            self.k_proj_weight = init.parameter(embed_dim, self.kdim, **place)
            self.v_proj_weight = init.parameter(embed_dim, self.vdim, **place)
        self.in_proj_bias = init.parameter(3 * embed_dim, **place) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, **place)
        self.bias_k: Parameter | None = None
        self.bias_v: Parameter | None = None
        if add_bias_kv:
            self.bias_k = init.parameter(1, 1, embed_dim, **place)
            self.bias_v = init.parameter(1, 1, embed_dim, **place)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        weights = (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        for weight in weights:
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (T, B, E), or (B, T, E) with `batch_first`, or (T, E).
            key, value: likewise, with S positions.
            key_padding_mask: (B, S); True, or minus infinity, leaves a key out.
            need_weights: also return the attention weights; slower, and takes B N T S memory.
            attn_mask: (T, S) or (B N, T, S); True leaves out, numbers are added to the scores.
            average_attn_weights: return their mean over heads.
            is_causal: no position sees a later one; with `attn_mask`, which must say so, a hint.

        Returns:
            The result in the shape of `query`, and the weights (B, T, S), or (B, N, T, S) when
            not averaged, or None.
        """
        single = query.ndim == 2
        if query.ndim not in (2, 3):
            raise ShapeError(
                f"MultiheadAttention takes (T, B, E), (B, T, E) or (T, E), got {query.shape}",
                got=query.shape,
            )
        if single:
            query, key, value = query[None], key[None], value[None]
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask[None]
        elif not self.batch_first:
            same_key, same_value = key is query, value is key
            query = permute_dims(query, (1, 0, 2))
            key = query if same_key else permute_dims(key, (1, 0, 2))
            value = key if same_value else permute_dims(value, (1, 0, 2))
        q, k, v = self._project(query, key, value)
        k, v, extra = self._extended(k, v)
        causal = is_causal and attn_mask is None
        # Only the bare causal mask is known to the fused attention; others are written out.
        fused = causal and not (need_weights or key_padding_mask is not None or extra)
        mask = self._mask(attn_mask, key_padding_mask, extra, q, k, causal and not fused)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.mT  # (B, N, T, S)
            if mask is not None:
                scores = scores + mask
            weights = F.softmax(scores, -1)
            if dropout:
                weights = F.dropout(weights, dropout, True)
            mixed = weights @ v
            if average_attn_weights:
                weights = weights.mean(axis=1)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, fused)
        batch, _, steps, _ = q.shape
        out = permute_dims(mixed, (0, 2, 1, 3)).reshape(batch, steps, self.embed_dim)
        out = self.out_proj(out)
        if single:
            return out[0], None if weights is None else weights[0]
        if not self.batch_first:
            out = permute_dims(out, (1, 0, 2))
        return out, weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e, bias = self.embed_dim, self.in_proj_bias
        if self.in_proj_weight is not None and query is key is value:
            packed = F.linear(query, self.in_proj_weight, bias)  # (B, T, 3 E)
            batch, steps = packed.shape[:2]
            split = packed.reshape(batch, steps, 3, self.num_heads, self.head_dim)
            split = permute_dims(split, (2, 0, 3, 1, 4))  # (3, B, N, T, D)
            return split[0], split[1], split[2]
        parts = []
        named = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        for i, (x, weight) in enumerate(zip((query, key, value), named, strict=True)):
            if weight is None:
                assert self.in_proj_weight is not None
                weight_i: Tensor = self.in_proj_weight[i * e : (i + 1) * e]
            else:
                weight_i = weight
            y = F.linear(x, weight_i, None if bias is None else bias[i * e : (i + 1) * e])
            parts.append(self._heads(y))
        return parts[0], parts[1], parts[2]

    def _heads(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        return permute_dims(x.reshape(batch, steps, self.num_heads, self.head_dim), (0, 2, 1, 3))

    def _extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values with the learned and the zero position, and how many were added."""
        shape = (k.shape[0], self.num_heads, 1, self.head_dim)
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            ends = [
                broadcast_to(bias.reshape(1, *shape[1:]), shape)
                for bias in (self.bias_k, self.bias_v)
            ]
            k, v = concat([k, ends[0]], axis=2), concat([v, ends[1]], axis=2)
            added += 1
        if self.add_zero_attn:
            zero = zeros(shape, dtype=k.dtype, device=k.device)
            k, v = concat([k, zero], axis=2), concat([v, zero], axis=2)
            added += 1
        return k, v, added

    def _mask(
        self,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        extra: int,
        q: Tensor,
        k: Tensor,
        causal: bool,
    ) -> Tensor | None:
        """What is added to the scores: one mask of floats, broadcast to (B, N, T, S)."""
        batch, heads, steps, _ = q.shape
        keys = k.shape[2]
        total: Tensor | None = None
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q)
            if padding.shape != (batch, keys - extra):
                raise ShapeError(
                    f"key_padding_mask is (batch, keys) = {(batch, keys - extra)}, "
                    f"got {padding.shape}",
                    expected=(batch, keys - extra),
                    got=padding.shape,
                )
            total = _widened(padding, extra).reshape(batch, 1, 1, keys)
        if attn_mask is not None:
            scores = _widened(_added(attn_mask, q), extra)
            if scores.ndim == 3:
                scores = scores.reshape(batch, heads, steps, keys)
            total = scores if total is None else total + scores
        if causal:
            later = _widened(_causal(steps, keys - extra, q), extra)
            total = later if total is None else total + later
        return total

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads} heads, batch_first={self.batch_first}"


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers to add: a boolean one gives minus infinity where it is True."""
    if mask.dtype == bool_:
        out: Tensor = where(mask, float("-inf"), 0.0)
        return out.astype(like.dtype)
    return mask.astype(like.dtype)


def _widened(mask: Tensor, extra: int) -> Tensor:
    """Zeros at the end for the keys that were added, which everybody sees."""
    return F.pad(mask, (0, extra)) if extra else mask


def _causal(steps: int, keys: int, like: Tensor) -> Tensor:
    later = triu(ones((steps, keys), dtype=bool_, device=like.device), k=1)
    return _added(later, like)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: F.relu(x),
    "gelu": lambda x: F.gelu(x),
    "silu": lambda x: F.silu(x),
}


class TransformerEncoderLayer(Module):
    """Self-attention and a two-layer network, each with a residual connection and a norm.

    Args:
        d_model: features.
        nhead: heads.
        dim_feedforward: features inside the two-layer network.
        dropout: probability, at four places.
        activation: "relu", "gelu", "silu", or a function.
        layer_norm_eps: added to variances.
        batch_first: tensors are (B, T, E), not (T, B, E).
        norm_first: normalise before each part (which trains deeper), not after.
        bias: whether layers have biases.

    Source: Vaswani et al. 2017, "Attention is all you need".
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if isinstance(activation, str) and activation not in _ACTIVATIONS:
            raise ConfigError(
                f"activation is a function or one of {', '.join(_ACTIVATIONS)}, got {activation!r}",
                got=activation,
            )
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, **place
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **place)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = activation

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Shape: src (T, B, E), or (B, T, E) with `batch_first`, kept. Masks as in attention."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = src + self._attend(self.norm1(src), *masks)
            return x + self._feed(self.norm2(x))
        x = self.norm1(src + self._attend(src, *masks))
        out: Tensor = self.norm2(x + self._feed(x))
        return out

    def _attend(
        self, x: Tensor, mask: Tensor | None, padding: Tensor | None, causal: bool
    ) -> Tensor:
        mixed, _ = self.self_attn(
            x,
            x,
            x,
            key_padding_mask=padding,
            need_weights=False,
            attn_mask=mask,
            is_causal=causal,
        )
        out: Tensor = self.dropout1(mixed)
        return out

    def _feed(self, x: Tensor) -> Tensor:
        activation = self.activation
        function = _ACTIVATIONS[activation] if isinstance(activation, str) else activation
        out: Tensor = self.dropout2(self.linear2(self.dropout(function(self.linear1(x)))))
        return out

    def extra_repr(self) -> str:
        name = getattr(self.activation, "__name__", self.activation)
        return f"activation={name}, norm_first={self.norm_first}"


class TransformerEncoder(Module):
    """Copies of an encoder layer, one after another, and a norm at the end."""

    def __init__(
        self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None
    ) -> None:
        self.layers = [copy.deepcopy(encoder_layer) for _ in range(num_layers)]
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Shape and masks as for a layer."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
