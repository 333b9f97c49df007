"""Tiny decoders with random weights, saved by transformers, with scores and greedy continuations.

Run: python tests/references/decoders.py [names]
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import common
import numpy as np
import torch
import transformers

_LLAMA = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"vocab_size": 101, "n_positions": 128, "n_embd": 24, "n_layer": 2, "n_head": 3}
_GPT2 |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500.0,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_YARN |= {"rope_theta": 1000.0}
_GEMMA = {**_LLAMA, "head_dim": 6, "query_pre_attn_scalar": 10, "sliding_window": 5}
_GEMMA |= {"layer_types": ["sliding_attention", "full_attention"]}
_GEMMA_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 900.0},
}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-transformers": ("GPT2LMHeadModel", _GPT2),
    "gpt2-transformers-scaled": (
        "GPT2LMHeadModel",
        {
            **_GPT2,
            "n_inner": 36,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "relu",
            "tie_word_embeddings": False,
        },
    ),
    "gpt2-transformers-bare": ("GPT2Model", _GPT2),
    "gpt2-transformers-classes": ("GPT2ForSequenceClassification", {**_GPT2, "num_labels": 3}),
    "llama-transformers": ("LlamaForCausalLM", _LLAMA),
    "llama-transformers-3": (
        "LlamaForCausalLM",
        {
            **_LLAMA,
            "rope_parameters": _LLAMA3,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 6,
        },
    ),
    "llama-transformers-yarn": ("LlamaForCausalLM", {**_LLAMA, "rope_parameters": _YARN}),
    "llama-transformers-classes": ("LlamaForSequenceClassification", {**_LLAMA, "num_labels": 4}),
    "mistral-transformers": ("MistralForCausalLM", {**_LLAMA, "sliding_window": 5}),
    "qwen2-transformers": ("Qwen2ForCausalLM", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen2-transformers-window": (
        "Qwen2ForCausalLM",
        {**_LLAMA, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3-transformers": ("Qwen3ForCausalLM", {**_LLAMA, "head_dim": 8}),
    "qwen3-transformers-bare": ("Qwen3Model", {**_LLAMA, "head_dim": 4}),
    "gemma3-transformers": ("Gemma3ForCausalLM", _GEMMA),
    "gemma3-transformers-linear": (
        "Gemma3ForCausalLM",
        {**_GEMMA, "rope_parameters": _GEMMA_ROPE, "tie_word_embeddings": False},
    ),
    "gemma3-transformers-bare": ("Gemma3TextModel", _GEMMA),
    "gemma3-transformers-classes": (
        "Gemma3TextForSequenceClassification",
        {**_GEMMA, "num_labels": 3},
    ),
}


def texts(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids (3, 13), and masks of texts that are padded on the left and on the right."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 101, (3, 13))
    left, right = np.ones((2, 3, 13), np.int64)
    left[1, :4] = left[2, :9] = 0
    right[1, 9:] = right[2, 4:] = 0
    return tuple(torch.tensor(x) for x in (ids, left, right))


# Classes at the defaults of their library, which are published sizes; two layers of the large ones.
_TWO = {"num_hidden_layers": 2}
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {}),
    "distilgpt2": ("GPT2LMHeadModel", {"n_layer": 6}),
    "llama": ("LlamaForCausalLM", _TWO),
    "mistral": ("MistralForCausalLM", _TWO),
    "qwen2": ("Qwen2ForCausalLM", _TWO),
    "qwen3": ("Qwen3ForCausalLM", _TWO),
    "gemma3": ("Gemma3ForCausalLM", _TWO),
}


def names() -> None:
    """Write config.json, names and shapes of every size, without weights."""
    found: dict[str, object] = {"made_with": common.metadata("transformers")}
    for name, (kind, changes) in NAMES.items():
        model_class = getattr(transformers, kind)
        config = model_class.config_class(**changes)
        with torch.device("meta"):
            model = model_class(config)
        said = json.loads(config.to_json_string(use_diff=False))
        found[name] = {"config": {**said, "architectures": [kind]}, **common.listing(model)}
    path = common.DATA / "decoder_names.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    """Write a folder for each, and names and shapes at full size."""
    if not sys.argv[1:] or "names" in sys.argv[1:]:
        names()
    for seed, (name, (kind, changes)) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        model_class = getattr(transformers, kind)
        model = model_class(model_class.config_class(**changes))
        common.randomise(model, seed)
        model.tie_weights()
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        ids, left, right = texts(seed)
        stored = {"input_ids": ids, "left": left, "right": right}
        with torch.no_grad():
            for side, mask in (("left", left), ("right", right)):
                places = (mask.cumsum(1) - 1).clamp(min=0)
                ids_padded = torch.where(mask.bool(), ids, 0)
                out = model(ids_padded, attention_mask=mask, position_ids=places)
                stored[f"{side}.output"] = out[0]
            if kind.endswith(("CausalLM", "LMHeadModel")):
                how = {"max_new_tokens": 50, "min_new_tokens": 50, "do_sample": False}
                stored["greedy"] = model.generate(ids[:1], **how, eos_token_id=None)[0, 13:]
        arrays = {key: value.numpy() for key, value in stored.items()}
        common.save_file(
            {k: np.ascontiguousarray(v) for k, v in arrays.items()},
            folder / "reference.safetensors",
            metadata=common.metadata("transformers"),
        )
        print(name, {k: v.shape for k, v in arrays.items()})


if __name__ == "__main__":
    main()
