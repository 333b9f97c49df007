"""Models by name: the registry, downloads and cache, loading, the command line."""

from ..core.spelling import answering

__getattr__ = answering("bestiary.hub", ())
