"""Text models, one file per architecture, with tokenizers, generation and tasks."""
