"""Learning rates that fall from the head to the first layer, for fine-tuning."""

from __future__ import annotations

from typing import Any

from ..core.nn import Module, Parameter


def layers_of(module: Module, head: Module) -> list[list[Parameter]]:
    """The parameters below the head, layer by layer in the order of the module's attributes.

    A layer is a block: what stands under one number ("blocks.3"), or under two if blocks are
    grouped in stages ("layer2.0", "stages.1.blocks.0"). What has no number and stands beside each
    other, such as the stem, is a layer as well.
    """
    own = {id(p) for p in head.parameters()}
    layers: list[list[Parameter]] = []
    last: str | None = None
    for name, parameter in module.named_parameters():
        if id(parameter) in own:
            continue
        layer = _layer(name)
        if not layers or layer != last:
            layers.append([])
        layers[-1].append(parameter)
        last = layer
    return layers


def layer_groups(layers: list[list[Parameter]], lr: float, decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: the last layer at `lr`, each one before at `decay` times the next.

    Source: Clark et al. 2020, "ELECTRA", appendix A.
    """
    count = len(layers)
    return [
        {"params": layer, "lr": lr * decay ** (count - 1 - i)} for i, layer in enumerate(layers)
    ]


def _layer(name: str) -> str:
    """The part of a parameter's name that its layer has in common; "" without a number."""
    parts = name.split(".")[:-1]
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if first is None:
        return ""
    end = first + 1
    if parts[end : end + 1] == ["blocks"]:
        end += 1
    if end < len(parts) and parts[end].isdigit():
        end += 1
    return ".".join(parts[:end])
