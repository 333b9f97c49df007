"""The step of CartPole for many environments at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .runtime import GRAIN, check, run

_FLOAT64, _INT64 = np.dtype(np.float64), np.dtype(np.int64)


def cartpole(
    state: NDArray[np.float64], actions: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The states after a step, and which poles fell or carts left the track.

    Equal to `rl.environments.cartpole` but for roundings. `actions` are 0 for a push to the left,
    else one to the right.

    Shape: (4, N) and (N,) -> (4, N) and (N,)
    """
    check("cartpole", "state", state, (4, None), _FLOAT64)
    number = state.shape[1]
    check("cartpole", "actions", actions, (number,), _INT64)
    new, ended = np.empty_like(state), np.empty(number, np.uint32)
    run("cartpole", (state, actions, new, ended), (number,), (), number, GRAIN // 4)
    return new, ended.astype(np.bool_)
