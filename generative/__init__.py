"""Generative models, one file per architecture, with schedulers and pipelines."""
