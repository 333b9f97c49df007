"""Modules and layers, functions of neural networks, initialisers."""

from . import init as init
from .container import ModuleDict, ModuleList, Sequential
from .module import HookHandle, LoadResult, Module
from ..notice import TrainingWarning
from .parameter import Buffer, Parameter

__all__ = [
    "Buffer",
    "HookHandle",
    "LoadResult",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "Sequential",
    "TrainingWarning",
    "init",
]
