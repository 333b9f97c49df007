"""Where in a picture a classifier looks: Grad-CAM and attention, as a map of the picture.

Convolutional networks, and Swin: Grad-CAM on the map that `forward_features` gives.
Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks".

Vision transformers: attention followed back through all layers, weighted by what it does to the
score of the label (Chefer et al. 2021, "Generic Attention-model Explainability"), or, as "rollout",
as it is for any label (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers").
Deviation from both: the tokens to begin at are not taken to be the class token; they are those on
which the score depends, so that networks that take a mean of their patches are explained as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.autograd import grad
from ..core.errors import ConfigError
from ..core.nn import Module
from ..core.state import enable_grad, no_grad, observing, state
from ..core.tensor import Tensor
from .image_task import Array, softmax
from .transformer import Attention
from .transforms import CenterCrop, Resize

if TYPE_CHECKING:
    from PIL import Image

    from .tasks import ImageClassifier

METHODS = ("grad-cam", "attention", "rollout")

# From little to much, for pictures of any colour. The last is where the label was seen.
_RAMP = np.array(
    [(62, 38, 168), (178, 42, 144), (233, 92, 71), (252, 166, 54), (252, 236, 100)], np.float32
)


@dataclass(frozen=True)
class Explanation:
    """Where a classifier saw a label.

    Attributes:
        map: how much each pixel of the picture counted, float32 (H, W) from 0 to 1. The picture is
            upright and of its own size; what the network was not shown is 0.
        label: the label explained, and `score`, its probability.
        image: the picture, a Pillow image.
        method: one of "grad-cam", "attention", "rollout".
    """

    map: Array
    label: str
    score: float
    image: Image.Image
    method: str

    def draw(self, opacity: float = 0.7) -> Image.Image:
        """The picture, paler, with its map over it: violet for little, yellow for most.

        Args:
            opacity: 0 leaves the picture as it is; 1 is the map over a grey picture.
        Raises:
            ConfigError: `opacity` is not from 0 to 1.
        """
        from PIL import Image

        if not 0 <= opacity <= 1:
            raise ConfigError(f"opacity lies from 0 to 1, got {opacity}", got=opacity)
        steps = np.linspace(0, 1, len(_RAMP))
        colours = np.stack([np.interp(self.map, steps, _RAMP[:, c]) for c in range(3)], axis=-1)
        pixels, grey = (np.asarray(self.image.convert(mode), np.float32) for mode in ("RGB", "L"))
        pixels = pixels * (1 - opacity) + grey[..., None] * opacity
        share = (opacity * self.map)[..., None]
        mixed = pixels * (1 - share) + colours.astype(np.float32) * share
        return Image.fromarray(np.rint(mixed).astype(np.uint8))

    def __repr__(self) -> str:
        height, width = self.map.shape
        return f"Explanation({self.label!r}, {self.score:.3f}, {height} x {width}, {self.method})"


def explain(
    task: ImageClassifier, source: Any, label: int | str | None = None, method: str | None = None
) -> Explanation:
    """Where a classifier sees a label in a picture; `ImageClassifier.explain` documents it."""
    from ..core.data.images import read_image

    if state.inference:
        raise ConfigError(
            "explain needs gradients, and inference_mode() rules them out.\n"
            "Call it outside of the `with` block."
        )
    number = None if label is None else task.number_of(label)
    function = _function(task, method)
    image = read_image(source)
    batch = Tensor(task.preprocess(image)[None]).to(device=task.device, dtype=task.module.dtype)
    with _evaluating(task.module), enable_grad():
        answer = function(task, batch, number)
    height, width = answer.covered
    placed = _placed(answer.map, task, (image.height, image.width), (height, width))
    highest = placed.max()
    scores = softmax(answer.logits)
    return Explanation(
        map=np.clip(placed / highest, 0, 1) if highest > 0 else placed,
        label=task.labels[answer.number],
        score=float(scores[answer.number]),
        image=image,
        method=function.__name__.strip("_").replace("_", "-"),
    )


@dataclass(frozen=True)
class _Answer:
    map: Array  # (rows, columns), not negative
    covered: tuple[int, int]  # the pixels of the network's input that the map stands for
    logits: Array
    number: int


_Function = Callable[["ImageClassifier", Tensor, "int | None"], _Answer]


def _function(task: ImageClassifier, method: str | None) -> _Function:
    if method is None:
        parts = task.module.modules()
        method = "attention" if any(isinstance(m, Attention) for m in parts) else "grad-cam"
    if method not in METHODS:
        raise ConfigError(
            f"method={method!r} is none of {', '.join(METHODS)}.", got=method, expected=METHODS
        )
    return {"grad-cam": _grad_cam, "attention": _attention, "rollout": _rollout}[method]


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    """Every part in evaluation mode, and afterwards as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _chosen(logits: Tensor, number: int | None) -> tuple[Tensor, Array, int]:
    """The score to explain, all scores, and the number of the label."""
    values = _array(logits)[0]
    number = int(values.argmax()) if number is None else number
    return logits[0, number], values, number


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().array, np.float32)


# -- Grad-CAM ----------------------------------------------------------------------------------


def _grad_cam(task: ImageClassifier, batch: Tensor, number: int | None) -> _Answer:
    """Features weighted by the mean of the score's gradient over all places."""
    features = getattr(task.module, "forward_features", None)
    if features is None:
        raise _no_features(task)
    seen: list[Tensor] = []

    def recorded(x: Tensor) -> Tensor:
        with no_grad():
            found = features(x)
        seen.append(found.detach().requires_grad_())
        return seen[-1]

    # A shallow copy: other threads may use the network meanwhile.
    view = copy.copy(task.module)
    view.__dict__["forward_features"] = recorded
    score, logits, number = _chosen(view(batch), number)
    if len(seen) != 1 or seen[0].ndim != 4:
        raise _no_features(task)
    gradient = grad(score, seen[0], allow_unused=True)
    maps = _array(seen[0])[0]
    weights = np.zeros(len(maps)) if gradient is None else _array(gradient)[0].mean(axis=(1, 2))
    heat = np.maximum(np.tensordot(weights, maps, 1), 0)
    return _Answer(heat, (batch.shape[2], batch.shape[3]), logits, number)


def _no_features(task: ImageClassifier) -> ConfigError:
    return ConfigError(
        f"{task.architecture} ({type(task.module).__name__}) has no feature map to explain its "
        "answer by:\nforward must call forward_features, once, and that gives (B, C, H, W)."
        "\nA vision transformer is explained with method='attention'.",
        architecture=task.architecture,
    )


# -- attention ---------------------------------------------------------------------------------


def _attention(task: ImageClassifier, batch: Tensor, number: int | None) -> _Answer:
    """What attention brought to the tokens that the score depends on, helpful attention only."""
    layers, used, answer = _attentions(task, batch, number)
    relevance = np.eye(len(used), dtype=np.float32)
    for weights, gradient in layers:
        relevance += np.maximum(weights * gradient, 0).mean(axis=0) @ relevance
    return answer(used @ (relevance - np.eye(len(used), dtype=np.float32)))


def _rollout(task: ImageClassifier, batch: Tensor, number: int | None) -> _Answer:
    """Attention of all layers multiplied; half of each token is what it was before."""
    layers, used, answer = _attentions(task, batch, number)
    flow = np.eye(len(used), dtype=np.float32)
    for weights, _ in layers:
        flow = 0.5 * (flow + weights.mean(axis=0) @ flow)
    return answer(used @ flow)


_Layers = list[tuple[Array, Array]]


def _attentions(
    task: ImageClassifier, batch: Tensor, number: int | None
) -> tuple[_Layers, Array, Callable[[Array], _Answer]]:
    """Attention of each layer with the score's gradient for it; which tokens the score uses.

    Shape:
        (heads, T, T) twice for each layer; (T,)
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Tensor]] = []

    def watch(op: Any, operands: Any, constants: Any, run: Callable[[], Any]) -> Any:
        result = run()
        if op.name == "attention":
            calls.append((operands, constants, result[0]))
        return result

    with observing(watch):
        score, logits, number = _chosen(task.module(batch.requires_grad_()), number)
    patch = getattr(task.config, "patch_size", None)
    rows, columns = (batch.shape[2] // patch[0], batch.shape[3] // patch[1]) if patch else (0, 0)
    shapes = {call[2].shape[-2] for call in calls}
    prefix = max(shapes, default=0) - rows * columns
    if (
        patch is None
        or len(shapes) != 1
        or prefix < 0
        or any(len(c[2]) != 1 or c[0][3] is not None for c in calls)
    ):
        raise ConfigError(
            f"{task.architecture} has no attention between all patches of a picture to explain "
            "its answer by.\nA convolutional network or Swin is explained with method='grad-cam'.",
            architecture=task.architecture,
        )
    gradients = grad(score, [call[2] for call in calls], allow_unused=True)
    layers = []
    for (operands, constants, out), gradient in zip(calls, gradients, strict=True):
        q, k, v = (_array(x)[0] for x in operands[:3])
        back = np.zeros(out.shape[1:], np.float32) if gradient is None else _array(gradient)[0]
        weights = softmax(constants["scale"] * q @ k.swapaxes(-1, -2))
        layers.append((weights, back @ v.swapaxes(-1, -2)))
    # `back` is now of the last layer. After it, tokens no longer mix.
    used = np.sqrt((back**2).sum(axis=(0, 2)))
    used /= max(float(used.sum()), np.finfo(np.float32).tiny)

    def answer(tokens: Array) -> _Answer:
        heat = tokens[prefix:].reshape(rows, columns)
        return _Answer(heat, (rows * patch[0], columns * patch[1]), logits, number)

    return layers, used, answer


# -- back to the picture -----------------------------------------------------------------------


def _placed(
    heat: Array, task: ImageClassifier, size: tuple[int, int], covered: tuple[int, int]
) -> Array:
    """A map of the network's input as one of the picture that was resized and cropped for it."""
    resized, starts, seen = size, (0, 0), None
    for step in task.preprocess.geometry():
        if isinstance(step, Resize):
            resized = step.target(*size)
        elif isinstance(step, CenterCrop):
            starts, seen = step.starts(*resized), task.preprocess.size
    seen = seen or resized
    rows, columns = (
        _axis(heat.shape[i], size[i], resized[i], starts[i], seen[i], covered[i]) for i in (0, 1)
    )
    return np.asarray(rows @ heat.astype(np.float32) @ columns.T)


def _axis(cells: int, length: int, resized: int, start: int, seen: int, covered: int) -> Array:
    """The matrix (length, cells) that interpolates linearly along an axis; 0 where unseen."""
    at = (np.arange(length) + 0.5) * (resized / length) - start  # in pixels of the input
    place = np.clip(at * (cells / covered) - 0.5, 0, cells - 1)
    low = np.floor(place).astype(np.int64)
    part = place - low
    matrix = np.zeros((length, cells), np.float32)
    every = np.arange(length)
    matrix[every, low] = 1 - part
    matrix[every, np.minimum(low + 1, cells - 1)] += part
    matrix[(at < 0) | (at > seen)] = 0
    return matrix
