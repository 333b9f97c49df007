"""Time of small calls that succeed, beside another checkout: what checks and messages cost.

    git worktree add ../before HEAD~9 && mkdir ../two && ln -s ../before ../two/bestiary
    python tests/benchmarks/errors.py --before ../two

`--before` is the folder that holds the other `bestiary`. Each side is a process; they take turns,
and the least time of each call counts. Without `--before`: this checkout alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from timeit import repeat
from typing import Any

ROUNDS, LOOPS = 5, 2_000


def jobs() -> dict[str, Callable[[], Any]]:
    """Calls so small that the library's own part of them is most of the time."""
    import bestiary as bt
    from bestiary import nn
    from bestiary.nn import functional as F

    x, y = bt.ones((4, 4)), bt.ones((4, 4))
    wanted = bt.ones((4, 4)).requires_grad_()
    layer, table = nn.Linear(4, 4), nn.Embedding(4, 4)
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    norm = nn.BatchNorm1d(4)
    ids = bt.tensor([0, 1, 2, 3])
    state = layer.state_dict()
    return {
        "x + y": lambda: x + y,
        "x @ y": lambda: x @ y,
        "exp of a tensor with gradients": lambda: bt.exp(wanted),
        "sum": lambda: bt.sum(x, axis=0),
        "concat": lambda: bt.concat([x, y], axis=0),
        "zeros": lambda: bt.zeros((4, 4)),
        "Linear": lambda: layer(x),
        "Sequential of three": lambda: block(x),
        "BatchNorm1d in training": lambda: norm(x),
        "Embedding": lambda: table(ids),
        "cross_entropy": lambda: F.cross_entropy(x, ids),
        "backward of a sum": lambda: (wanted * 2).sum().backward(),
        "making a Linear with keywords": lambda: nn.Linear(in_features=4, out_features=4),
        "load_state_dict": lambda: layer.load_state_dict(state),
    }


def measure() -> dict[str, float]:
    """Microseconds of each call."""
    found = {}
    for name, job in jobs().items():
        loops = LOOPS // 10 if name.startswith(("making", "load")) else LOOPS
        found[name] = min(repeat(job, number=loops, repeat=3)) / loops * 1e6
    return found


def of(folder: Path) -> dict[str, float]:
    """Measured by a process in which `folder` holds the package."""
    answer = subprocess.run(
        [sys.executable, __file__, "--child"],
        env=os.environ | {"PYTHONPATH": str(folder.resolve())},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    numbers: dict[str, float] = json.loads(answer.stdout)
    return numbers


def least(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: min(r[name] for r in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="folder that holds another checkout")
    parser.add_argument("--here", type=Path, help="folder that holds this one, as `bestiary`")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        json.dump(measure(), sys.stdout)
        return
    if given.before is None:
        for name, microseconds in measure().items():
            print(f"{name:34} {microseconds:8.2f} us")
        return
    here = given.here or Path(__file__).resolve().parents[3]
    sides: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for _ in range(ROUNDS):
        sides[0].append(of(given.before))
        sides[1].append(of(here))
    before, after = map(least, sides)
    print(f"{'call':34} {'before, us':>10} {'now, us':>10} {'ratio':>6}")
    for name in before:
        ratio = after[name] / before[name]
        print(f"{name:34} {before[name]:10.2f} {after[name]:10.2f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
