"""Tokenizers: texts to numbers and back, and chat templates."""
