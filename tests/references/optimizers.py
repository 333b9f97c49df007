"""Trajectories of torch's optimizers and tables of its schedules.

    python tests/references/optimizers.py

needs torch and safetensors; nothing of bestiary. Written with torch 2.13.0 on the CPU into
tests/references/data/optim. The gradient at each step is a stored noise plus half the parameter,
so that an error feeds back.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).parent / "data" / "optim"
STEPS = 50
KEPT = (1, 2, 10, 50)
SHAPES = {"a": (7, 5), "b": (5,), "c": (2, 3, 3, 3), "d": ()}
MATRICES = {"a": (7, 5), "b": (4, 9)}

CASES: dict[str, tuple[str, dict[str, object]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd_momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
    "sgd_nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    "sgd_maximize": ("SGD", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.02, "maximize": True}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam_decay": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1, "eps": 1e-3}),
    "adam_amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True, "maximize": True, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.2}),
    "adamw_amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop_all": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.7, "centered": True, "weight_decay": 0.05},
    ),
    "rmsprop_maximize": ("RMSprop", {"lr": 0.01, "weight_decay": 0.05, "maximize": True}),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad_all": (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.2},
    ),
    "adafactor": ("Adafactor", {"lr": 0.05}),
    "adafactor_all": ("Adafactor", {"lr": 0.05, "weight_decay": 0.1, "d": 1.5, "maximize": True}),
    "muon": ("Muon", {"lr": 0.02}),
    "muon_all": (
        "Muon",
        {"lr": 0.02, "nesterov": False, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
    ),
}

SCHEDULES: dict[str, tuple[str, dict[str, object]]] = {
    "step": ("StepLR", {"step_size": 7, "gamma": 0.5}),
    "multistep": ("MultiStepLR", {"milestones": [5, 11, 11, 30], "gamma": 0.3}),
    "constant": ("ConstantLR", {"factor": 0.25, "total_iters": 9}),
    "linear": ("LinearLR", {"start_factor": 0.1, "end_factor": 0.9, "total_iters": 12}),
    "exponential": ("ExponentialLR", {"gamma": 0.93}),
    "polynomial": ("PolynomialLR", {"total_iters": 40, "power": 1.7}),
    "cosine": ("CosineAnnealingLR", {"T_max": 40, "eta_min": 0.003}),
    "onecycle": ("OneCycleLR", {"max_lr": [0.3, 0.2], "total_steps": 60}),
    "onecycle_three": (
        "OneCycleLR",
        {
            "max_lr": 0.3,
            "epochs": 6,
            "steps_per_epoch": 10,
            "three_phase": True,
            "anneal_strategy": "linear",
            "pct_start": 0.35,
        },
    ),
}


def initial(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def noise(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        name: rng.standard_normal((STEPS, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def trajectory(kind: str, settings: dict[str, object]) -> dict[str, np.ndarray]:
    shapes = MATRICES if kind == "Muon" else SHAPES
    params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in initial(shapes).items()}
    noises = {k: torch.tensor(v) for k, v in noise(shapes).items()}
    optimizer = getattr(torch.optim, kind)(list(params.values()), **settings)
    kept: dict[str, np.ndarray] = {}
    for step in range(1, STEPS + 1):
        for name, p in params.items():
            p.grad = noises[name][step - 1] + 0.5 * p.detach()
        optimizer.step()
        if step in KEPT:
            for name, p in params.items():
                kept[f"{step}.{name}"] = p.detach().numpy().copy()
    return kept


def table(kind: str, settings: dict[str, object]) -> np.ndarray:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.04},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    schedule = getattr(torch.optim.lr_scheduler, kind)(optimizer, **settings)
    return run(optimizer, schedule)


def run(optimizer: torch.optim.Optimizer, schedule: object) -> np.ndarray:
    rows = []
    for _ in range(60):
        rows.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return np.array(rows)  # steps, groups, (rate, momentum)


def sequential() -> np.ndarray:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler
    parts = [
        scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=10),
        scheduler.CosineAnnealingLR(optimizer, T_max=30),
        scheduler.ExponentialLR(optimizer, gamma=0.9),
    ]
    return run(optimizer, scheduler.SequentialLR(optimizer, parts, milestones=[10, 40]))


def plateau() -> tuple[np.ndarray, np.ndarray]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=2, cooldown=1, factor=0.4, min_lr=0.001
    )
    metrics = np.abs(np.random.default_rng(3).standard_normal(60)) + np.linspace(2, 1, 60)
    rates = []
    for value in metrics:
        schedule.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return metrics, np.array(rates)


def main() -> None:
    warnings.simplefilter("error")
    HERE.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for label, shapes in (("shapes", SHAPES), ("matrices", MATRICES)):
        arrays |= {f"{label}.initial.{k}": v for k, v in initial(shapes).items()}
        arrays |= {f"{label}.noise.{k}": v for k, v in noise(shapes).items()}
    true_bfloat16 = torch.Tensor.bfloat16
    for name, (kind, settings) in CASES.items():
        # Muon's iteration runs in bfloat16 there and in float32 here; it writes into the copy.
        if kind == "Muon":
            torch.Tensor.bfloat16 = lambda x: x.clone()  # type: ignore[method-assign]
        arrays |= {f"{name}.{k}": v for k, v in trajectory(kind, settings).items()}
        torch.Tensor.bfloat16 = true_bfloat16  # type: ignore[method-assign]
    arrays |= {f"schedule.{name}": table(*case) for name, case in SCHEDULES.items()}
    arrays["schedule.sequential"] = sequential()
    arrays["plateau.metrics"], arrays["plateau.rates"] = plateau()
    cases = {
        "torch": torch.__version__,
        "cases": json.dumps(CASES),
        "schedules": json.dumps(SCHEDULES),
    }
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    save_file(arrays, HERE / "trajectories.safetensors", metadata=cases)
    print(f"torch {torch.__version__}: {len(arrays)} arrays")


if __name__ == "__main__":
    main()
