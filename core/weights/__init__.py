"""Weight files: safetensors, and torch checkpoints read without executing anything."""
