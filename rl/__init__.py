"""Reinforcement learning: one file per algorithm, with environments, buffers and evaluation."""
