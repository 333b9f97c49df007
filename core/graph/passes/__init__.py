"""What is done to a recorded graph before it runs: each pass is a file, and says what it did.

A pass takes a graph and changes it in place; it returns how many calls it changed or removed. It
holds for inference: values are computed once, and nothing needs a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from ..record import Graph
from .affine import fold_affine
from .attention import find_attention
from .chains import fuse_chains
from .common import share_common
from .constants import fold_constants
from .dead import remove_dead
from .epilogues import fuse_epilogues
from .gelus import find_gelus
from .linears import find_linears
from .reshapes import drop_reshapes
from .rownorms import find_row_norms

Pass = Callable[[Graph], int]

#: In the order in which they are applied.
PASSES: tuple[tuple[str, Pass], ...] = (
    ("dead calls removed", remove_dead),
    ("constants computed", fold_constants),
    ("calls that were there already", share_common),
    ("products that are linear maps", find_linears),
    ("reshapes left out", drop_reshapes),
    ("products that are attention", find_attention),
    ("norms of rows that were written out", find_row_norms),
    ("GELUs that were written out", find_gelus),
    ("norms and scales folded into products", fold_affine),
    ("activations and sums joined to products", fuse_epilogues),
    ("elementwise operations joined to chains", fuse_chains),
    ("dead calls removed at last", remove_dead),
)

#: Of training steps, whose parameters are no constants.
STEP_PASSES: tuple[tuple[str, Pass], ...] = (
    ("dead calls removed", remove_dead),
    ("calls that were there already", share_common),
    ("elementwise operations joined to chains", fuse_chains),
)

__all__ = [
    "PASSES",
    "STEP_PASSES",
    "Pass",
    "drop_reshapes",
    "find_attention",
    "find_gelus",
    "find_linears",
    "find_row_norms",
    "fold_affine",
    "fold_constants",
    "fuse_chains",
    "fuse_epilogues",
    "remove_dead",
    "share_common",
]
