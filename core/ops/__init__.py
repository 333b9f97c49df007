"""The primitives, each with its gradient, and the functions of the array API standard."""
