"""GPT-2's steps for one token; see prepared.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import native, nn
from .cache import KVCache
from .prepared import Prepared, Unfit

if TYPE_CHECKING:
    from .gpt2 import GPT2

_LANES = 16  # heads are as wide as a multiple of this
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


class GPT2Token(Prepared):
    """The steps of a GPT-2 with a head that scores tokens."""

    def __init__(self, model: GPT2) -> None:
        from .gpt2 import Attention, Block, Mlp

        config, body = model.config, model.transformer
        super().__init__(model, config.n_embd)
        size, heads = config.n_embd, config.n_head
        width, inner = size // heads, config.inner
        act = _ACTIVATIONS.get(config.activation_function)
        if (
            act is None
            or width % _LANES
            or width > native.MAX_WIDTH
            or type(body.wpe) is not nn.Embedding
        ):
            raise Unfit
        qkv, seen = np.empty(3 * size, np.float32), np.empty(size, np.float32)
        wide, acted = np.empty(inner, np.float32), np.empty(inner, np.float32)
        self._before, self._attend, self._after = [], [], []
        for block in body.h:
            own, mlp = block.attn, block.mlp
            if [type(part) for part in (block, own, mlp)] != [Block, Attention, Mlp]:
                raise Unfit
            self._before.append(
                [self._norm(block.ln_1), *self._products([own.c_attn], self._y, qkv)]
            )
            self._attend.append(
                native.TokenAttention(qkv, seen, shared=heads, width=width, scale=own.scale)
            )
            self._after.append(
                [
                    *self._products([own.c_proj], seen, self._x, added=True),
                    self._norm(block.ln_2),
                    *self._products([mlp.c_fc], self._y, wide),
                    native.activation_step(act, wide, acted),
                    *self._products([mlp.c_proj], acted, self._x, added=True),
                ]
            )
        self._logits = np.empty(config.vocab_size, np.float32)
        self._last = [
            self._norm(body.ln_f),
            *self._products([model.lm_head], self._y, self._logits),
        ]
        self._table = self._table_of(body.wte)
        self._places = self._hold(body.wpe.weight)
        # Angles of nothing: places are in the vectors.
        self._turns = np.ones(width // 2, np.float32), np.zeros(width // 2, np.float32)

    def run(self, token: int, cache: KVCache) -> Any:
        """See `Prepared`."""
        self._table(token)
        at = cache.length
        self._x += self._places[at].astype(np.float32, copy=False)
        for i, attend in enumerate(self._attend):
            native.run_steps(self._before[i])
            keys, values = cache.of_text(i)
            attend(*self._turns, keys, values, at, 0)
            native.run_steps(self._after[i])
        native.run_steps(self._last)
        return self._logits.copy()
