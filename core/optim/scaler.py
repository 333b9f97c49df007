"""Loss scaling: keeps gradients in the range of float16."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..devices import Device, backend_for
from ..dtypes import HALVES
from ..errors import ConfigError, GradError
from ..node import Leaf
from ..op import op
from ..state import state, touching, watch
from ..tensor import Tensor
from .blocks import BLOCK
from .optimizer import Optimizer


# Declared with two outputs for "several": there is one for each gradient.
@op(raw=True, differentiable=False, outputs=2, writes=("overflow",))
def unscale_gradients(xp: Any, overflow: Tensor, scale: Tensor, *grads: Tensor) -> Any:
    """Every gradient divided by the scale; `overflow` becomes whether any is not finite."""
    factor = 1.0 / scale.item() if xp is np else 1.0 / scale
    with np.errstate(over="ignore"):
        results = tuple(g * (factor if xp is np else factor.astype(g.dtype)) for g in grads)
    if xp is np:
        overflow[...] = not all(map(_finite, results))
    else:
        overflow[...] = xp.logical_not(xp.stack([xp.isfinite(g).all() for g in results]).all())
    return results


def _finite(g: Any) -> bool:
    flat = g.reshape(-1)
    return all(np.isfinite(flat[i : i + BLOCK]).all() for i in range(0, flat.size, BLOCK))


@op(raw=True, differentiable=False, writes=("scale", "good"))
def update_scale(
    xp: Any,
    scale: Tensor,
    good: Tensor,
    *overflows: Tensor,
    growth: float,
    backoff: float,
    interval: int,
) -> None:
    """Lower the scale after an overflow; raise it after `interval` good steps."""
    overflow: Any = overflows[0]
    for other in overflows[1:]:
        overflow = overflow | other
    steps = good + 1
    grows = steps >= interval
    factor = xp.where(overflow, backoff, xp.where(grows, growth, 1.0))
    with np.errstate(over="ignore"):
        moved = (scale * factor).astype(scale.dtype)
    sound = xp.isfinite(moved) & (moved > 0)
    scale[...] = xp.where(sound, moved, scale)
    good[...] = xp.where(overflow | grows, 0, steps)


class GradScaler:
    """Multiplies the loss, so that small gradients do not vanish in float16.

    Gradients are divided by the same number before the update. Where one of them is infinite or
    not a number, the scale was too large: the update is left out and the scale lowered. After
    many good steps it is raised again. bfloat16 has the range of float32 and needs none of it.

        scaler = bt.optim.GradScaler()
        for x, y in loader:
            with bt.autocast(bt.float16):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)  # only needed for what reads gradients, such as clipping
            bt.optim.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()

    The scale lives beside the gradients and nothing is read back, so a recorded step follows it.

    Args:
        init_scale: the first scale; powers of 2 lose no digits.
        growth_factor: what the scale is multiplied by after `growth_interval` good steps.
        backoff_factor: what it is multiplied by after an overflow.
        growth_interval: how many good steps in a row raise it.
        enabled: False makes every method do what it would without scaling.

    Raises:
        ConfigError: settings that make no sense.
    Source: Micikevicius et al. 2018, "Mixed precision training".
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        settings: tuple[tuple[str, Any, str, float, float], ...] = (
            ("init_scale", init_scale, "a positive number", 0, math.inf),
            ("growth_factor", growth_factor, "a number above 1", 1, math.inf),
            ("backoff_factor", backoff_factor, "a number between 0 and 1", 0, 1),
            ("growth_interval", growth_interval, "a number of steps", 0, math.inf),
        )
        for name, value, wanted, low, high in settings:
            if type(value) not in (int, float) or not low < value < high:
                raise ConfigError(
                    f"GradScaler: {name} is {wanted}, got {value!r}", setting=name, got=value
                )
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval, self.enabled = growth_interval, enabled
        self._first = (float(init_scale), 0)
        self._scale: Tensor | None = None  # made on the device of the first loss
        self._good: Tensor | None = None  # good steps since the scale last changed
        self._overflows: weakref.WeakKeyDictionary[Optimizer, Tensor] = weakref.WeakKeyDictionary()
        self._done: dict[int, str] = {}  # how far each optimizer is in this step

    # -- a training step ---------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """The loss times the scale; of several losses (a list or a tuple) each."""
        if not self.enabled:
            return outputs
        if isinstance(outputs, (list, tuple)):
            return type(outputs)([self.scale(x) for x in outputs])
        state.loss_scaled = True
        return outputs * self._placed(outputs.device)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale; `step` does it otherwise.

        Each `.grad` is replaced by a new tensor, since gradients may share memory.

        Raises:
            GradError: they are unscaled already.
            ConfigError: parameters are of a half type, which has no room for unscaled gradients.
        """
        if not self.enabled:
            return
        if id(optimizer) in self._done:
            raise _out_of_order("unscale_", self._done[id(optimizer)])
        leaves = _with_gradients(optimizer)
        grads: list[Any] = [leaf.grad for leaf in leaves]
        device = grads[0].device if grads else self._device()
        scale = self._placed(device)
        overflow = self._overflows.get(optimizer)
        if overflow is None or overflow.device != device:
            overflow = Tensor(backend_for(device).xp.zeros((), bool))
            self._overflows[optimizer] = overflow
        if grads:
            for leaf, grad in zip(leaves, unscale_gradients(overflow, scale, *grads), strict=True):
                leaf.grad = grad
        self._done[id(optimizer)] = "unscale_"

    def step(self, optimizer: Optimizer) -> None:
        """Step the optimizer, unless a gradient is not finite.

        Raises:
            GradError: it has stepped already since the last `update`.
        """
        if not self.enabled:
            optimizer.step()
            return
        if self._done.get(id(optimizer)) == "step":
            raise _out_of_order("step", "step")
        if id(optimizer) not in self._done:
            self.unscale_(optimizer)
        optimizer.step(skip=self._overflows[optimizer])
        self._done[id(optimizer)] = "step"

    def update(self) -> None:
        """Adapt the scale; called once, after all optimizers have stepped.

        Raises:
            GradError: no optimizer has.
        """
        if not self.enabled:
            return
        overflows = [x for o, x in self._overflows.items() if id(o) in self._done]
        if not overflows:
            raise GradError(
                "GradScaler: update() before any gradients were unscaled.\n"
                "In this order: scaler.scale(loss).backward(); scaler.step(optimizer); "
                "scaler.update()"
            )
        self._done.clear()
        state.loss_scaled = False
        update_scale(
            self._placed(overflows[0].device),
            self._good,
            *overflows,
            growth=float(self.growth_factor),
            backoff=float(self.backoff_factor),
            interval=int(self.growth_interval),
        )

    def overflowed(self, optimizer: Optimizer) -> bool:
        """Whether the gradients that were last unscaled were not all finite (waits for a GPU)."""
        found = self._overflows.get(optimizer)
        return found is not None and bool(found.array.item())

    def get_scale(self) -> float:
        """The scale, as a number (waits for a GPU); 1 where scaling is not enabled."""
        if not self.enabled:
            return 1.0
        return self._first[0] if self._scale is None else float(self._scale.array.item())

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The scale, what moves it and how many steps were good, with torch's names."""
        if not self.enabled:
            return {}
        good = self._first[1] if self._good is None else int(self._good.array.item())
        return {
            "scale": self.get_scale(),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": good,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, here or in torch; an empty one changes nothing."""
        if not self.enabled or not state_dict:
            return
        for name in ("growth_factor", "backoff_factor", "growth_interval"):
            setattr(self, name, state_dict[name])
        self._first = (float(state_dict["scale"]), int(state_dict["_growth_tracker"]))
        if self._scale is not None and self._good is not None:
            self._scale.array[...], self._good.array[...] = self._first
        self._done.clear()

    def _device(self) -> Device:
        return Device("cpu") if self._scale is None else self._scale.device

    def _placed(self, device: Device) -> Tensor:
        if self._scale is None:
            xp = backend_for(device).xp
            self._scale = Tensor(xp.full((), self._first[0], np.float32))
            self._good = Tensor(xp.full((), self._first[1], np.int64))
        return self._scale


def _with_gradients(optimizer: Optimizer) -> list[Leaf]:
    found = []
    for group in optimizer.param_groups:
        for p in group.params:
            leaf = p._node
            if not isinstance(leaf, Leaf) or leaf.grad is None:
                continue
            if watch.count:
                touching(leaf)
            if p.dtype in HALVES:
                raise ConfigError(
                    f"GradScaler: a parameter of shape {p.shape} is {p.dtype}, in which unscaled "
                    "gradients vanish.\n"
                    "Keep parameters in float32, model.to(bt.float32), and let autocast convert "
                    "them: with bt.autocast(bt.float16): ...",
                    dtype=str(p.dtype),
                )
            found.append(leaf)
    return found


def _out_of_order(method: str, before: str) -> GradError:
    return GradError(
        f"GradScaler: {method}() after {before}() for one optimizer, without update() between.\n"
        "In this order, once a step: scaler.unscale_(optimizer) where gradients are clipped, "
        "scaler.step(optimizer), scaler.update()",
        method=method,
        before=before,
    )
