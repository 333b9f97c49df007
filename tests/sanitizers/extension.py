"""A plugin of pytest: the kernels come from the file that `BESTIARY_TEST_EXTENSION` names.

Empty, it takes them away, as if they had never been built.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "bestiary.core.native._native"
assert NAME.rpartition(".")[0] not in sys.modules, "the kernels were imported before the plugin"
_path = os.environ["BESTIARY_TEST_EXTENSION"]
if _path:
    _spec = importlib.util.spec_from_file_location(NAME, _path)
    assert _spec is not None and _spec.loader is not None
    sys.modules[NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[NAME])
else:
    sys.modules[NAME] = None  # type: ignore[assignment]  # importing it is an ImportError then
