"""Training: the loop, its checkpoints, how it is shown, and what helps to get it right."""

from .history import History
from .overfit import Overfit, overfit_one_batch
from .rates import RateSearch, lr_find
from .store import Checkpoint, CheckpointStore
from .trainer import Trainer

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "History",
    "Overfit",
    "RateSearch",
    "Trainer",
    "lr_find",
    "overfit_one_batch",
]
