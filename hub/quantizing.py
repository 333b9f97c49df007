"""Which weights of a model have few bits, and how they come out of a file.

Tensors are read, changed and packed one after the other, so that a model is never wide in memory
as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core import dtypes
from ..core.conversion import converted
from ..core.errors import ConfigError, DtypeError, WeightsError
from ..core.nn import Module
from ..core.nn.quantized import SMALL_LAYER, layers_of, plan_of, replace_layers
from ..core.quantization import ALIASES, FORMATS, GROUP, PACKED, as_format, pack, unpack
from ..core.weights import GgufFile, LazyWeights, TensorInfo
from .rename import groups

#: Weights of few bits stay as a file has them; others have the dtype that is asked for.
STORED = "stored"
_WEIGHT = ".weight"


def precision(dtype: Any) -> tuple[dtypes.DType, str | None]:
    """What `bt.load(dtype=)` asks for: the dtype of parameters, and the format of weights.

    Raises:
        DtypeError: neither a floating dtype nor a format that weights can be packed in.
    """
    if dtype is None:
        return dtypes.float32, STORED
    try:
        found = dtypes.as_dtype(dtype)
    except DtypeError:
        found = None
    name = str(dtype) if found is None else found.name
    few = [*ALIASES, *(form for form in PACKED if form not in dtypes.BY_NAME or form == "int8")]
    if name in few:
        return dtypes.float32, as_format(name).name
    if found is None or found not in dtypes.FLOATS:
        raise DtypeError(
            f"dtype={name!r:.80}: weights are loaded as float32, bfloat16, float16 or float64, or "
            f"in few bits as {', '.join(few)}.",
            got=name,
        )
    return found, None


class Packing:
    """What becomes of each tensor of a file on its way into a module.

    Args:
        module: without values; its layers that get weights of few bits are replaced.
        names: of the file -> ours and a function of the array, as `rename.renamed` gives them.
        join: the layout's table of tensors that are put below one another.
        file: opened.
        stored: layers of the file that are packed already, and the format of each.
        dtype: of the numbers that are not packed.
        form: a format, `STORED`, or None: nothing is packed.
        keep: paths of modules that stay as they are: heads that are made anew.
    """

    def __init__(
        self,
        module: Module,
        names: Mapping[str, tuple[str, Any]],
        join: Mapping[str, tuple[str, ...]],
        file: LazyWeights,
        *,
        stored: Mapping[str, str],
        dtype: dtypes.DType,
        form: str | None,
        keep: Callable[[str], bool],
    ) -> None:
        self._file, self._dtype = file, dtype
        self._shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        # Of each tensor of the file by our name: how it is stored there, if in few bits.
        self._stored = {f"{name}{_WEIGHT}": form for name, form in stored.items()}
        if isinstance(file, GgufFile):
            for old, (new, apply) in names.items():
                found = None if apply is not None else _gguf_form(file, old)
                if found is not None:
                    self._stored[new] = found
        parts = groups([new for new, _ in names.values()], join)
        self._whole = {part: target for target, members in parts.items() for part in members}
        self.plan = {
            name: own for name, own in self._planned(module, form).items() if not keep(name)
        }
        self._forms = {}
        for new, _ in names.values():
            owner = self.owner(new)
            chosen = self.plan.get(owner.removesuffix(_WEIGHT)) if owner.endswith(_WEIGHT) else None
            if chosen is not None:
                self._forms[new] = chosen
        if self.plan:
            replace_layers(module, self.plan, filled=False)

    def owner(self, new: str) -> str:
        """The tensor of the module that one of the file is, or is a part of."""
        return self._whole.get(new, new)

    def _planned(self, module: Module, form: str | None) -> dict[str, str]:
        if form is None:
            return {}
        if form != STORED:
            return plan_of(module, form)
        able = layers_of(module)
        found = {n.removesuffix(_WEIGHT): own for n, own in self._stored.items()}
        return {name: own for name, own in found.items() if name in able}

    def taken(self, old: str, new: str, apply: Any, early: bool) -> Any:
        """A tensor of the file as the module takes it.

        Args:
            early: floating numbers are converted now, and not after all are there.
        """
        wanted, has = self._forms.get(new), self._stored.get(new)
        if wanted is not None and wanted == has and apply is None:
            return self._bytes(old)
        array = self._wide(old, new, has)
        if apply is not None:
            array = apply(array)
        if wanted is not None:
            if array.ndim != 2:
                return array  # of a wrong shape: strict loading says so
            return pack(array, wanted)
        if early and array.dtype in dtypes.FLOATS:
            array = converted(array, self._dtype)
            if not array.flags.c_contiguous:
                array = np.ascontiguousarray(array)  # products with few rows want them in order
        return array

    def _bytes(self, old: str) -> Any:
        packed = self._file.packed(old) if isinstance(self._file, GgufFile) else None
        return self._file[old] if packed is None else packed[1]

    def _wide(self, old: str, new: str, form: str | None) -> Any:
        """The numbers; of our own files the bytes of few bits are widened by blocks."""
        array = self._file[old]
        shape = self._shapes.get(new)
        if form is None or isinstance(self._file, GgufFile) or shape is None:
            return array
        layout = FORMATS[form]
        if array.dtype != np.uint8 or array.shape != (shape[0], layout.stored(shape[1])):
            raise WeightsError(
                f"{old}: {shape[0]} rows of {shape[1]} numbers in {form} are bytes of shape "
                f"{(shape[0], layout.stored(shape[1]))}; the file has {array.shape} of "
                f"{array.dtype}",
                expected=(shape[0], layout.stored(shape[1])),
                got=array.shape,
            )
        out = np.empty(shape, np.float32)
        step = max(1, (1 << 20) // max(shape[1], 1))
        for at in range(0, shape[0], step):
            out[at : at + step] = unpack(np, array[at : at + step], form, shape[1])
        return out


def _gguf_form(file: GgufFile, name: str) -> str | None:
    """The format of a tensor whose rows can stay as they are."""
    form, shape = file.format(name), file.info(name).shape
    if form not in FORMATS or len(shape) != 2 or shape[1] % GROUP:
        return None
    return form if shape[0] >= SMALL_LAYER else None


def checked(said: Any, where: str) -> dict[str, str]:
    """The layers of a saved model that have few bits, and their formats, as config.json says it.

    Raises:
        ConfigError: it is no such table.
    """
    if said is None:
        return {}
    if not isinstance(said, dict) or not all(
        type(name) is str and type(form) is str and form in FORMATS for name, form in said.items()
    ):
        raise ConfigError(
            f"{where}: `quantized` is a table of layers and the formats of their weights "
            f"({', '.join(FORMATS)}), not {str(said)[:80]}",
            got=str(said)[:80],
        )
    return dict(said)


def sized(infos: Mapping[str, TensorInfo], stored: Mapping[str, str]) -> dict[str, TensorInfo]:
    """The tensors of a file as if none were in few bits: what their model may be as large as."""
    found = dict(infos)
    for name, form in stored.items():
        info = infos.get(f"{name}{_WEIGHT}")
        if info is not None and len(info.shape) == 2:
            layout = FORMATS[form]
            numbers = max(info.shape[1] - layout.head, 0) // layout.bytes * layout.block
            found[f"{name}{_WEIGHT}"] = TensorInfo(dtypes.float32, (info.shape[0], numbers))
    return found
