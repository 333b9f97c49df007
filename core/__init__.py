"""The core: tensors, gradients, layers, optimizers, data, training and weight files."""
