"""Shows operations as they are called: without `xp`, which the library passes itself."""

from typing import Any

import griffe


class Ops(griffe.Extension):
    """Takes the first parameter from functions decorated with `@op`."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Called for each function that was read."""
        if any(str(d.value).split("(")[0] == "op" for d in func.decorators):
            func.parameters = griffe.Parameters(*[p for p in func.parameters if p.name != "xp"])
