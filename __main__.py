"""`python -m bestiary`, for where the command `bestiary` is not on the path."""

from .hub.cli import main

main()
