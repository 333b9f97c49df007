"""What users of PyTorch write, and how it is written here: one table, used by every message."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from .callers import drop_our_frames
from .foreign import is_foreign, no_tensor
from .likely import LateWords, nearest

P = ParamSpec("P")
R = TypeVar("R")

# PyTorch's name -> what to paste. `x` is the tensor.
TORCH_SPELLINGS: dict[str, str] = {
    "view": "x.reshape(...)",
    "view_as": "x.reshape(other.shape)",
    "permute": "bt.permute_dims(x, axes)",
    "transpose": "bt.permute_dims(x, axes), x.mT for the last two axes",
    "t": "x.T",
    "unsqueeze": "bt.expand_dims(x, axis=...), or x[None]",
    "squeeze": "bt.squeeze(x, axis)",
    "cat": "bt.concat([x, y], axis=0)",
    "flatten": "x.reshape(x.shape[0], -1), or bt.nn.Flatten()",
    "contiguous": "x (memory layout is managed by the library; nothing to write)",
    "float": "x.astype(bt.float32)",
    "double": "x.astype(bt.float64)",
    "half": "x.astype(bt.float16)",
    "bfloat16": "x.astype(bt.bfloat16)",
    "long": "x.astype(bt.int64)",
    "int": "x.astype(bt.int32)",
    "bool": "x.astype(bt.bool)",
    "type": "x.astype(dtype)",
    "type_as": "x.astype(other.dtype)",
    "dim": "x.ndim",
    "numel": "x.size",
    "expand": "bt.broadcast_to(x, shape)",
    "repeat": "bt.tile(x, repetitions)",
    "repeat_interleave": "bt.repeat(x, repeats, axis=...)",
    "masked_fill": "bt.where(mask, value, x)",
    "masked_fill_": "x = bt.where(mask, value, x)",
    "masked_select": "x[mask]",
    "index_select": "bt.take(x, indices, axis=...)",
    "gather": "bt.take_along_axis(x, indices, axis=...)",
    "scatter": "bt.put_along_axis(x, indices, values, axis=...)",
    "clamp": "bt.clip(x, min, max)",
    "clip": "bt.clip(x, min, max)",
    "mm": "x @ y",
    "bmm": "x @ y",
    "matmul": "x @ y",
    "mul": "x * y",
    "add": "x + y",
    "sub": "x - y",
    "div": "x / y",
    "pow": "x ** y",
    "neg": "-x",
    "add_": "x = x + y",
    "sub_": "x = x - y",
    "mul_": "x = x * y",
    "div_": "x = x / y",
    "zero_": "bt.assign(x, 0)",
    "fill_": "bt.assign(x, value)",
    "copy_": "bt.assign(x, value)",
    "relu": "bt.nn.functional.relu(x)",
    "softmax": "bt.nn.functional.softmax(x, axis=-1)",
    "log_softmax": "bt.nn.functional.log_softmax(x, axis=-1)",
    "sigmoid": "bt.nn.functional.sigmoid(x)",
    "tanh": "bt.tanh(x)",
    "exp": "bt.exp(x)",
    "log": "bt.log(x)",
    "sqrt": "bt.sqrt(x)",
    "abs": "abs(x)",
    "argmax": "bt.argmax(x, axis=...)",
    "argmin": "bt.argmin(x, axis=...)",
    "argsort": "bt.argsort(x, axis=...)",
    "sort": "bt.sort(x, axis=...) (values only; indices: bt.argsort)",
    "topk": "bt.topk(x, k, axis=...)",
    "std": "bt.std(x, axis=..., correction=1)",
    "var": "bt.var(x, axis=..., correction=1)",
    "norm": "bt.linalg.vector_norm(x)",
    "cumsum": "bt.cumulative_sum(x, axis=...)",
    "prod": "bt.prod(x, axis=...)",
    "any": "bt.any(x)",
    "all": "bt.all(x)",
    "eq": "x == y",
    "data": "x.detach()",
    "grad_fn": "x.is_leaf, and repr(x) names the operation that made it",
    "split": "bt.split(x, sections, axis=...)",
    "chunk": "bt.split(x, sections, axis=...)",
    "unbind": "bt.unstack(x, axis=...)",
    "flip": "bt.flip(x, axis=...)",
    "roll": "bt.roll(x, shift, axis=...)",
    "swapaxes": "bt.permute_dims(x, axes)",
    "element_size": "x.dtype.itemsize",
    "copy": "x.clone()",
    "new_zeros": "bt.zeros(shape, dtype=x.dtype, device=x.device)",
    "new_ones": "bt.ones(shape, dtype=x.dtype, device=x.device)",
    "from_numpy": "bt.asarray(array)",
    "arctan2": "bt.atan2(x, y)",
    "cumprod": "bt.cumulative_prod(x, axis=...)",
    "scatter_add": "bt.put_along_axis(x, indices, values, axis=..., mode='add')",
    "index_add": "bt.put_along_axis(x, indices, values, axis=..., mode='add')",
    "index_fill": "bt.put_along_axis(x, indices, value, axis=...)",
    "rsqrt": "1 / bt.sqrt(x)",
    "square": "x * x",
    "sin": "bt.sin(x)",
    "cos": "bt.cos(x)",
    "sign": "bt.sign(x)",
    "round": "bt.round(x)",
    "floor": "bt.floor(x)",
    "ceil": "bt.ceil(x)",
    "isnan": "bt.isnan(x)",
    "isfinite": "bt.isfinite(x)",
    "logsumexp": "bt.logsumexp(x, axis=...)",
    "nonzero": "bt.nonzero(x)",
    "unique": "bt.unique_values(x)",
    "tril": "bt.tril(x, k=...)",
    "triu": "bt.triu(x, k=...)",
    "diagonal": "bt.linalg.diagonal(x)",
    "diag_embed": "bt.diag(x)",
    "movedim": "bt.moveaxis(x, source, destination)",
    "swapdims": "bt.permute_dims(x, axes)",
    "take_along_dim": "bt.take_along_axis(x, indices, axis=...)",
    "inverse": "bt.linalg.inv(x)",
    "det": "bt.linalg.det(x)",
    "cholesky": "bt.linalg.cholesky(x)",
    "hstack": "bt.concat([x, y], axis=1)",
    "vstack": "bt.concat([x, y], axis=0)",
    "amax": "bt.max(x, axis=...)",
    "amin": "bt.min(x, axis=...)",
    "ge": "x >= y",
    "gt": "x > y",
    "le": "x <= y",
    "lt": "x < y",
    "ne": "x != y",
    "is_cuda": "x.device.type == 'cuda'",
}

# Functions of the torch module that are written differently in the namespace.
NAMESPACE_SPELLINGS: dict[str, str] = {
    name: text
    for name, text in TORCH_SPELLINGS.items()
    if name not in ("data", "grad_fn", "type", "tanh", "exp", "log", "sqrt")
} | {
    "cat": "bt.concat([x, y], axis=0)",
    "FloatTensor": "bt.tensor(data, dtype=bt.float32)",
    "GradScaler": "bt.optim.GradScaler()",
    "amp": "bt.autocast(bt.float16) and bt.optim.GradScaler()",
    "LongTensor": "bt.tensor(data, dtype=bt.int64)",
    "rand": "bt.random.uniform(shape)",
    "randn": "bt.random.normal(shape)",
    "randint": "bt.random.integers(low, high, shape)",
    "save": "bt.weights.save_file(model.state_dict(), 'model.safetensors')",
    "autograd": "bt.grad(outputs, inputs), and @bt.op for an operation with a gradient of its own",
    "cuda": "bt.cuda_is_available(), and x.to('cuda')",
    "utils": "bt.data.DataLoader, bt.checkpoint, bt.optim.clip_grad_norm_, bt.nn.weight_norm",
    "set_default_device": "with bt.device('cuda'): ...",
    "is_tensor": "isinstance(x, bt.Tensor)",
    "load_state_dict": "model.load_state_dict(bt.weights.load(path))",
    "get_default_dtype": "bt.float32",
    "nan_to_num": "bt.where(bt.isnan(x), 0.0, x)",
}

# By the object that is asked: the names of its namesake in PyTorch.
SPELLINGS: dict[str, dict[str, str]] = {
    "Tensor": TORCH_SPELLINGS,
    "bestiary": NAMESPACE_SPELLINGS,
    "bestiary.linalg": {
        "lstsq": "bt.linalg.pinv(a) @ b",
        "norm": "bt.linalg.vector_norm(x), or bt.linalg.matrix_norm(x) for a matrix",
    },
    "bestiary.nn": {
        "relu": "bt.nn.ReLU() for the layer, bt.nn.functional.relu(x) for the function",
        "softmax": "bt.nn.Softmax(axis=-1) for the layer, bt.nn.functional.softmax(x, axis=-1)",
        "utils": (
            "bt.optim.clip_grad_norm_, bt.optim.clip_grad_value_, bt.nn.weight_norm, "
            "bt.nn.spectral_norm, bt.nn.parametrize"
        ),
    },
    "bestiary.optim": {"swa_utils": "bt.optim.EMA(model, decay=...)"},
    "bestiary.hub": {"load": "bt.load(name)", "list": "bt.list_models()"},
}

# What PyTorch has and this library has not, and how to do without.
ABSENT: dict[str, dict[str, str]] = {
    "bestiary": {
        "backends": "Leave it out: the kernels are chosen by themselves. A look: bestiary doctor",
        "distributed": "A model runs on one device: model.to('cuda')",
        "vmap": "Operations take batches: write it over the first axis.",
        "jit": "Leave it out: a model runs as it is. To keep one: model.state_dict() and its code.",
        "set_default_dtype": (
            "The default is float32. For another: bt.zeros(shape, dtype=bt.float64), "
            "x.astype(bt.float64), model.to(bt.float64)"
        ),
    },
    "bestiary.nn": {
        "DataParallel": "A model runs on one device: model.to('cuda')",
        "SyncBatchNorm": "A model runs on one device: bt.nn.BatchNorm2d(channels)",
        "Transformer": (
            "Build it of bt.nn.TransformerEncoder and, for a decoder, bt.nn.MultiheadAttention"
        ),
        "TransformerDecoder": "Build it of bt.nn.MultiheadAttention and bt.nn.ModuleList",
        "TransformerDecoderLayer": "Build it of bt.nn.MultiheadAttention and bt.nn.Linear",
        "parallel": "A model runs on one device: model.to('cuda')",
    },
    "bestiary.optim": {
        "LBFGS": "Use bt.optim.Adam, or give the values of bt.grad to scipy.optimize.minimize",
    },
}


def torch_spelling(name: str, owner: str, known: Iterable[str] = ()) -> AttributeError:
    """The error for an attribute that `owner` lacks, with our spelling when it is PyTorch's.

    `known` are names that it has, one of which may have been meant.
    """
    table, absent = SPELLINGS[owner], ABSENT.get(owner, {})
    if name in absent:
        return AttributeError(f"{owner} has no {name!r}, which PyTorch has. {absent[name]}")
    if name in table:
        return AttributeError(
            f"{owner} has no {name!r} (PyTorch's name). Here it is written: {table[name]}"
        )

    def words() -> str:
        near = nearest(name, [*known, *table])
        hint = f" Did you mean {near!r}?" if near else ""
        if near in table and near not in known:
            hint += f" Here it is written: {table[near]}"
        return f"{owner} has no attribute {name!r}.{hint}"

    return LateWords(words)


def answering(owner: str, known: Iterable[str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module that answers PyTorch's names."""

    def missing(name: str) -> Any:
        raise torch_spelling(name, owner, known)

    return missing


# PyTorch's keyword -> ours.
KEYWORDS: dict[str, str] = {
    "dim": "axis",
    "dims": "axis",
    "start_dim": "start_axis",
    "end_dim": "end_axis",
    "keepdim": "keepdims",
    "unbiased": "correction",
    "input": "x",
    "other": "x2",
    "tensors": "arrays",
    "num_workers": "workers",
    "collate_fn": "collate",
    "prefetch_factor": "prefetch",
    "worker_init_fn": "worker_init",
    "learning_rate": "lr",
    "persistent_workers": "persistent",
}

# Keywords of PyTorch that have no counterpart.
KEYWORDS_ABSENT: dict[str, str] = {
    "device_type": "Leave it out: operations run where their tensors are. {function}(bt.bfloat16)",
    "out": "Results are new tensors; to write one into another: bt.assign(y, x)",
    "preserve_rng_state": "Leave it out: random draws are always repeated.",
    "pretrained": "Leave it out: trained weights are loaded, unless weights=False.",
    "pin_memory": "Leave it out: DataLoader(..., device='cuda') moves batches ahead of their use.",
    "requires_grad": "Here it is written: {function}(...).requires_grad_()",
    "use_reentrant": "Leave it out: there is one way only, which is not reentrant.",
}


def keyword_error(function: str, keyword: str, known: Iterable[str]) -> TypeError:
    """The error for a keyword that a function lacks, with ours when it is PyTorch's."""
    known = [name for name in known if name != "self"]
    ours = KEYWORDS.get(keyword)
    if ours == "axis" and "axes" in known:
        ours = "axes"
    if ours in known:
        return TypeError(
            f"{function}() has no keyword {keyword!r} (PyTorch's name). "
            f"Here it is written: {ours}=..."
        )
    if keyword in KEYWORDS_ABSENT:
        return TypeError(
            f"{function}() has no keyword {keyword!r}, which PyTorch has. "
            + KEYWORDS_ABSENT[keyword].format(function=f"bt.{function}")
        )
    near = difflib.get_close_matches(keyword, known, n=1)
    hint = f"Did you mean {near[0]}=?" if near else f"It takes {', '.join(known) or 'none'}."
    return TypeError(f"{function}() has no keyword {keyword!r}. {hint}")


_KNOWN: dict[type, frozenset[str] | None] = {}  # by class; None: it takes any keyword


def check_keywords(cls: type, given: Iterable[str]) -> None:
    """Refuse keywords that the constructor of a class lacks, before Python does, with a hint."""
    if cls not in _KNOWN:
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        _KNOWN[cls] = None if any_keyword else frozenset(parameters)
    known = _KNOWN[cls]
    if known is not None and not known.issuperset(given):
        names = list(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]
        raise keyword_error(cls.__name__, next(k for k in given if k not in known), names)


def _shape_in_pieces(function: str, known: Sequence[str], given: Sequence[Any]) -> TypeError:
    """For `zeros(2, 3)`, and for `full(2, 3, value)`, whose last argument is no size."""
    rest = tuple(given[-1:]) if "fill_value" in known else ()
    sizes = ", ".join(map(repr, given[: len(given) - len(rest)]))
    written = ", ".join([f"({sizes})", *map(repr, rest)])
    return TypeError(
        f"{function}() takes the shape as one tuple. Here it is written: bt.{function}({written})"
    )


_UNEXPECTED = re.compile(r"^(.*)\(\) got an unexpected keyword argument '(\w+)'")


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """Let `function(dim=1)` raise an error that shows `axis=`, and `zeros(2, 3)` one that shows
    `zeros((2, 3))`.

    For public functions that are no `Op` (an Op does it by itself, at no cost).
    """
    code = inspect.unwrap(function).__code__
    first = next(iter(code.co_varnames), "")
    known = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if type(error) in (TypeError, AttributeError):
                better = _better(function, known, first, str(error), args, kwargs)
                if better is not None:
                    raise better from None
            drop_our_frames(error)
            raise

    return call


def _better(
    function: Callable[..., Any],
    known: tuple[str, ...],
    first: str,
    text: str,
    args: Sequence[Any],
    kwargs: Iterable[str],
) -> Exception | None:
    """A clearer error for what Python itself says of a call's arguments, if there is one."""
    name = function.__name__
    if text.startswith(f"{name}() takes "):
        if known[:1] == ("shape",):
            return _shape_in_pieces(name, known, args)
        if first == "arrays":
            return TypeError(
                f"{name}() takes the tensors as one list. Here it is written: bt.{name}([x, y])"
            )
    found = _UNEXPECTED.match(text)
    if found and found[2] in kwargs and found[2] not in known:
        if name == "__init__":
            name = function.__qualname__.rpartition(".")[0]
        return keyword_error(name, found[2], known)
    if args and is_foreign(args[0]) and f"{type(args[0]).__name__!r} object" in text:
        return no_tensor(name, args[0])
    return None
