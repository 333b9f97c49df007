"""Optimizers, learning-rate schedules, gradient clipping and scaling, weight averaging."""

from typing import TYPE_CHECKING

from ..spelling import answering
from . import lr_scheduler
from .adafactor import Adafactor
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .clip import clip_grad_norm_, clip_grad_value_
from .ema import EMA
from .group import ParamGroup
from .lion import Lion
from .lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from .muon import Muon
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .scaler import GradScaler
from .sgd import SGD

__all__ = [
    "EMA",
    "SGD",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "GradScaler",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "Lion",
    "MultiStepLR",
    "Muon",
    "OneCycleLR",
    "Optimizer",
    "ParamGroup",
    "PolynomialLR",
    "RMSprop",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]

if not TYPE_CHECKING:  # type checkers know which names there are
    __getattr__ = answering("bestiary.optim", __all__)
