"""Vision models, one file per architecture, with their transforms, metrics and tasks."""
