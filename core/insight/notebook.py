"""What notebooks show: tensors, modules and tasks as HTML, escaped and of bounded size."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .tables import escaped, html_block, html_table

if TYPE_CHECKING:
    from ..nn import Module
    from ..tensor import Tensor

_EDGE = 4  # rows and columns at each end of a table of values
_SIDE = 160  # pixels of a picture, at most
_LEAST = 16  # pixels below which nothing is taken for a picture
_PICTURES = 8  # of a batch
_NODES = 300  # modules of a tree
_LABELS = 12


# -- tensors -----------------------------------------------------------------------------------


def tensor_html(x: Tensor) -> str:
    """Shape, dtype and device, the values at the corners, and a picture if it looks like one."""
    facts = [f"shape {x.shape}", x.dtype.name, str(x.device)]
    if x.requires_grad:
        facts.append("needs gradients" if x.is_leaf else f"made by {x._node.op.name}")  # type: ignore[union-attr]
    parts = []
    pictures = _pictures(x)
    if pictures:
        parts.append(f"<div>{''.join(map(_image, pictures))}</div>")
    elif x.size:
        parts.append(_values(x.array))
    return html_block(f"Tensor: {', '.join(facts)}", *parts)


def _values(array: Any) -> str:
    """The first matrix of an array: its corners."""
    place = (0,) * max(array.ndim - 2, 0)
    matrix = array[place]
    shape = (1, 1) if matrix.ndim == 0 else matrix.shape if matrix.ndim == 2 else (1, *matrix.shape)
    matrix = matrix.reshape(shape)
    rows, columns = _ends(shape[0]), _ends(shape[1])
    small = _host(matrix[[i for i in rows if i is not None]])
    small = small[:, [j for j in columns if j is not None]]
    table, at = [], iter(small)
    for i in rows:
        if i is None:
            table.append([""] + ["⋮"] * len(columns))
            continue
        values = iter(next(at).tolist())
        table.append(
            [str(i) if array.ndim > 1 else ""]
            + ["…" if j is None else _number(next(values)) for j in columns]
        )
    head = ["", *("…" if j is None else str(j) for j in columns)]
    caption = f"[{', '.join('0' for _ in place)}, :, :]" if place else ""
    return html_table(head, table, caption=caption, left=0)


def _ends(count: int) -> list[int | None]:
    """Numbers of the first and the last rows; None for those between."""
    if count <= 2 * _EDGE + 1:
        return list(range(count))
    return [*range(_EDGE), None, *range(count - _EDGE, count)]


def _number(value: Any) -> str:
    if isinstance(value, (bool, int, complex)):
        return str(value)
    return f"{value:.4g}"


def _host(array: Any) -> Any:
    array = array if isinstance(array, np.ndarray) else array.get()
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _pictures(x: Tensor) -> list[Any]:
    """Arrays (H, W) or (H, W, 3) of bytes, if a tensor looks like one picture or a batch of them.

    That is (C, H, W) or (B, C, H, W) of 1 or 3 channels and at least 16 pixels a side, of bytes
    or of floats from 0 to 1 that are not all alike.
    """
    array = x.array
    if array.ndim not in (3, 4) or array.shape[-3] not in (1, 3) or not x.size:
        return []
    if min(array.shape[-2:]) < _LEAST or (array.dtype != np.uint8 and array.dtype.kind not in "fV"):
        return []
    batch = array[None] if array.ndim == 3 else array[:_PICTURES]
    every = max(1, max(array.shape[-2:]) // _SIDE)
    batch = _host(batch[..., ::every, ::every])
    low, high = float(batch.min()), float(batch.max())
    if not low < high or (array.dtype != np.uint8 and not (low >= 0 and high <= 1)):
        return []
    if array.dtype != np.uint8:
        batch = np.rint(batch.astype(np.float32) * 255).astype(np.uint8)
    return [np.moveaxis(one, 0, -1).squeeze(-1) if one.shape[0] == 1 else np.moveaxis(one, 0, -1)
            for one in batch]  # fmt: skip


def _image(pixels: Any) -> str:
    from PIL import Image

    from .charts import png

    data = base64.b64encode(png(Image.fromarray(np.ascontiguousarray(pixels)))).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" style="margin:2px" alt="picture">'


# -- modules -----------------------------------------------------------------------------------


def module_html(module: Module) -> str:
    """The tree of a module: settings and parameters of each layer, to be unfolded."""
    left = [_NODES]
    return f"<div>{''.join(_branch('', module, 0, left))}</div>"


def _branch(name: str, module: Module, depth: int, left: list[int]) -> Iterator[str]:
    if left[0] <= 0:
        if left[0] == 0:
            yield "<div>…</div>"
        left[0] = -1
        return
    left[0] -= 1
    children = list(module.named_children())
    count = sum(p.size for p in module.parameters())
    said = module.extra_repr()
    text = f"{name}: " if name else ""
    text += type(module).__name__ + (f"({said})" if said else "")
    numbers = f" · {count:,}" if count else ""
    line = f"{escaped(text)}<small>{numbers}</small>"
    if not children:
        yield f'<div style="margin-left:1em">{line}</div>'
        return
    shown = " open" if depth == 0 else ""
    yield f'<details style="margin-left:1em"{shown}><summary>{line}</summary>'
    for inner, child in children:
        yield from _branch(inner, child, depth + 1, left)
    yield "</details>"


# -- tasks -------------------------------------------------------------------------------------


def task_html(task: Any) -> str:
    """What a task is: model, licence, labels, preparation of its inputs, and the network."""
    card = getattr(task, "card", None)
    rows: list[tuple[str, Any]] = [("task", getattr(task, "task", ""))]
    for name in ("architecture", "license", "data", "note"):
        rows.append((name, getattr(card, name, None)))
    rows += [
        (f"result: {r.get('name', '')}", f"{r.get('value', '')} {r.get('dataset', '')}".strip())
        for r in getattr(card, "results", [])[:3]
    ]
    network = getattr(task, "module", None)
    if network is not None:
        count = sum(p.size for p in network.parameters())
        rows.append(("network", f"{count:,} parameters, {network.dtype}, on {network.device}"))
    labels = getattr(task, "labels", None)
    if isinstance(labels, (list, tuple)) and labels:
        more = ", …" if len(labels) > _LABELS else ""
        rows.append(("labels", f"{len(labels)}: {', '.join(map(str, labels[:_LABELS]))}{more}"))
    for name in ("preprocess", "tokenizer", "scheduler"):
        part = getattr(task, name, None)
        if part is not None:
            rows.append((name, repr(part)))
    known = [(name, value) for name, value in rows if value]
    tree = ""
    if network is not None:
        tree = f"<details><summary>network</summary>{module_html(network)}</details>"
    title = f"{type(task).__name__} {getattr(card, 'name', '')}"
    return html_block(title, html_table(("", ""), known, left=2), tree)


def agent_html(agent: Any) -> str:
    """What an agent is: its spaces, how far it has learned, settings, and its networks."""
    rows: list[tuple[str, Any]] = [
        ("observations", agent.observation_space),
        ("actions", agent.action_space),
        ("steps", f"{agent.steps:,}"),
    ]
    if agent.returns:
        mean = f"{np.mean(agent.returns):.4g}, of the last {len(agent.returns)} episodes"
        rows.append(("mean return", mean))
    settings = [(name, value) for name, value in vars(agent.settings).items()]
    networks = [
        f"<details><summary>{escaped(name)}</summary>{module_html(network)}</details>"
        for name, network in agent.modules().items()
    ]
    table = html_table(("", ""), settings, left=2)
    inner = f"<details><summary>settings</summary>{table}</details>"
    return html_block(agent.name, html_table(("", ""), rows, left=2), inner, *networks)
