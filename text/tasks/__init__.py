"""Tasks: models that take texts as they are and answer in words and numbers."""
