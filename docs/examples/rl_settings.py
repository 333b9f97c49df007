"""Hyper-parameters that several examples of reinforcement learning share."""

from __future__ import annotations

from typing import Any

#: DQN on CartPole, of rl-baselines3-zoo; `hidden` is (256, 256) there.
DQN_CARTPOLE: dict[str, Any] = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
