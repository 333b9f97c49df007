"""Llama, Mistral and Qwen in GGUF files: configurations in the metadata, names of weights.

Files that call themselves llama (Mistral's do too) keep the rows of queries and keys so that the
two features that are turned together are neighbours; here they are half a head apart, as in all
other files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.errors import ConfigError

_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF: dict[str, Any] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    **{f"blk.{{}}.{a}.{{rest}}": f"model.layers.{{}}.{b}.{{rest}}" for a, b in _PARTS.items()},
}
# Of the turns of longer texts, one for each pair: they belong to the configuration.
FACTORS = "rope_freqs.weight"
_NEEDED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")


def from_metadata(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Config that the metadata of a GGUF file say, and its factors of turns.

    Raises:
        ConfigError: something is missing, or not supported.
    """
    family = str(said.get("general.architecture"))

    def get(name: str, default: Any = None) -> Any:
        return said.get(f"{family}.{name}", default)

    missing = [f"{family}.{name}" for name in _NEEDED if get(name) is None]
    if missing:
        raise ConfigError(f"the GGUF file does not say {', '.join(missing)}", keys=missing)
    kind = get("rope.scaling.type", "none")
    scaling: tuple[tuple[str, Any], ...] | None = None
    if kind == "linear":
        scaling = (("rope_type", "linear"), ("factor", float(get("rope.scaling.factor", 1.0))))
    elif kind != "none":
        raise ConfigError(f"rope scaling {kind!r} of a GGUF file is not supported", got=kind)
    if FACTORS in said:
        factors = tuple(float(x) for x in np.ravel(said[FACTORS]))
        scaling = (("rope_type", "factors"), ("factors", factors))
    heads = int(get("attention.head_count"))
    tokens = said.get("tokenizer.ggml.tokens")
    size = get("vocab_size", len(tokens) if tokens is not None else None)
    if size is None:
        raise ConfigError("the GGUF file does not say how large the vocabulary is")
    pad = said.get("tokenizer.ggml.padding_token_id")
    width = get("attention.key_length")
    return {
        "vocab_size": int(size),
        "max_position_embeddings": int(get("context_length", 2048)),
        "hidden_size": int(get("embedding_length")),
        "intermediate_size": int(get("feed_forward_length")),
        "num_hidden_layers": int(get("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(get("attention.head_count_kv", heads)),
        "head_dim": None if width is None else int(width),
        "rms_norm_eps": float(get("attention.layer_norm_rms_epsilon", 1e-5)),
        "rope_theta": float(get("rope.freq_base", 10_000.0)),
        "rope_scaling": scaling,
        "attention_bias": family == "qwen2",
        "qk_norm": family == "qwen3",
        "pad_token_id": None if pad is None else int(pad),
    }


def tied(config: Any, names: Collection[str]) -> Any:
    """Whether the head is the table of token vectors: then the file has none of its own."""
    return replace(config, tie_word_embeddings="output.weight" not in names)


def halves_apart(state: dict[str, Any], config: Any) -> None:
    """Put the rows of queries and keys as other files have them, in place."""
    for name, array in state.items():
        for part, heads in (
            (".q_proj.", config.num_attention_heads),
            (".k_proj.", config.num_key_value_heads),
        ):
            if part in name:
                rest = array.shape[1:]
                rows = array.reshape(heads, array.shape[0] // heads // 2, 2, *rest)
                state[name] = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(array.shape)
