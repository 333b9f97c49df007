"""Run logs: what a training run writes while it goes on, in TensorBoard's event files."""
