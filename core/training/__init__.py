"""Training: the loop, its checkpoints, and how its progress is shown."""

from .store import Checkpoint, CheckpointStore
from .trainer import History, Trainer

__all__ = ["Checkpoint", "CheckpointStore", "History", "Trainer"]
