"""The steps of a language model for one token of one text, prepared as calls of kernels.

Reading a token, when all before it are in a cache, is some hundreds of small products, norms and
attentions. As operations each pays for its dispatch, together more than the arithmetic of a small
model; here their arguments are put together and checked once. The results are those of the
operations, but for the order of sums; activations are float32 even where weights are halves.

one_token.py has the steps of Llama, gpt2_token.py those of GPT-2.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import native, nn
from ..core.dtypes import HALVES, float32
from ..core.nn.quantized import QuantizedEmbedding, QuantizedLinear
from ..core.ops.quantized import widened
from ..core.quantization import FORMATS, GROUP
from ..core.state import state, watch
from ..core.tensor import Tensor
from .cache import KVCache


class Unfit(Exception):
    """The model has a part that no kernel is there for."""


class Prepared(ABC):
    """Steps that hold the weights of a model, and know when they are no longer the model's.

    Args:
        model: a language model without hooks.
        features: of a token.

    Raises:
        Unfit: a layer of another type, hooks, weights on another device, ...
    """

    def __init__(self, model: Any, features: int) -> None:
        self.structure = watch.structure
        self._held: list[tuple[Tensor, Any, int]] = []
        self._lock = threading.Lock()
        # What goes from layer to layer, and the same after a norm.
        self._x, self._y = np.empty(features, np.float32), np.empty(features, np.float32)
        if any(part._pre_hooks or part._post_hooks for part in model.modules()):
            raise Unfit

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

    def _norm(self, norm: Any) -> Any:
        """A norm of what goes from layer to layer."""
        if type(norm) is nn.LayerNorm and norm.weight is not None and norm.bias is not None:
            weight, bias = self._wide(norm.weight), self._wide(norm.bias)
            return native.layer_norm_step(self._x, weight, bias, norm.eps, self._y)
        weight = self._scale(norm)
        if norm.eps is None or weight.shape != self._x.shape:
            raise Unfit
        return native.rms_norm_step(self._x, weight, norm.eps, self._y)

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
        bias, steps = None, []
        if given:
            if len(given) != len(layers):
                raise Unfit
            bias = np.concatenate([self._wide(part, copied=True) for part in given])
        if added:
            if bias is not None:
                steps.append(native.add_step(bias, out))
            bias = out
        if len({form for form, _ in found}) == 1:
            raws = [raw for _, raw in found]
            return [*steps, native.product_step(found[0][0], raws, x, bias, out)]
        at = 0
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

    @abstractmethod
    def run(self, token: int, cache: KVCache) -> Any:
        """Scores of the token that follows, (V,); the cache gets its keys and values."""

    def __call__(self, token: int, cache: KVCache) -> Any:
        """As `run`, and the cache counts the token; None if another thread is at it."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            scores = self.run(token, cache)
            cache.advance(1)
            return scores
        finally:
            self._lock.release()

    def __reduce__(self) -> Any:
        """A copy of a model prepares its own steps."""
        return _nothing, ()


def _nothing() -> None:
    return None


def next_scores(
    model: Any, prepare: Callable[[Any], Prepared], input_ids: Tensor, cache: KVCache, dtype: Any
) -> Tensor | None:
    """Scores of the token after a single one, (1, 1, V), by prepared steps; None if there are none.

    Args:
        model: has `_steps` and `_unfit`, where they are kept.
        prepare: makes the steps; raises `Unfit`.
        input_ids: checked before, as is the place of the token.
        dtype: of the scores.
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
            model._steps = steps = prepare(model)
        except Unfit:
            model._steps, model._unfit = None, watch.structure
            return None
    scores = steps(int(input_ids.array[0, 0]), cache)
    if scores is None:
        return None
    out = Tensor(scores.reshape(1, 1, -1))
    return out if dtype == float32 else out.astype(dtype)
