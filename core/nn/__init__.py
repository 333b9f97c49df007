"""Modules and layers, functions of neural networks, initialisers."""
