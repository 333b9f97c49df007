"""Datasets, samplers, loaders and readers of data in files."""
