"""A training loop that a person can read.

`Trainer.fit` is the loop: take a batch, compute the loss, go back, every few batches step the
optimizer; after each epoch evaluate, save, and say how it went. Everything else here is what the
loop calls, in the order in which it calls it. Progress can be saved in mid-epoch and resumed
with bit-identical results on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..autocast import autocast
from ..callers import drop_our_frames
from ..dtypes import DType
from ..errors import ConfigError, WeightsError
from ..nn import Module
from ..optim import EMA, GradScaler, Optimizer
from ..state import no_grad
from ..tensor import Tensor
from . import mistakes
from .display import ProgressLine
from .history import History
from .log import TrainingLog
from .memory import exhaustion_told
from .numerics import numerics, warn_of_other_numerics
from .precision import chosen_precision
from .state import packed, unpacked
from .store import Checkpoint, CheckpointStore
from .tracing import Watch, trace

if TYPE_CHECKING:
    from ..insight.runs.writer import Run

_LEAST_SCALE = 2.0**-16  # no gradient that a model can be trained with overflows below

# (module, batch) -> the loss, or the loss and numbers to report.
LossFunction = Callable[[Module, Any], "Tensor | tuple[Tensor, Mapping[str, float]]"]
Evaluation = Callable[[Module], Mapping[str, float]]
Callback = Callable[["Trainer"], "bool | None"]


class Trainer:
    """Trains a module.

    Args:
        module: what is trained, on its device.
        optimizer: updates its parameters.
        loss: `(module, batch)` -> the loss, or the loss and a dict of numbers to report.
        batches: a DataLoader, or anything that can be iterated over once an epoch.
        epochs, steps: when to stop, one of the two; steps are optimizer steps.
        evaluate: `(module)` -> a dict of numbers, called after each epoch in eval mode (on the
            averaged weights where there are any).
        schedule: a learning rate schedule of `bt.optim`; stepped as `schedule_every` says.
        schedule_every: "step" or "epoch".
        ema: an `optim.EMA` of the module.
        clip_norm: largest norm of all gradients together.
        accumulate: batches whose gradients are added up for one step.
        precision: "float32"; "bfloat16" or "float16" for mixed precision: module and loss run
            under `bt.autocast`, parameters stay float32, and float16 has its loss scaled; "auto"
            for the fastest that the module's device has, which on the CPU is float32. Evaluation
            runs in float32, the precision of the parameters.
        monitor: the figure of `evaluate` that tells the best epoch, such as "accuracy".
        mode: "max" or "min" of the monitored figure.
        patience: epochs without improvement after which training stops.
        folder: where checkpoints go; none are written without it.
        save_every: steps between checkpoints besides those at the end of each epoch.
        keep: newest checkpoints kept, besides the best.
        log_every: steps between records in the history.
        run: where figures go as they come, several times a second at most, histograms of gradients
            and parameters in each epoch, the tree of the module with shapes, and a profile of the
            third step; closing it is left to who made it.
        callbacks: called after each step; one that returns True stops the training.
        quiet: print nothing.
    """

    def __init__(
        self,
        module: Module,
        optimizer: Optimizer,
        loss: LossFunction,
        batches: Iterable[Any],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        evaluate: Evaluation | None = None,
        schedule: Any = None,
        schedule_every: str = "step",
        ema: EMA | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        precision: str | DType = "float32",
        monitor: str | None = None,
        mode: str = "max",
        patience: int | None = None,
        folder: str | Path | None = None,
        save_every: int | None = None,
        keep: int = 2,
        log_every: int = 50,
        run: Run | None = None,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
    ) -> None:
        mistakes.check_parts(module, optimizer, loss, batches)
        mistakes.check_counts(epochs=epochs, steps=steps, accumulate=accumulate)
        if mode not in ("max", "min") or schedule_every not in ("step", "epoch"):
            raise ConfigError("Trainer: mode is 'max' or 'min', schedule_every 'step' or 'epoch'")
        if (monitor or patience) and evaluate is None:
            raise ConfigError("Trainer: monitor and patience need evaluate=")
        self.module, self.optimizer, self.loss, self.batches = module, optimizer, loss, batches
        self.epochs, self.max_steps = epochs, steps
        self.evaluate, self.schedule, self.schedule_every = evaluate, schedule, schedule_every
        self.ema, self.clip_norm, self.accumulate = ema, clip_norm, accumulate
        self.precision = chosen_precision(precision, module)
        # Skips the update, and the schedule's and the average's, where float16 overflows.
        self.scaler = GradScaler(enabled=self.precision == "float16")
        self.monitor, self.mode, self.patience = monitor, mode, patience
        self.save_every, self.log_every, self.callbacks = save_every, log_every, callbacks
        self.store = None if folder is None else CheckpointStore(folder, keep)
        self.line = ProgressLine(quiet)
        self.log = None if run is None else TrainingLog(run)
        self.history = History()
        self.step = 0  # optimizer steps so far
        self.epoch = 0  # epochs finished
        self.best: float | None = None
        self.waited = 0  # epochs since the best
        self.skipped = 0  # steps left out since their gradients overflowed float16
        self.last: dict[str, float] = {}  # figures of the last step
        self.watch = Watch()  # what an error will tell
        self._since = 0  # batches whose gradients wait for a step
        self._stop = False

    whose = ""  # words after "the loss" in errors, where there are several

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """The optimizer; other loops have several."""
        return (self.optimizer,)

    # -- the loop ------------------------------------------------------------------------------

    def fit(self, resume: str | Path | None = None) -> History:
        """Train; returns the history.

        Args:
            resume: "auto" goes on from the newest sound checkpoint of `folder`, or starts anew
                where there is none; a folder of a checkpoint goes on from that one.
        """
        try:
            return self._fit(resume)
        except Exception as error:
            drop_our_frames(error)
            raise

    def _fit(self, resume: str | Path | None) -> History:
        if resume is not None:
            self._resume(resume)
        while not self._finished():
            self.module.train()
            self.line.epoch(self)
            batch = None
            for batch in self._timed(self.batches):
                with exhaustion_told(self, batch), self._profiled():
                    self._batch(batch)
                if self._stop or self._enough_steps():
                    break
            else:
                if batch is None and resume is None:
                    raise mistakes.no_batches(self)
                resume = None
                self._end_epoch(batch)
                continue
            break
        if self._stop or self._enough_steps():
            if self.log is not None and not self._at_end_of_epoch():
                self.log.parameters(self)
            self._save()
        self.line.close(self)
        return self.history

    def _finished(self) -> bool:
        return (
            self._stop
            or self._enough_steps()
            or (self.epochs is not None and self.epoch >= self.epochs)
        )

    def _at_end_of_epoch(self) -> bool:
        rows = self.history.epochs
        return bool(rows) and rows[-1]["step"] == self.step

    def _enough_steps(self) -> bool:
        return self.max_steps is not None and self.step >= self.max_steps

    def compute(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch in the precision of the training, and numbers to report."""
        with nullcontext() if self.precision == "float32" else autocast(self.precision):
            found = self.loss(self.module, batch)
        loss, figures = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
        if not isinstance(loss, Tensor):
            raise mistakes.no_loss(loss)
        return loss, figures

    def _batch(self, batch: Any) -> None:
        self.watch.drawn = random.snapshot()
        with np.errstate(all="ignore"):  # the errors say more than NumPy's warnings
            with self._shapes():
                loss, figures = self.compute(batch)
            value = float(loss.item())
            if not math.isfinite(value):
                raise mistakes.diverged(self, "loss", value, trace(self, batch, backward=False))
            self.scaler.scale(loss if self.accumulate == 1 else loss / self.accumulate).backward()
        self._since += 1
        self.watch.losses.append(value)
        self.last = {"loss": value, **figures}
        self.line.batch(self, batch)
        if self._since == self.accumulate:
            self._update(batch)

    def _shapes(self) -> AbstractContextManager[None]:
        """The run is told the shapes of the first batch."""
        if self.log is None or self.step or self._since:
            return nullcontext()
        return self.log.run.shapes(self.module)

    def _profiled(self) -> AbstractContextManager[None]:
        """The run is told where the time of the third step goes."""
        if self.log is None or self.step != 2 or self._since:
            return nullcontext()
        return self.log.run.profiled()

    def _update(self, batch: Any) -> None:
        self.last["lr"] = float(self.optimizer.param_groups[0]["lr"])
        updated = self._step_optimizer(batch)
        if self.log is not None and updated:
            self.log.gradients(self)
        self.optimizer.zero_grad()
        self._since = 0
        self.step += 1
        if self.ema is not None and updated:
            self.ema.update()
        if self.schedule is not None and self.schedule_every == "step" and updated:
            self.schedule.step()
        if self.step % self.log_every == 0:
            self.history.steps.append({"step": self.step, **self.last})
        if self.log is not None:
            self.log.step(self)
        for callback in self.callbacks:
            if callback(self):
                self._stop = True
        if self.save_every is not None and self.step % self.save_every == 0:
            self._save()

    def _step_optimizer(self, batch: Any) -> bool:
        """Clip and update; False where scaled gradients overflowed, and nothing was updated."""
        optimizer, scaler = self.optimizer, self.scaler
        scaler.unscale_(optimizer)
        overflowed = scaler.overflowed(optimizer)
        if not overflowed:
            self.watch.check(self, batch)
        if scaler.enabled:
            self.last["loss_scale"] = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        self.skipped += overflowed
        if overflowed and scaler.get_scale() < _LEAST_SCALE:
            raise mistakes.never_finite(self, trace(self, batch, backward=True))
        return not overflowed

    def _end_epoch(self, batch: Any) -> None:
        if self._since:  # the last, incomplete group of accumulated batches
            self._update(batch)
        self.epoch += 1
        if self.schedule is not None and self.schedule_every == "epoch":
            self.schedule.step()
        row: dict[str, float] = {"epoch": self.epoch, "step": self.step, **self.last}
        if self.evaluate is not None:
            row.update(self._evaluated(self.evaluate))
        self.history.epochs.append(row)
        if self.log is not None:
            self.log.epoch(self, row)
        improved = self._judge(row)
        saved = self._save()
        if improved and saved and self.store is not None:
            self.store.mark(self.step, "best")
        self.line.end_epoch(self, row, improved)

    def _evaluated(self, evaluate: Evaluation) -> Mapping[str, float]:
        module = self.module if self.ema is None else self.ema.module
        training = module.training
        module.eval()
        try:
            with no_grad():
                return {name: float(value) for name, value in evaluate(module).items()}
        finally:
            module.train(training)

    def _judge(self, row: Mapping[str, float]) -> bool:
        """Whether this epoch is the best so far; without improvement for too long, stop."""
        if self.monitor is None:
            return False
        if self.monitor not in row:
            raise ConfigError(
                f"Trainer: evaluate gave no {self.monitor!r} to monitor, only {sorted(row)}"
            )
        value = row[self.monitor]
        better = self.best is None or (
            value > self.best if self.mode == "max" else value < self.best
        )
        if better:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
            if self.patience is not None and self.waited >= self.patience:
                self._stop = True
        return better

    def _timed(self, batches: Iterable[Any]) -> Iterable[Any]:
        """The batches; the time spent waiting for them goes to the progress line."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.line.waited(time.perf_counter() - start)
            yield batch

    # -- saving and resuming ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        state: dict[str, Any] = {
            "module": dict(self.module.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "gradients": {
                name: p.grad for name, p in self.module.named_parameters() if p.grad is not None
            },
            "random": random.get_state(),
            "counters": {
                "step": self.step,
                "epoch": self.epoch,
                "best": self.best,
                "waited": self.waited,
                "skipped": self.skipped,
                "since": self._since,
                "last": self.last,
                "stopped": self._stop,
            },
            "history": {"steps": self.history.steps, "epochs": self.history.epochs},
            "numerics": numerics(self.precision),
            "scaler": self.scaler.state_dict(),
        }
        for name in ("schedule", "ema", "batches"):
            part = getattr(self, name)
            if hasattr(part, "state_dict"):
                state[name] = part.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            WeightsError: it belongs to another module or optimizer.
        """
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("schedule", "ema", "batches"):
            part = getattr(self, name)
            if hasattr(part, "load_state_dict"):
                if name not in state:
                    raise WeightsError(f"the checkpoint holds nothing for {name}=")
                part.load_state_dict(state[name])
        parameters = dict(self.module.named_parameters())
        for p in parameters.values():
            p.grad = None
        scaler = state.get("scaler", {})
        self.scaler.load_state_dict(scaler)
        # Waiting gradients are multiplied by the scale that they were saved under.
        factor = self.scaler.get_scale() / scaler.get("scale", 1.0)
        for name, g in state["gradients"].items():
            p = parameters[name]
            grad = (g if isinstance(g, Tensor) else Tensor(g)).to(p.device)
            p.grad = grad if factor == 1 else grad * factor
        counters = state["counters"]
        self.step, self.epoch = int(counters["step"]), int(counters["epoch"])
        self.best, self.waited = counters["best"], int(counters["waited"])
        self.skipped = int(counters.get("skipped", 0))
        self._since, self.last = int(counters["since"]), dict(counters["last"])
        self._stop = bool(counters["stopped"])
        self.history = History(**state["history"])
        random.set_state(state["random"])
        warn_of_other_numerics(state["numerics"], numerics(self.precision))

    def _save(self) -> Path | None:
        if self.store is None:
            return None
        layout, tensors = packed(self.state_dict())
        return self.store.save(self.step, tensors, {"state": layout})

    def _resume(self, resume: str | Path) -> None:
        found: Checkpoint | None
        if resume == "auto":
            if self.store is None:
                raise ConfigError("resume='auto' needs folder=, where the checkpoints are")
            found = self.store.newest()
            if found is None:
                return
        else:
            path = Path(resume)
            digits = path.name.removeprefix("step-")
            if not digits.isdigit():
                raise ConfigError(
                    f"{resume} is no checkpoint folder (step-00000100); "
                    "to take the newest one: resume='auto'"
                )
            found = CheckpointStore(path.parent).load(int(digits))
        self.load_state_dict(unpacked(found.state["state"], found.tensors))
        self.line.resumed(self, found.folder)
