"""What operations, gradients and tensors say when they are used wrongly.

Each function makes the exception, and its caller raises it: so the code that decides stays short
where it is read, and the words stand together here.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from . import dtypes
from .callers import OUTSIDE, PACKAGE, user_line
from .devices import backend_of, device_of
from .errors import BestiaryError, DeviceError, DtypeError, GradError, ShapeError
from .foreign import is_foreign, no_tensor
from .notice import warn_once
from .state import state

if TYPE_CHECKING:
    from .node import Node
    from .op import Op
    from .tensor import Tensor


# -- calling an operation ----------------------------------------------------------------------


def label(op: Op[..., Any], position: int) -> str:
    """The name of an operand; those of a variadic one share theirs."""
    return op.operands[min(position, len(op.operands) - 1)]


def foreign_operand(op: Op[..., Any], operands: tuple[Any, ...]) -> DtypeError | None:
    """For a call that failed: the operand that is neither a tensor nor an array nor a number."""
    for i, x in enumerate(operands):
        name = label(op, i)
        if is_foreign(x) and not (x is None and name in op.optional):
            return no_tensor(op.name, x, name)
    return None


def devices_differ(op: Op[..., Any], operands: tuple[Any, ...], arrays: list[Any]) -> DeviceError:
    """Each operand and where it is."""
    places = []
    devices = set()
    for i, (x, a) in enumerate(zip(operands, arrays, strict=True)):
        if backend_of(a) is None:
            continue
        name = getattr(getattr(x, "_node", None), "name", None)
        where = str(device_of(a))
        devices.add(where)
        places.append(f"  {label(op, i)}{f' ({name})' if name else ''}: {where}")
    return DeviceError(
        f"{op.name}: the tensors are on different devices.\n"
        + "\n".join(places)
        + "\nMove the input to the model: x = x.to(model.device)"
        + "  (or the model to the input: model.to(x.device)).",
        devices=sorted(devices),
    )


def floats_differ(op: Op[..., Any], found: dict[dtypes.DType, str]) -> DtypeError:
    """Of operands that must agree; `found` names the first operand of each dtype."""
    listing = ", ".join(f"{name} is {d}" for d, name in found.items())
    hint = ""
    if dtypes.float64 in found:
        hint = "\nfloat64 usually comes from a NumPy array or a Python list made with NumPy."
    wanted = next(d for d in found if d != dtypes.float64)
    return DtypeError(
        f"{op.name}: floating dtypes differ: {listing}.{hint}\n"
        f"Convert the data: x = x.astype(bt.{wanted})",
        dtypes={name: str(d) for d, name in found.items()},
    )


def integers_given(op: Op[..., Any], got: dtypes.DType, wanted: dtypes.DType) -> DtypeError:
    """The first operand, features or pictures, holds integers and the weights are floats."""
    name, other = label(op, 0), f"bt.{wanted}"
    return DtypeError(
        f"{op.name}: {name} is {got}, the other operands are {wanted}.\n"
        f"Pixels from 0 to 255? {name} = {name}.astype({other}) / 255\n"
        f"Other numbers? {name} = {name}.astype({other})\n"
        "Ids of tokens or categories? nn.Embedding makes features of them.",
        got=str(got),
        expected=str(wanted),
    )


def clearer(
    op: Op[..., Any], error: Exception, operands: tuple[Any, ...], constants: dict[str, Any]
) -> Exception:
    """The error of a kernel, with the operation's name and what it was given."""
    if isinstance(error, BestiaryError):
        return error
    if op.explain is not None:
        better = op.explain(error, operands, constants)
        if better is not None:
            return better
    if op.promote and _BROADCAST in str(error):
        unequal = unequal_shapes(op, operands)
        if unequal is not None:
            return unequal
    shapes = [
        f"  {label(op, i)}: {tuple(x.shape)} {x.dtype}"
        for i, x in enumerate(operands)
        if hasattr(x, "shape")
    ]
    text = f"{op.name}: {error}\n" + "\n".join(shapes)
    if isinstance(error, ValueError):
        kept = [tuple(x.shape) for x in operands if hasattr(x, "shape")]
        return ShapeError(text, shapes=kept)
    if isinstance(error, TypeError):
        return DtypeError(text)
    error.add_note(f"in bestiary's {text}")
    return error


_BROADCAST = "could not be broadcast together with shapes"  # NumPy's words, and CuPy's


def unequal_shapes(op: Op[..., Any], operands: tuple[Any, ...]) -> ShapeError | None:
    """Operands of an elementwise operation that do not fit, and the last axis where they differ."""
    found = {label(op, i): tuple(x.shape) for i, x in enumerate(operands) if hasattr(x, "shape")}
    for axis in range(-1, -max(map(len, found.values()), default=0) - 1, -1):
        sizes = {name: shape[axis] for name, shape in found.items() if len(shape) >= -axis}
        differing = {name: size for name, size in sizes.items() if size != 1}
        if len(set(differing.values())) > 1:
            break
    else:
        return None
    listing = "\n".join(
        f"  {name}: {marked(shape, axis) if name in sizes else shape}"
        for name, shape in found.items()
    )
    first = next(iter(differing))
    second = next(name for name in differing if differing[name] != differing[first])
    return ShapeError(
        f"{op.name}: the marked sizes, of axis {axis}, must be equal, or one of them 1:\n"
        f"{listing}\n{_fit(first, found[first], second, found[second], axis)}",
        axis=axis,
        shapes=list(found.values()),
    )


def unequal_stacks(first: tuple[int, ...], second: tuple[int, ...]) -> ShapeError | None:
    """Of a product of matrices: the last of the axes before them that does not fit."""
    for axis in range(-3, -min(len(first), len(second)) - 1, -1):
        sizes = first[axis], second[axis]
        if sizes[0] != sizes[1] and 1 not in sizes:
            break
    else:
        return None
    hint = "Every matrix with every one? x1[:, None] @ x2[None]"
    if (len(first), len(second)) != (3, 3):
        hint = "Axes before the last two count matrices, and broadcast."
    return ShapeError(
        f"matmul: the marked sizes, of axis {axis}, must be equal, or one of them 1:\n"
        f"  x1 {marked(first, axis)}\n  x2 {marked(second, axis)}\n{hint}",
        axis=axis,
        shapes=[first, second],
    )


def marked(shape: tuple[int, ...], axis: int) -> str:
    """A shape with one size pointed at: (2, >3<)."""
    sizes = [f">{n}<" if i == axis % len(shape) else str(n) for i, n in enumerate(shape)]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _fit(
    first: str, shape1: tuple[int, ...], second: str, shape2: tuple[int, ...], axis: int
) -> str:
    """What to write so that two shapes fit, as far as they tell."""
    if sorted(shape1) == sorted(shape2) and len(shape1) == 2:
        return f"Is one of them transposed? {second}.mT"
    # Per sample or per channel, where the axis is not the last: (8, 3) with (8,).
    pairs = ((first, shape1, second, shape2), (second, shape2, first, shape1))
    for _, long, name, short in pairs:
        for more in range(1, len(long) - len(short) + 1):
            if _agree(long, short + (1,) * more):
                return f"Meant for an earlier axis? {name}[..., {', '.join(['None'] * more)}]"
    if math.prod(shape1) == math.prod(shape2):
        return f"The same values in another shape? {second}.reshape({first}.shape)"
    size1, size2 = shape1[axis], shape2[axis]
    longer, size = (first, size2) if size1 > size2 else (second, size1)
    after = ", :" * (-axis - 1)
    return f"Too many of them? {longer}[..., :{size}{after}]"


def _agree(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape1), reversed(shape2), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


# -- asking for gradients ----------------------------------------------------------------------


def no_graph(out: Tensor) -> GradError:
    """A gradient is asked for, and nothing was recorded."""
    if not state.grad_enabled:
        cause = "it was computed under no_grad or inference_mode: move the computation outside."
    else:
        cause = (
            "none of the tensors it was made from needs a gradient.\n"
            "  All parameters frozen? model.requires_grad_(True)\n"
            "  Computed under no_grad? Move it outside.\n"
            "  Went through .item(), .numpy() or float()? These cut the graph; keep tensors."
        )
    return GradError(
        f"backward: this tensor of shape {out.shape} has no graph: {cause}", shape=out.shape
    )


def no_single_value(out: Tensor) -> GradError:
    """A gradient is asked for, and where it starts is not said."""
    return GradError(
        f"backward: the result has shape {out.shape}, {out.size} values, and a "
        "gradient starts from one.\nReduce it first: loss.mean().backward()\n"
        f"or give the gradient: loss.backward(bt.ones({out.shape}))",
        shape=out.shape,
    )


def no_rule(op: Op[..., Any]) -> GradError:
    """A gradient is asked for through an operation that has none."""
    return GradError(
        f"{op.name} has no gradient.\nIf none is wanted, detach its input: x.detach()",
        op=op.name,
    )


def graph_freed(node: Node) -> GradError:
    """A second backward pass over a graph that was not kept."""
    return GradError(
        f"backward: the graph was freed by an earlier backward (at {node.op.name}, "
        f"{user_line(node.code, node.lasti)}).\n"
        "A value carried through a loop? Cut it: state = state.detach()\n"
        "Two losses that share a graph? Add them: (loss1 + loss2).backward()\n"
        "The same graph again? Keep it: loss.backward(retain_graph=True)",
        op=node.op.name,
    )


def written_since(node: Node, cell: list[Any]) -> GradError:
    """Of a saved value; `cell` holds its version and where it was last written."""
    written = user_line(*cell[1]) if cell[1] is not None else "an unknown line"
    saved_at = user_line(node.code, node.lasti)
    return GradError(
        f"backward: a value that {node.op.name} needs was changed in place.\n"
        f"  {node.op.name} saved it at {saved_at}\n"
        f"  it was written at {written}\n"
        "Make a new tensor instead of writing: x = bt.where(mask, value, x), "
        "or write to a copy: y = x.clone(); y[i] = v",
        op=node.op.name,
        saved_at=saved_at,
        written_at=written,
    )


def warn_of_forgotten_zero_grad(step: int) -> None:
    """Once: a gradient is added to one that an optimizer has used."""
    warn_once(
        "zero_grad",
        f"after optimizer step {step}, backward adds to gradients that this step used already.\n"
        "Clear them once a step: optimizer.zero_grad() before loss.backward()",
    )


PREDICTION = "train_mode"


def warn_of_prediction(x: Tensor) -> None:
    """Once: a value is read that a layer in training mode made without gradients.

    A result with a graph is a loss on its way to `backward`; what the library reads for itself
    is no prediction.
    """
    if state.noisy is None or x._node is not None:
        return
    frame = sys._getframe(1)
    reader = frame.f_code.co_filename  # the file of Tensor, some of whose methods call others
    while frame.f_back is not None and frame.f_code.co_filename == reader:
        frame = frame.f_back
    caller = frame.f_code.co_filename
    if caller.startswith(PACKAGE) and not caller.startswith(OUTSIDE):
        return
    layer, line = state.noisy
    state.noisy = None
    warn_once(
        PREDICTION,
        f"{layer} ran in training mode at {line} while no gradients were recorded, and results "
        "are read here: they are noisy or depend on the rest of the batch.\n"
        "Predicting? model.eval() before, model.train() after.\n"
        "On purpose? warnings.filterwarnings('ignore', category=bt.nn.TrainingWarning)",
    )


# -- using a tensor ----------------------------------------------------------------------------


def not_for_numpy(x: Tensor, on_device: bool) -> GradError:
    """A tensor with a graph, or of a GPU, is to become a NumPy array."""
    steps, reasons = [], []
    if x._node is not None:
        steps.append(".detach()")
        reasons.append("it takes part in a gradient, which NumPy would not see")
    if on_device:
        steps.append(".cpu()")
        reasons.append(f"it is on {x.device}")
    return GradError(
        f"this tensor cannot become a NumPy array: {' and '.join(reasons)}.\n"
        f"Write: x{''.join(steps)}.numpy()",
        steps=steps,
    )


def no_gradient_for(dtype: dtypes.DType) -> GradError:
    """Integers and booleans cannot require gradients."""
    return GradError(
        f"a tensor of {dtype} can have no gradient.\n"
        "Convert it: x.astype(bt.float32).requires_grad_()",
        dtype=str(dtype),
    )


def write_to_leaf(x: Tensor) -> GradError:
    """`x[i] = v` on a parameter or another leaf."""
    return GradError(
        "x[i] = v on a leaf that needs gradients would change what gradients refer to.\n"
        "A training step? Use an optimizer, or bt.assign(x, value) to overwrite it all.\n"
        "Other initial values? y = x.detach().clone(); y[i] = v; bt.assign(x, y)\n"
        "Part of the computation? Write to a copy: y = x.clone(); y[i] = v",
        shape=x.shape,
    )


def write_to_view(x: Tensor) -> GradError:
    """`x[i] = v` on a part of another tensor."""
    return GradError(
        "x[i] = v on the result of indexing, reshape or transpose: whether it shares "
        "memory depends on the layout.\n"
        "Write to the tensor itself with one index: x[0, 1] = v instead of x[0][1] = v,\n"
        "or to a copy: y = x[0].clone(); y[1] = v",
        shape=x.shape,
    )
