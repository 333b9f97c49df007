"""Llama's next token, when all before it are in a cache: every step prepared as a call of a kernel.

Reading one token of one text is some two hundred and fifty small products, norms and attentions. As
operations each pays for its dispatch, together more than the arithmetic of a small model; here
their arguments are put together and checked once. The results are those of the operations, but for
the order of sums; activations are float32 even where weights are halves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import native, nn
from ..core.dtypes import HALVES, float32
from ..core.nn.quantized import QuantizedEmbedding, QuantizedLinear
from ..core.ops.quantized import widened
from ..core.quantization import FORMATS, GROUP
from ..core.state import state, watch
from ..core.tensor import Tensor
from .cache import KVCache

if TYPE_CHECKING:
    from .llama import Llama

_LANES = 16  # heads are as wide as a multiple of this


class Unfit(Exception):
    """The model has a part that no kernel is there for."""


class OneToken:
    """The steps of a model for one token.

    Args:
        model: a Llama with a head that scores tokens.

    Raises:
        Unfit: a layer of another type, hooks, weights on another device, ...
    """

    def __init__(self, model: Llama) -> None:
        self.structure = watch.structure
        self._held: list[tuple[Tensor, Any, int]] = []
        self._lock = threading.Lock()
        config, body = model.config, model.model
        if any(part._pre_hooks or part._post_hooks for part in model.modules()):
            raise Unfit
        width, heads, shared = config.width, config.num_attention_heads, config.num_key_value_heads
        if width % _LANES or width > native.MAX_WIDTH or config.hidden_act != "silu":
            raise Unfit
        size, inner = config.hidden_size, config.intermediate_size
        self._layers, self._windows = len(body.layers), [p.self_attn.window for p in body.layers]
        self._x, self._y = np.empty(size, np.float32), np.empty(size, np.float32)
        qkv = np.empty((heads + 2 * shared) * width, np.float32)
        seen = np.empty(heads * width, np.float32)
        gate_up, gated = np.empty(2 * inner, np.float32), np.empty(inner, np.float32)
        self._before, self._attend, self._after = [], [], []
        for layer in body.layers:
            own, mlp = layer.self_attn, layer.mlp
            self._before.append(
                [
                    self._norm(layer.input_layernorm, self._x, self._y),
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
                    self._norm(layer.post_attention_layernorm, self._x, self._y),
                    *self._products([mlp.gate_proj, mlp.up_proj], self._y, gate_up),
                    native.gated_step(gate_up, gated),
                    *self._products([mlp.down_proj], gated, self._x, added=True),
                ]
            )
        self._logits = np.empty(config.vocab_size, np.float32)
        self._last = [
            self._norm(body.norm, self._x, self._y),
            *self._products([model.lm_head], self._y, self._logits),
        ]
        self._table = self._table_of(body.embed_tokens)
        self._like = Tensor(self._x)

    # -- preparing -------------------------------------------------------------------------------

    def _hold(self, tensor: Tensor) -> Any:
        """The array of a tensor, once it is known that it is still the same at every call."""
        array = tensor.array
        if type(array) is not np.ndarray or not array.flags.c_contiguous:
            raise Unfit
        self._held.append((tensor, array, -1))
        return array

    def _wide(self, tensor: Tensor, copied: bool = False) -> Any:
        """A short vector in float32; a copy of it is no longer good once it is written to."""
        array = self._hold(tensor)
        if copied or array.dtype in HALVES:
            self._held[-1] = (tensor, array, tensor._cell[0])
            array = array.astype(float32)
        if array.dtype != float32 or not array.flags.aligned:
            raise Unfit
        return array

    def _scale(self, norm: Any) -> Any:
        if type(norm) is not nn.RMSNorm or norm.weight is None:
            raise Unfit
        return self._wide(norm.weight)

    def _norm(self, norm: Any, x: Any, out: Any) -> Any:
        weight = self._scale(norm)
        if norm.eps is None or weight.shape != x.shape:
            raise Unfit
        return native.rms_norm_step(x, weight, norm.eps, out)

    def _products(self, layers: list[Any], x: Any, out: Any, added: bool = False) -> list[Any]:
        """Linear layers of one input, their results behind one another: one step if they can be.

        Args:
            added: to what is in `out`.
        """
        found = [self._weight(layer, len(x)) for layer in layers]
        sizes = [len(raw) for _, raw in found]
        if sum(sizes) != len(out):
            raise Unfit
        given = [layer.bias for layer in layers if layer.bias is not None]
        bias = None
        if given:
            if added or len(given) != len(layers):
                raise Unfit
            bias = np.concatenate([self._wide(part, copied=True) for part in given])
        elif added:
            bias = out
        if len({form for form, _ in found}) == 1:
            return [native.product_step(found[0][0], [raw for _, raw in found], x, bias, out)]
        steps, at = [], 0
        for (form, raw), size in zip(found, sizes, strict=True):
            part = slice(at, at := at + size)
            own = None if bias is None else bias[part]
            steps.append(native.product_step(form, [raw], x, own, out[part]))
        return steps

    def _weight(self, layer: Any, features: int) -> tuple[str, Any]:
        """The format and the bytes of a linear layer."""
        if type(layer) is QuantizedLinear:
            form, raw = layer.form, self._hold(layer.weight)
        elif type(layer) is nn.Linear:
            array = self._hold(layer.weight)
            if array.dtype != float32 and array.dtype not in HALVES:
                raise Unfit
            form, raw = array.dtype.name, array.view(np.uint8)
        else:
            raise Unfit
        if features % (FORMATS[form].block if form in FORMATS else GROUP):
            raise Unfit
        return form, raw

    def _table_of(self, table: Any) -> Any:
        """A function that puts the vector of a token into the buffer."""
        array = self._hold(table.weight)
        if type(table) is QuantizedEmbedding:
            form, columns = table.form, table.columns

            def look_up(token: int) -> None:
                self._x[:] = widened(np, array[token : token + 1], form, columns)[0]

        elif type(table) is nn.Embedding and (array.dtype == float32 or array.dtype in HALVES):

            def look_up(token: int) -> None:
                self._x[:] = array[token]

        else:
            raise Unfit
        return look_up

    # -- running ---------------------------------------------------------------------------------

    def current(self) -> bool:
        """Whether the model is what it was when the steps were prepared."""
        if self.structure != watch.structure:
            return False
        for tensor, array, version in self._held:
            if tensor.array is not array or (version >= 0 and tensor._cell[0] != version):
                return False
        return True

    def __call__(self, token: int, places: Any, rotary: Any, cache: KVCache) -> Any:
        """Scores of the token that follows, (V,); None if another thread is at it.

        The cache gets the keys and values of the token, and counts it.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            self._table(token)
            turns = rotary.at(places, self._like)
            cosines, sines = (part.array.reshape(-1) for part in turns)
            at = cache.length
            for i in range(self._layers):
                native.run_steps(self._before[i])
                window = self._windows[i]
                first = 0 if window is None else max(0, at + 1 - window)
                keys, values = cache.of_text(i)
                self._attend[i](cosines, sines, keys, values, at, first)
                native.run_steps(self._after[i])
            native.run_steps(self._last)
            cache.advance(1)
            return self._logits.copy()
        finally:
            self._lock.release()

    def __reduce__(self) -> Any:
        """A copy of a model prepares its own steps."""
        return _nothing, ()


def _nothing() -> None:
    return None


def next_scores(model: Llama, input_ids: Tensor, places: Any, cache: KVCache) -> Tensor | None:
    """Scores of the token after a single one, (1, 1, V), by prepared steps; None if there are none.

    Ids are checked before.
    """
    if state.grad_enabled or state.observers or state.cast is not None or model.training:
        return None
    if not native.available() or not cache.holds_one_text():
        return None
    steps = model._steps
    if steps is None or not steps.current():
        if model._unfit == watch.structure:
            return None
        try:
            model._steps = steps = OneToken(model)
        except Unfit:
            model._steps, model._unfit = None, watch.structure
            return None
    scores = steps(int(input_ids.array[0, 0]), places, model.model._rotary, cache)
    if scores is None:
        return None
    out = Tensor(scores.reshape(1, 1, -1))
    dtype = model.model.norm.weight.dtype
    return out if dtype == float32 else out.astype(dtype)
