"""Learning-rate schedules: call `schedule.step()` after each epoch, or each optimizer step.

Each is a function of the step count and a group's initial rate, so a schedule can be joined
with others (`SequentialLR`), resumed, and asked for its rate at any step. Several schedules of one
optimizer multiply: each contributes its share of the initial rate. All are in this one file, as
in torch: each is a formula with its checks.
"""

from __future__ import annotations

import math
import weakref
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from .optimizer import Optimizer


class LRScheduler:
    """Base of the schedules: a subclass gives the rate at a step in `rate`.

    Args:
        optimizer: its groups' initial rates are kept in `group["initial_lr"]`.
        last_epoch: the step at which to go on; -1 starts.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"a schedule takes an optimizer, got {type(optimizer).__name__}", got=optimizer
            )
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ConfigError(
                    f"last_epoch={last_epoch} goes on with a schedule, and the optimizer knows no "
                    "initial rates.\nLoad its state first: optimizer.load_state_dict(...)"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._join(last_epoch >= 0)
        self.step()

    def rate(self, step: int, base: float, group: int = 0) -> float:
        """The rate after `step` steps of a group whose initial rate is `base`."""
        raise TypeError(f"{type(self).__name__} defines no rate")

    def step(self) -> None:
        """Go to the next step and set the rates."""
        self.last_epoch += 1
        self._apply()

    def _join(self, goes_on: bool) -> None:
        """Take part in the rates of the optimizer, in place of the schedule that it goes on with.

        Raises:
            ConfigError: another schedule is under way: is this one meant to follow it?
        """
        others = [other for other in self._all() if not (goes_on and type(other) is type(self))]
        for other in others:
            if other.last_epoch > 0 and not goes_on:
                raise _under_way(self, other)
        self.optimizer.schedules[:] = [weakref.ref(s) for s in (*others, self)]

    def detach(self) -> None:
        """Take no part in the rates any more; they stay as they are until another sets them."""
        self.optimizer.schedules[:] = [weakref.ref(s) for s in self._all() if s is not self]

    def _all(self) -> list[LRScheduler]:
        """The schedules of the optimizer that still exist."""
        found = (reference() for reference in self.optimizer.schedules)
        return [schedule for schedule in found if schedule is not None]

    def _apply(self) -> None:
        schedules = self._all()
        for i, group in enumerate(self.optimizer.param_groups):
            parts = [s for s in schedules if i < len(s.base_lrs)]
            if len(parts) == 1:
                part = parts[0]
                group["lr"] = part.rate(part.last_epoch, part.base_lrs[i], i)
            elif parts:
                group["lr"] = group["initial_lr"] * math.prod(part._share(i) for part in parts)

    def _share(self, group: int) -> float:
        """The rate now as a part of the initial one."""
        base = self.base_lrs[group]
        return self.rate(self.last_epoch, base, group) / base if base else 1.0

    def get_last_lr(self) -> list[float]:
        """The rates in use."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where another stood, and set its rates."""
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = list(state_dict.get("base_lrs", self.base_lrs))
        self._apply()


class LambdaLR(LRScheduler):
    """The initial rate times a function of the step; a list gives each group its own."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        count = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != count:
            raise ConfigError(f"{len(self.lr_lambdas)} functions for {count} parameter groups")
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return base * self.lr_lambdas[group](step)


class StepLR(LRScheduler):
    """Times `gamma` every `step_size` steps."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return base * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Times `gamma` at each of the milestones."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return base * self.gamma ** bisect_right(self.milestones, step)


class ConstantLR(LRScheduler):
    """Times `factor` for the first `total_iters` steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return base * self.factor if step < self.total_iters else base


class LinearLR(LRScheduler):
    """Times a factor that goes from `start_factor` to `end_factor` in `total_iters` steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ConfigError("LinearLR: start_factor lies in (0, 1], end_factor in [0, 1]")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        part = min(step, self.total_iters) / self.total_iters if self.total_iters else 1.0
        return base * (self.start_factor + (self.end_factor - self.start_factor) * part)


class ExponentialLR(LRScheduler):
    """Times `gamma` every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return base * self.gamma**step


class PolynomialLR(LRScheduler):
    """Falls to zero in `total_iters` steps as `(1 - step / total_iters) ** power`."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return float(base * (1.0 - min(step, self.total_iters) / self.total_iters) ** self.power)


class CosineAnnealingLR(LRScheduler):
    """Falls to `eta_min` in `T_max` steps along half a cosine (and rises again after).

    Source: Loshchilov and Hutter 2017, "SGDR", without its restarts.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return (
            self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2
        )


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down to almost nothing, while momentum goes the other way.

    Args:
        optimizer: what to schedule.
        max_lr: the highest rate; a list gives each group its own.
        total_steps: length of the cycle; or give `epochs` and `steps_per_epoch`.
        pct_start: share of the cycle in which the rate rises.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move the momentum (or Adam's first beta) too.
        base_momentum, max_momentum: its bounds.
        div_factor: the first rate is `max_lr / div_factor`.
        final_div_factor: the last rate is the first one divided by this.
        three_phase: fall as long as it rose, then go down to the last rate.

    Source: Smith and Topin 2019, "Super-convergence".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ConfigError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if anneal_strategy not in ("cos", "linear"):
            raise ConfigError(f"OneCycleLR: 'cos' or 'linear', got {anneal_strategy!r}")
        self.total_steps = total_steps
        self._cosine = anneal_strategy == "cos"
        groups = optimizer.param_groups
        each = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * len(groups)
        if len(each) != len(groups):
            raise ConfigError(f"{len(each)} maximal rates for {len(groups)} parameter groups")
        self._momentum = next(
            (k for k in ("betas", "momentum") if cycle_momentum and k in optimizer.defaults), None
        )
        if cycle_momentum and self._momentum is None:
            raise ConfigError(
                f"OneCycleLR: {type(optimizer).__name__} has no momentum: cycle_momentum=False"
            )
        peak = float(pct_start * total_steps)
        ends = [peak - 1, 2 * peak - 2] if three_phase else [peak - 1]
        ends.append(float(total_steps - 1))  # the last step of each phase
        self._rates = []
        for top in each:
            first = top / div_factor
            last = first / final_div_factor
            values = [first, top, first, last] if three_phase else [first, top, last]
            self._rates.append(list(zip([0.0, *ends], values, strict=True)))
        low, high = base_momentum, max_momentum
        momenta = [high, low, high, high] if three_phase else [high, low, high]
        self._momenta = list(zip([0.0, *ends], momenta, strict=True))
        if last_epoch == -1:
            for group, top in zip(groups, each, strict=True):
                group["initial_lr"] = top / div_factor
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return self._along(self._rates[group], step)

    def _along(self, points: list[tuple[float, float]], step: int) -> float:
        if step > self.total_steps:
            raise ConfigError(
                f"OneCycleLR: step {step} of a cycle of {self.total_steps}.\n"
                "Call scheduler.step() once after each optimizer.step(), or give total_steps as "
                "epochs * len(loader).",
                step=step,
                total_steps=self.total_steps,
            )
        for i in range(1, len(points)):
            (first, start), (last, end) = points[i - 1], points[i]
            if step <= last or i == len(points) - 1:
                break
        part = (step - first) / (last - first)
        if self._cosine:
            return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
        return start + (end - start) * part

    def _apply(self) -> None:
        super()._apply()
        if self._momentum is None:
            return
        value = self._along(self._momenta, self.last_epoch)
        for group in self.optimizer.param_groups:
            if self._momentum == "betas":
                group["betas"] = (value, group["betas"][1])
            else:
                group["momentum"] = value


class SequentialLR(LRScheduler):
    """One schedule after another: each starts anew at its milestone.

    `SequentialLR(opt, [LinearLR(opt, 0.01, total_iters=100), CosineAnnealingLR(opt, 900)], [100])`
    warms up and then anneals.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if len(milestones) != len(schedulers) - 1 or list(milestones) != sorted(milestones):
            raise ConfigError(
                f"SequentialLR: {len(schedulers)} schedules need {len(schedulers) - 1} rising "
                f"milestones, got {list(milestones)}"
            )
        for scheduler in schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ConfigError("SequentialLR: ReduceLROnPlateau follows a metric, not a step")
            if scheduler.optimizer is not optimizer:
                raise ConfigError("SequentialLR: the schedules belong to different optimizers")
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        for scheduler in schedulers:
            scheduler.detach()
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        which = bisect_right(self._milestones, step)
        start = self._milestones[which - 1] if which else 0
        return self._schedulers[which].rate(step - start, base, group)


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` when a metric has not improved for `patience` calls: `step(metric)`.

    Args:
        optimizer: what to schedule.
        mode: "min" for losses, "max" for accuracies.
        factor: what the rate is multiplied by.
        patience: how many calls without improvement are borne.
        threshold: how much counts as an improvement.
        threshold_mode: "rel"ative to the best, or "abs"olute.
        cooldown: calls after a reduction that do not count.
        min_lr: lower bound; a list gives each group its own.
        eps: smaller changes of the rate are not made.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ConfigError(
                "ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode 'rel', 'abs'"
            )
        if not factor < 1:
            raise ConfigError(f"ReduceLROnPlateau: factor is below 1, got {factor}", got=factor)
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        count = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, Sequence) else [min_lr] * count
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.shares = [1.0] * count  # what is left of each group's rate
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0
        self._join(goes_on=False)

    def rate(self, step: int, base: float, group: int = 0) -> float:
        return base * self.shares[group]

    def step(self, metrics: Any = None) -> None:
        """Take in the metric of an epoch."""
        if metrics is None:
            raise ConfigError("ReduceLROnPlateau follows a metric: scheduler.step(loss)")
        current = float(metrics)
        self.last_epoch += 1
        if self._improves(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for i, group in enumerate(self.optimizer.param_groups):
                reduced = max(group["lr"] * self.factor, self.min_lrs[i])
                if group["lr"] - reduced > self.eps:
                    self.shares[i] *= reduced / group["lr"]
                    group["lr"] = reduced
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _improves(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            return sign * value > sign * self.best + self.threshold
        return sign * value > sign * self.best * (1 + sign * self.threshold)

    def state_dict(self) -> dict[str, Any]:
        names = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {"shares": list(self.shares), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(self, name, state_dict[name])
        self.shares = list(state_dict.get("shares", self.shares))


def _under_way(new: LRScheduler, old: LRScheduler) -> ConfigError:
    names = type(new).__name__, type(old).__name__
    return ConfigError(
        f"{names[0]}: the optimizer follows another schedule, {names[1]}, which is at step "
        f"{old.last_epoch}.\n"
        "One after the other? optim.SequentialLR(optimizer, [first, second], milestones=[100])\n"
        "Both at once, multiplied? Make both before the first step.\n"
        "Is the old one done with? old.detach()",
        step=old.last_epoch,
    )
