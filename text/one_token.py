"""Llama's steps for one token; see prepared.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import native
from ..core.tensor import Tensor
from .cache import KVCache
from .prepared import Prepared, Unfit

if TYPE_CHECKING:
    from .llama import Llama

_LANES = 16  # heads are as wide as a multiple of this


class LlamaToken(Prepared):
    """The steps of a Llama with a head that scores tokens."""

    def __init__(self, model: Llama) -> None:
        from .llama import Attention, Layer, Mlp

        config, body = model.config, model.model
        super().__init__(model, config.hidden_size)
        width, heads, shared = config.width, config.num_attention_heads, config.num_key_value_heads
        if width % _LANES or width > native.MAX_WIDTH or config.hidden_act != "silu":
            raise Unfit
        inner = config.intermediate_size
        self._layers = len(body.layers)
        self._windows = [config.window(layer) for layer in range(self._layers)]
        qkv = np.empty((heads + 2 * shared) * width, np.float32)
        seen = np.empty(heads * width, np.float32)
        gate_up, gated = np.empty(2 * inner, np.float32), np.empty(inner, np.float32)
        self._before, self._attend, self._after = [], [], []
        for layer in body.layers:
            own, mlp = layer.self_attn, layer.mlp
            if [type(part) for part in (layer, own, mlp)] != [Layer, Attention, Mlp]:
                raise Unfit
            self._before.append(
                [
                    self._norm(layer.input_layernorm),
                    *self._products([own.q_proj, own.k_proj, own.v_proj], self._y, qkv),
                ]
            )
            norms = [
                None if norm is None else self._scale(norm) for norm in (own.q_norm, own.k_norm)
            ]
            self._attend.append(
                native.TokenAttention(
                    qkv,
                    seen,
                    shared=shared,
                    width=width,
                    scale=width**-0.5,
                    query_norm=norms[0],
                    key_norm=norms[1],
                    eps=config.rms_norm_eps,
                )
            )
            self._after.append(
                [
                    *self._products([own.o_proj], seen, self._x, added=True),
                    self._norm(layer.post_attention_layernorm),
                    *self._products([mlp.gate_proj, mlp.up_proj], self._y, gate_up),
                    native.gated_step(gate_up, gated),
                    *self._products([mlp.down_proj], gated, self._x, added=True),
                ]
            )
        self._logits = np.empty(config.vocab_size, np.float32)
        self._last = [
            self._norm(body.norm),
            *self._products([model.lm_head], self._y, self._logits),
        ]
        self._table = self._table_of(body.embed_tokens)
        self._like = Tensor(self._x)
        self._rotary = body._rotary

    def run(self, token: int, cache: KVCache) -> Any:
        """See `Prepared`."""
        self._table(token)
        at = cache.length
        turns = self._rotary.at(np.array([at]), self._like)
        cosines, sines = (part.array.reshape(-1) for part in turns)
        for i in range(self._layers):
            native.run_steps(self._before[i])
            window = self._windows[i]
            first = 0 if window is None else max(0, at + 1 - window)
            keys, values = cache.of_text(i)
            self._attend[i](cosines, sines, keys, values, at, first)
            native.run_steps(self._after[i])
        native.run_steps(self._last)
        return self._logits.copy()
