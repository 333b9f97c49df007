"""Published text architectures at full size with random weights, saved by transformers.

    ../peer/bin/python tests/benchmarks/texts.py MODELS           # in the peer's environment, once
    python tests/benchmarks/run.py --peer ../peer/bin/python --models MODELS --only text

Both sides of run.py load the same folders and are compared before they are timed. Encoders read up
to 128 tokens; language models read 512, and write 16 tokens after 64, each the best one. A step of
training is the loss of all tokens, its gradient, and AdamW, without dropout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
_SMOLLM = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "text-minilm": ("BertModel", _MINILM),
    "text-bert-base": ("BertModel", {}),
    "text-gpt2": ("GPT2LMHeadModel", {}),
    "text-smollm2-135m": ("LlamaForCausalLM", _SMOLLM),
}
#: What is timed of each: how, texts, tokens.
RUNS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "text-minilm": (("read", 1, 16), ("read", 1, 128), ("read", 8, 128)),
    "text-bert-base": (("read", 1, 128), ("read", 8, 128)),
    "text-gpt2": (("read", 1, 512), ("write", 1, 16), ("train", 4, 256)),
    "text-smollm2-135m": (("read", 1, 512), ("write", 1, 16)),
}
PROMPT = 64  # tokens before those that are written


def opened(folder: Path) -> Any:
    """The model in a folder, built by the library that saved it."""
    import transformers

    return getattr(transformers, MODELS[folder.name][0]).from_pretrained(folder).eval()


def make(folder: Path) -> None:
    """Save every model with random weights."""
    import torch
    import transformers

    for name, (kind, settings) in MODELS.items():
        torch.manual_seed(1)
        model_class = getattr(transformers, kind)
        model_class(model_class.config_class(**settings)).save_pretrained(folder / name)
        print(name, flush=True)
    (folder / "texts.json").write_text(json.dumps(list(MODELS)), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
