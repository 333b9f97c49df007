from typing import Any

kernels: dict[str, int]

def run(
    kernel: int,
    arrays: tuple[Any, ...],
    ints: tuple[int, ...],
    floats: tuple[float, ...],
    items: int,
    grain: int,
    /,
) -> None: ...
def set_threads(count: int, /) -> None: ...
def set_isa(name: str, /) -> None: ...
def info() -> tuple[str, int, int, int, int]: ...
def usable() -> list[str]: ...
