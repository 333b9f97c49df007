"""What all optimizers share: parameter groups, buckets, steps, and their state dict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np

from ..creation import asarray
from ..devices import device_of, move
from ..errors import ConfigError, GradError, WeightsError
from ..nn.module import Module
from ..node import Leaf
from ..spelling import check_keywords
from ..state import enable_grad, touching, watch
from ..tensor import Tensor
from .group import Bucket, ParamGroup, buckets_of

Params = Iterable[Any]


class Optimizer:
    """Base of the optimizers; a subclass says what it keeps and which operation updates.

    Args:
        params: parameters, or (name, parameter) pairs, or dicts with "params" and settings of
            their own.
        defaults: settings of groups that give none.

    `param_groups` holds the groups. A setting is read and written as `group["lr"]`. `schedules`
    refers to the learning-rate schedules that were made for it.
    """

    # Settings that are numbers, in the order in which the update reads them, and how many each is.
    _numeric: Mapping[str, int] = {"lr": 1}
    # Whether an update treats every number of a parameter alike, so that parameters may be joined.
    _elementwise = True
    # Whether the state dict holds the number of steps.
    _counts_steps = True

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if kwargs:
            check_keywords(cls, kwargs)
        return super().__new__(cls)

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.schedules: list[Any] = []  # weak references: a schedule that is dropped counts no more
        self._seen: set[int] = set()
        self._steps = 0
        self._skip: Tensor | None = None  # of the step under way
        self._check(defaults)
        for group in _as_groups(params):
            self.add_param_group(group)
        every = [p for group in self.param_groups for p in group.params]
        if not any(p.requires_grad for p in every):
            raise _no_parameters(type(self).__name__, every)

    # -- what a subclass gives ---------------------------------------------------------------

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that make no sense."""
        for name in ("lr", "eps", "weight_decay", "momentum"):
            value = settings.get(name, 0.0)
            if value is None or isinstance(value, str):
                raise _bad_setting(type(self).__name__, name, repr(value), "a number")
            if isinstance(value, (int, float)) and value < 0:
                raise _bad_setting(type(self).__name__, name, value, "0 or more")
        for beta in settings.get("betas", ()):
            if not 0 <= beta < 1:
                raise _bad_setting(type(self).__name__, "betas", beta, "from 0 up to 1")

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        """Add what the optimizer keeps for a bucket, where it is not there yet."""

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        """Call the operation that updates a bucket, and give it `self._skip`."""
        raise TypeError(f"{type(self).__name__} defines no update")

    # -- groups ------------------------------------------------------------------------------

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Train more parameters: `{"params": [...], "lr": 1e-4}`; other settings are defaults.

        Raises:
            ConfigError: an unknown setting, or a parameter that is in a group already.
            GradError: a tensor that is the result of an operation.
        """
        params = _as_parameters(group["params"])
        given = {k: v for k, v in group.items() if k != "params"}
        unknown = [k for k in given if k not in self.defaults and k != "initial_lr"]
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} has no setting {', '.join(map(repr, unknown))}.\n"
                f"It has: {', '.join(self.defaults)}.",
                unknown=unknown,
            )
        self._check(given)
        for p in params:
            if id(p) in self._seen:
                raise ConfigError(
                    f"{type(self).__name__}: a parameter of shape {p.shape} is given twice.\n"
                    "Let the groups share none: each parameter is updated once a step."
                )
            self._seen.add(id(p))
        made = ParamGroup(params, {**self.defaults, **given}, dict(self._numeric))
        self.param_groups.append(made)
        made.dormant = [p for p in params if not p.requires_grad]
        self._seat(made, [p for p in params if p.requires_grad])

    def _seat(self, group: ParamGroup, params: list[Tensor]) -> None:
        for bucket in buckets_of(params, self._elementwise):
            self._prepare(group, bucket)
            group.buckets.append(bucket)

    # -- steps -------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None, *, skip: Tensor | None = None) -> Any:
        """Update the parameters that have gradients.

        Args:
            closure: computes the loss and its gradients first; its result is returned.
            skip: a truth value without axes; where it is True nothing is changed. `GradScaler`
                gives it, so that a recorded step leaves out what overflowed.
        """
        loss = None
        if closure is not None:
            if not callable(closure):
                raise ConfigError(
                    f"step() takes no {type(closure).__name__}: the gradients are in the "
                    "parameters.\nloss.backward(); optimizer.step(); optimizer.zero_grad()",
                    got=type(closure).__name__,
                )
            with enable_grad():
                loss = closure()
        self._steps += 1
        self._skip = skip
        for group in self.param_groups:
            if group.dormant:
                self._wake(group)
            for bucket in tuple(group.buckets):
                self._step_bucket(group, bucket)
        self._skip = None
        return loss

    def _step_bucket(self, group: ParamGroup, bucket: Bucket) -> None:
        grads: list[Tensor] = []
        moved, observed = False, watch.count
        for p, seat in bucket.seats:
            leaf = p._node
            grad = leaf.grad if isinstance(leaf, Leaf) else None
            if observed:
                touching(leaf)
            if grad is not None:
                grads.append(grad)
            moved = moved or p.array is not seat
        if not grads:
            return
        if moved or len(grads) != len(bucket.seats):
            for part in self._rearranged(group, bucket):
                self._step_bucket(group, part)
            return
        self._update(group, bucket, grads)
        if grads[0]._node is None:
            # The backward pass notices when it adds to a gradient that was used already.
            grads[0]._slot = -self._steps

    def _rearranged(self, group: ParamGroup, bucket: Bucket) -> list[Bucket]:
        """Replace a bucket whose parameters no longer go together."""
        moved = [p.array is not seat for p, seat in bucket.seats]
        if any(moved):
            # Somebody else (another optimizer, `to`, a load) gave them other memory: from now on
            # each is updated by itself, wherever it is.
            parts = []
            for p in bucket.params:
                part = Bucket.gather([p])
                self._prepare(group, part)
                for name, tensor in bucket.of(p).items():
                    array = move(tensor.array, part.device)
                    part.state[name] = Tensor(array.copy().reshape(part.state[name].shape))
                part.step.array[...] = int(bucket.step.array)
                parts.append(part)
        else:
            parts = bucket.runs([p.grad is not None for p in bucket.params])
        place = group.buckets.index(bucket)
        group.buckets[place : place + 1] = parts
        return parts

    def _wake(self, group: ParamGroup) -> None:
        """Give memory to parameters that were frozen before and have gradients now."""
        awake = [p for p in group.dormant if p.grad is not None]
        if awake:
            chosen = set(map(id, awake))
            group.dormant = [p for p in group.dormant if id(p) not in chosen]
            self._seat(group, awake)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with `set_to_none=False` they become zeros."""
        for group in self.param_groups:
            for p in group.params:
                leaf = p._node
                if not isinstance(leaf, Leaf):
                    continue
                if watch.count:
                    touching(leaf)
                if set_to_none or leaf.grad is None:
                    leaf.grad = None
                else:
                    zeros = leaf.grad.array.copy()
                    zeros[...] = 0
                    leaf.grad = Tensor(zeros)

    # -- state -------------------------------------------------------------------------------

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        """What is kept for each parameter that was updated, sharing memory."""
        found: dict[Tensor, dict[str, Tensor]] = {}
        for group in self.param_groups:
            for bucket in group.buckets:
                steps = int(bucket.step.array)
                for p in bucket.params if steps else ():
                    entry = {"step": Tensor(np.float32(steps))} if self._counts_steps else {}
                    found[p] = {**entry, **bucket.of(p)}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Settings and what is kept for each parameter, in torch's structure.

        `{"state": {number: {name: tensor}}, "param_groups": [{..., "params": [number]}]}`, where
        parameters are numbered through all groups. Tensors share memory with the optimizer.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group.params:
                numbers[id(p)] = len(numbers)
            settings = {k: v for k, v in group.items() if k != "params"}
            groups.append({**settings, "params": [numbers[id(p)] for p in group.params]})
        state = {numbers[id(p)]: entry for p, entry in self.state.items()}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, here or in torch.

        Raises:
            WeightsError: it belongs to other parameters; the optimizer is unchanged then.
        """
        saved_groups = state_dict["param_groups"]
        entries: dict[int, dict[str, Any]] = {}
        if len(saved_groups) != len(self.param_groups):
            raise _misfit(
                type(self).__name__,
                f"it has {len(saved_groups)} groups, the optimizer {len(self.param_groups)}",
            )
        for saved, group in zip(saved_groups, self.param_groups, strict=True):
            if len(saved["params"]) != len(group.params):
                raise _misfit(
                    type(self).__name__,
                    f"a group has {len(saved['params'])} parameters, here it has "
                    f"{len(group.params)}",
                )
            for number, p in zip(saved["params"], group.params, strict=True):
                entry = state_dict["state"].get(number, state_dict["state"].get(str(number)))
                if entry:
                    entries[id(p)] = self._checked_entry(group, p, number, entry)
        for saved, group in zip(saved_groups, self.param_groups, strict=True):
            for name, value in saved.items():
                if name in self.defaults or name == "initial_lr":
                    group[name] = tuple(value) if isinstance(value, list) else value
            self._take(group, entries)

    def _checked_entry(
        self, group: ParamGroup, p: Tensor, number: int, entry: Mapping[str, Any]
    ) -> dict[str, Any]:
        probe = next((b for b in group.buckets if any(q is p for q in b.params)), None)
        expected = probe.of(p) if probe is not None else {}
        checked: dict[str, Any] = {"step": 1}
        for name, value in entry.items():
            if value is None:
                continue
            array = value.array if isinstance(value, Tensor) else asarray(value).array
            if name == "step":
                checked["step"] = int(array)
            elif name in expected and expected[name].shape != tuple(array.shape):
                raise _misfit(
                    type(self).__name__,
                    f"{name} of parameter {number} has shape {tuple(array.shape)}, "
                    f"here it is {expected[name].shape}",
                )
            else:
                checked[name] = array
        return checked

    def _take(self, group: ParamGroup, entries: Mapping[int, Mapping[str, Any]]) -> None:
        thawed = [p for p in group.dormant if id(p) in entries]
        group.dormant = [p for p in group.dormant if id(p) not in entries]
        self._seat(group, thawed)
        for bucket in tuple(group.buckets):
            steps = [entries.get(id(p), {}).get("step", 0) for p in bucket.params]
            parts = bucket.runs(steps) if len(set(steps)) > 1 else [bucket]
            place = group.buckets.index(bucket)
            group.buckets[place : place + 1] = parts
            for part in parts:
                self._prepare(group, part)  # a setting that was loaded may ask for more
                entry = entries.get(id(part.params[0]), {})
                part.step.array[...] = entry.get("step", 0)
                for p in part.params:
                    entry = entries.get(id(p), {})
                    for name, tensor in part.of(p).items():
                        value = entry.get(name, part.initial.get(name, 0))
                        if hasattr(value, "shape"):
                            value = move(value, device_of(tensor.array))
                        tensor.array[...] = value

    def __repr__(self) -> str:
        groups = "\n".join(f"  {group}" for group in self.param_groups)
        return f"{type(self).__name__}(\n{groups}\n)"


# -- reading arguments -------------------------------------------------------------------------


def _as_groups(params: Any) -> list[Mapping[str, Any]]:
    if isinstance(params, Module):
        raise ConfigError("an optimizer takes parameters, not a module: model.parameters()")
    if isinstance(params, Tensor):
        raise ConfigError("an optimizer takes a list of parameters: [parameter]")
    if isinstance(params, (set, frozenset)):
        raise ConfigError("parameters in a set have no order, and checkpoints need one: use a list")
    items = list(params)
    if items and all(isinstance(item, Mapping) for item in items):
        return items
    return [{"params": items}]


def _as_parameters(params: Any) -> list[Tensor]:
    items = [params] if isinstance(params, Tensor) else list(params)
    found = []
    for item in items:
        p = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        if not isinstance(p, Tensor):
            raise ConfigError(
                f"an optimizer takes parameters, got {type(p).__name__}.\n"
                "Pass model.parameters(), or dicts such as {'params': [...], 'lr': 1e-4}.",
                got=type(p).__name__,
            )
        if not p.is_leaf:
            raise GradError(
                f"a tensor of shape {p.shape} is the result of an operation and cannot be "
                "trained.\nMake it a parameter: nn.Parameter(x.detach())",
                shape=p.shape,
            )
        found.append(p)
    return found


def _no_parameters(name: str, given: list[Tensor]) -> ConfigError:
    if given:
        count = sum(p.size for p in given)
        return ConfigError(
            f"{name} got {len(given)} parameters ({count:,} numbers) and all are frozen "
            "(requires_grad=False).\n"
            "To train them: model.requires_grad_(True)\n"
            "To train the head only: model.head.requires_grad_(True)",
            given=len(given),
            frozen=len(given),
        )
    return ConfigError(
        f"{name} got 0 parameters: there is nothing to train.\n"
        "Are the layers in a tuple, or made inside forward or a closure? Only attributes of the "
        "module, lists and dicts are walked:\n"
        "  self.layers = [nn.Linear(4, 4), ...]\n"
        "Was model.parameters(), a generator, used up before? Pass list(model.parameters()).",
        given=0,
        frozen=0,
    )


def _bad_setting(name: str, setting: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{name}: {setting} is {wanted}, got {value}", setting=setting, got=value)


def _misfit(name: str, why: str) -> WeightsError:
    return WeightsError(
        f"this state dict does not fit the {name}: {why}; nothing was loaded.\n"
        "Was it saved by another model, or with other parameter groups or frozen layers?",
        why=why,
    )
