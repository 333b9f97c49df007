"""What compiling did, for users to print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """What compiling did for inputs of certain shapes.

    Attributes:
        inputs: shapes of the tensors.
        recorded, left: calls before and after the passes.
        passes: what each did, and to how many calls.
        seconds: what recording and compiling took.
        text: the graph that is run.
    """

    inputs: tuple[tuple[int, ...], ...]
    recorded: int
    left: int
    passes: tuple[tuple[str, int], ...]
    seconds: float
    text: str

    def __str__(self) -> str:
        shapes = ", ".join(str(shape) for shape in self.inputs)
        head = f"{shapes}: {self.recorded} calls recorded, {self.left} left"
        lines = [f"{head}, compiled in {self.seconds * 1e3:.0f} ms"]
        lines += [f"  {count:4d} {what}" for what, count in self.passes if count]
        return "\n".join(lines)
