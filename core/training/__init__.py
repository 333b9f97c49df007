"""The trainer, its callbacks, metrics and checkpoints."""
