"""Decoding: how a language model's next tokens are chosen."""
