"""The core: tensors, gradients, layers, optimizers, data, training.

To read it, begin with what every operation goes through: node.py (what is recorded), op.py (the
choke point), ops/elementwise.py (what operations look like), tensor.py, walk.py (the backward
pass), autograd.py (gradients as users ask for them). operands.py, operators.py and mistakes.py
are aids of these, kept out of the way.
"""
