"""Promptable masks: where the thing is that points or a box show, or everything in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.data.images import read_image
from ..core.errors import ConfigError, DataError
from ..core.insight.progress import progress
from ..core.nn import functional as F
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..hub.loading import Loaded
from .boxes import nms
from .detection_preprocess import DetectionPreprocess
from .image_task import Array, ImageTask, read_ahead
from .masks import Mask, draw_masks
from .transforms import Size

if TYPE_CHECKING:
    from PIL import Image

_TOGETHER = 64  # prompts that the decoder answers at a time
_STEADY = 1.0  # logits between which a mask should not change


class SeenPicture:
    """A picture that the network has looked at once, to be asked any number of times.

    Attributes:
        size: height and width in pixels; prompts and masks are in these.
    """

    def __init__(self, task: MaskGenerator, embedding: Array, size: Size) -> None:
        self.size = size
        self._task, self._embedding = task, embedding
        self._inside = task.preprocess.target(*size)

    def masks(
        self,
        points: Any = None,
        *,
        labels: Any = None,
        box: Any = None,
        mask: Mask | None = None,
        several: bool | None = None,
    ) -> list[Mask]:
        """Where the thing is that points, a box or both show: the best mask first.

        Args:
            points: x and y in pixels of each point, or of one.
            labels: 1 for a point on the thing and 0 for one beside it; all on it unless given.
            box: left, upper, right and lower edge around the thing.
            mask: an earlier answer, to be refined.
            several: whether all that could be meant is answered (a button, the coat, the person);
                unless given, for a single point only, which can mean several things.
        Raises:
            DataError: there is no prompt, or one lies outside of the picture or is none.
        """
        if points is None and box is None:
            raise DataError(
                "masks() wants points or a box:\n"
                "masks([(120, 80)]), masks(box=(10, 10, 200, 150)).\n"
                "For all things in the picture: everything()"
            )
        given: dict[str, Array] = {}
        if points is not None:
            places, kinds = self._points(points, labels)
            given |= {"input_points": places[None, None], "input_labels": kinds[None, None]}
        elif labels is not None:
            raise DataError("labels= says which points lie on the thing; there are no points=")
        if box is not None:
            given["input_boxes"] = self._boxes([box])[None]
        if mask is not None:
            given["input_masks"] = self._earlier(mask)
        if several is None:
            several = box is None and mask is None and given["input_points"].shape[2] == 1
        scores, logits = self._ask(given, several)
        found = [self._full(s, m) for s, m in zip(scores[0], logits[0], strict=True)]
        return sorted(found, key=lambda one: -one.score)

    def boxes(self, boxes: Any) -> list[Mask]:
        """One mask for each of several boxes, such as a detector finds.

        Raises:
            DataError: one of them is no box, or does not touch the picture.
        """
        corners = self._boxes(boxes)
        found: list[Mask] = []
        for start in range(0, len(corners), _TOGETHER):
            given = {"input_boxes": corners[None, start : start + _TOGETHER]}
            scores, logits = self._ask(given, several=False)
            found += [self._full(s[0], m[0]) for s, m in zip(scores, logits, strict=True)]
        return found

    def everything(
        self,
        *,
        points_per_side: int = 32,
        least_score: float = 0.88,
        least_stability: float = 0.95,
        overlap: float = 0.7,
    ) -> list[Mask]:
        """Masks of all things: the network is asked at each point of a grid.

        Args:
            points_per_side: of the grid.
            least_score: of a mask that is kept.
            least_stability: share of a mask's pixels that stay whether its edge is drawn a little
                further in or out.
            overlap: of the boxes of two masks, above which the one of less score is dropped.
        Raises:
            ConfigError: a number is out of its range.
        Source: Kirillov et al. 2023, section "Segment anything data engine", and transformers
            5.23, pipeline `mask-generation`.
        """
        _check_grid(points_per_side, least_score, least_stability, overlap)
        middle = (np.arange(points_per_side) + 0.5) / points_per_side
        x, y = np.meshgrid(middle * self.size[1], middle * self.size[0])
        places = self._scaled(np.stack([x.ravel(), y.ravel()], axis=-1))[:, None]  # (P, 1, 2)
        kept: list[Mask] = []
        with progress(total=len(places), what="masks", unit="points") as bar:
            for start in range(0, len(places), _TOGETHER):
                part = places[None, start : start + _TOGETHER]
                kinds = np.ones(part.shape[:3], np.int64)
                given = {"input_points": part, "input_labels": kinds}
                scores, logits = self._ask(given, several=True)
                flat = logits.reshape(-1, *logits.shape[2:])
                for score, low in zip(scores.ravel(), flat, strict=True):
                    if score > least_score or least_score == 0:
                        kept += self._stable(score, low, least_stability)
                bar.update(part.shape[1])
        if not kept:
            return []
        boxes = np.array([_reference_box(one) for one in kept], np.float32)
        scores = np.array([one.score for one in kept], np.float32)
        return [kept[i] for i in nms(boxes, scores, overlap)]

    # -- prompts ---------------------------------------------------------------------------

    def _scaled(self, places: Array) -> Array:
        """Pixels of the picture as pixels of the prepared picture."""
        (height, width), (inner_height, inner_width) = self.size, self._inside
        factor = np.array([inner_width / width, inner_height / height])
        return np.asarray(places * factor, np.float32)

    def _points(self, points: Any, labels: Any) -> tuple[Array, Array]:
        places = _numbers(points, "points", "(x, y) for each")
        places = places[None] if places.shape == (2,) else places
        if places.ndim != 2 or places.shape[1] != 2 or not len(places):
            raise DataError(f"points are (x, y) for each, got an array of shape {places.shape}")
        height, width = self.size
        outside = ((places < 0) | (places > (width, height))).any(1)
        if outside.any():
            x, y = places[outside.argmax()]
            raise DataError(
                f"the point ({x:g}, {y:g}) is outside of the picture, {width} x {height} pixels",
                got=(float(x), float(y)),
            )
        kinds = np.ones(len(places)) if labels is None else _numbers(labels, "labels", "0 or 1")
        kinds = kinds.reshape(-1)
        if kinds.shape != places.shape[:1] or not np.isin(kinds, (0, 1)).all():
            raise DataError(
                f"labels are 1 (on the thing) or 0 (beside it) for each of {len(places)} points, "
                f"got {labels!r}",
                got=labels,
            )
        return self._scaled(places), kinds.astype(np.int64)

    def _boxes(self, boxes: Any) -> Array:
        corners = _numbers(boxes, "boxes", "(left, upper, right, lower)")
        if corners.ndim != 2 or corners.shape[1] != 4 or not len(corners):
            raise DataError(
                "a box is (left, upper, right, lower) in pixels, got an array of shape "
                f"{corners.shape}"
            )
        height, width = self.size
        left, upper, right, lower = corners.T
        wrong = (right <= left) | (lower <= upper) | (right <= 0) | (lower <= 0)
        wrong |= (left >= width) | (upper >= height)
        if wrong.any():
            bad = tuple(float(v) for v in corners[wrong.argmax()])
            raise DataError(
                f"the box {bad} has no area in the picture, {width} x {height} pixels; a box is "
                "(left, upper, right, lower)",
                got=bad,
            )
        corners = np.clip(corners, 0, (width, height, width, height))
        return self._scaled(corners.reshape(-1, 2, 2)).reshape(-1, 4)

    def _earlier(self, mask: Mask) -> Array:
        if not isinstance(mask, Mask):
            raise DataError(
                f"mask= is an earlier answer, a Mask, got {type(mask).__name__}", got=type(mask)
            )
        side = 4 * self._task.config.grid
        if mask.logits.shape != (side, side):
            raise DataError(
                f"mask= has logits of {mask.logits.shape}, and this network's are of "
                f"({side}, {side}): it comes from another one",
                expected=(side, side),
                got=mask.logits.shape,
            )
        return mask.logits[None, None]

    # -- answers ---------------------------------------------------------------------------

    def _ask(self, given: dict[str, Array], several: bool) -> tuple[Array, Array]:
        """Scores (P, K) and logits (P, K, h, w)."""
        task = self._task
        with inference_mode():
            tensors = {
                name: Tensor(array).to(
                    device=task.device,
                    dtype=None if name == "input_labels" else task.module.dtype,
                )
                for name, array in given.items()
            }
            seen = Tensor(self._embedding).to(device=task.device, dtype=task.module.dtype)
            out = task.module(image_embeddings=seen, multimask_output=several, **tensors)
        scores, logits = out.iou_scores.cpu().array[0], out.pred_masks.cpu().array[0]
        return scores.astype(np.float32), logits.astype(np.float32)

    def _full(self, score: Any, logits: Array) -> Mask:
        return Mask(self._resized(logits) > 0, float(score), logits)

    def _resized(self, logits: Array) -> Array:
        """Logits at the size of the picture, without the padding.

        Source: transformers 5.23, `SamImageProcessor.post_process_masks`.
        """
        side = self._task.config.input_size
        with inference_mode():
            x = Tensor(logits[None, None])
            x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
            x = x[..., : self._inside[0], : self._inside[1]]
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return np.asarray(x.array[0, 0])

    def _stable(self, score: Any, logits: Array, least: float) -> list[Mask]:
        """The mask, unless its size hangs on where exactly its edge is drawn."""
        full = self._resized(logits)
        wide = np.count_nonzero(full > -_STEADY)
        steady = np.count_nonzero(full > _STEADY) / wide if wide else 0.0
        if least and not steady > least:
            return []
        return [Mask(full > 0, float(score), logits)]


class MaskGenerator(ImageTask):
    """Says where the thing is that one points at: `model("street.jpg", points=[(120, 80)])`."""

    task = "mask-generation"
    preprocess: DetectionPreprocess

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            architecture=loaded.architecture.name,
            config=loaded.config,
            preprocess=_preprocess_of(loaded),
            card=loaded.card,
            report=loaded.report,
        )

    def __call__(
        self,
        source: Any,
        points: Any = None,
        *,
        labels: Any = None,
        box: Any = None,
        several: bool | None = None,
        batch_size: int = 1,
        **everything: Any,
    ) -> Any:
        """The masks of what points or a box show, best first; of all things without a prompt.

        A picture is a path, bytes, an open binary file, a Pillow image or an array (H, W, 3).
        Of a list, tuple or array of pictures: a list of such answers to the same prompt. Of a
        folder: a dict from path to answer. Of a generator: an iterator. To ask several things of
        one picture, `see` it once.

        Args:
            points, labels, box, several: as in `SeenPicture.masks`.
            batch_size: how many pictures the network looks at together.
            everything: without a prompt, the settings of `SeenPicture.everything`.
        Raises:
            DataError: a picture cannot be read, or a prompt does not fit it.
        """
        prompted = points is not None or box is not None
        if prompted and everything:
            raise ConfigError(
                f"{', '.join(sorted(everything))} is for a picture without points= and box="
            )

        def asked(seen: SeenPicture) -> list[Mask]:
            if prompted or labels is not None:
                return seen.masks(points, labels=labels, box=box, several=several)
            return seen.everything(**everything)

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            return map(asked, self._seen(pictures, size, total))

        return self._for_each(source, answers, batch_size)

    def see(self, source: Any) -> SeenPicture:
        """A picture that was looked at once, which is nearly all of the work.

        Raises:
            DataError: it cannot be read.
        """
        return next(self._seen([source], 1, 1))

    def draw(
        self, source: Any, found: Sequence[Mask] | None = None, *, opacity: float = 0.55
    ) -> Image.Image:
        """A copy of a picture with a colour over each mask; of everything unless `found`."""
        image = read_image(source)
        return draw_masks(image, self(image) if found is None else found, opacity=opacity)

    def __repr__(self) -> str:
        side = self.config.input_size
        return f"MaskGenerator({self.card.name!r}, {side} x {side} pixels, on {self.device})"

    def _prepare(self, source: Any) -> tuple[Array, Size]:
        image = self.preprocess.picture(source)
        array = self.preprocess.padded([self.preprocess(image)]).pixel_values[0]
        return array, (image.height, image.width)

    def _seen(
        self, pictures: Iterable[Any], batch_size: int, total: int | None
    ) -> Iterator[SeenPicture]:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        with progress(total=total, what="looking", unit="pictures") as bar:
            for prepared in read_ahead(self._prepare, pictures, batch_size):
                arrays = [array for array, _ in prepared]
                found = self._grouped(self.module.embed_image, arrays)
                for embedding, (_, size) in zip(found, prepared, strict=True):
                    yield SeenPicture(self, embedding[None], size)
                    bar.update(1)


def _preprocess_of(loaded: Loaded) -> DetectionPreprocess:
    """As published, else as all published weights of SAM want it."""
    side = loaded.config.input_size
    if loaded.processor is not None:
        found = DetectionPreprocess.from_config(loaded.processor, "preprocessor_config.json")
    else:
        found = DetectionPreprocess(shortest=None, longest=side, pad=(side, side))
    if found.pad != (side, side):
        raise ConfigError(
            f"pictures are padded to {found.pad}, and the network sees {side} x {side} pixels",
            expected=(side, side),
            got=found.pad,
        )
    return found.with_channels(loaded.config.in_channels)


def _numbers(values: Any, name: str, wanted: str) -> Array:
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}= are numbers, {wanted}, got {values!r}", got=values) from error
    if not np.isfinite(found).all():
        raise DataError(f"{name}= has values that are not finite: {values!r}", got=values)
    return found


def _reference_box(one: Mask) -> tuple[int, int, int, int]:
    """Edges as the published way has them: the last row and column themselves."""
    left, upper, right, lower = one.box
    return left, upper, max(right - 1, left), max(lower - 1, upper)


def _check_grid(points: Any, *shares: float) -> None:
    if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= 256:
        raise ConfigError(f"points_per_side={points!r} must be a whole number from 1 to 256")
    for name, share in zip(("least_score", "least_stability", "overlap"), shares, strict=True):
        if not 0 <= share <= 1:
            raise ConfigError(f"{name}={share!r} must be from 0 to 1", got=share)
