"""Tiny encoders with random weights and every head, saved by transformers, with their outputs.

Run: python tests/references/encoders.py
"""

from __future__ import annotations

import shutil
from typing import Any

import common
import numpy as np
import torch
import transformers

_SMALL = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
}
_ALBERT = {**_SMALL, "embedding_size": 10, "num_hidden_layers": 3}
_DISTIL = {"vocab_size": 101, "dim": 24, "hidden_dim": 40, "n_layers": 2, "n_heads": 3}
_DISTIL |= {"max_position_embeddings": 40}

HEADS = {
    "": "Model",
    "-mask": "ForMaskedLM",
    "-classes": "ForSequenceClassification",
    "-tokens": "ForTokenClassification",
    "-spans": "ForQuestionAnswering",
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SMALL),
    "roberta": ("Roberta", {**_SMALL, "pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {**_SMALL, "pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": ("DistilBert", _DISTIL),
    "deberta-v2": (
        "DebertaV2",
        {
            **_SMALL,
            "relative_attention": True,
            "position_buckets": 6,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
        },
    ),
    "mpnet": ("MPNet", _SMALL),
    "modernbert": (
        "ModernBert",
        {
            **_SMALL,
            "num_hidden_layers": 4,
            "local_attention": 6,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
    ),
    "albert": ("Albert", {**_ALBERT, "hidden_act": "gelu_new", "num_hidden_groups": 1}),
}
ONLY = {"xlm-roberta": ("-mask",)}  # the same code as RoBERTa's
SEGMENTS = ("bert", "albert")


def main() -> None:
    """Write a folder for each."""
    seed = 0
    for family, (prefix, changes) in FAMILIES.items():
        for ending, kind in HEADS.items():
            if ending not in ONLY.get(family, HEADS):
                continue
            seed += 1
            model_class = getattr(transformers, prefix + kind)
            labels = {"num_labels": 5} if "Classification" in kind else {}
            model = model_class(model_class.config_class(**changes, **labels))
            common.randomise(model, seed)
            model.tie_weights()
            folder = common.DATA / f"{family}-transformers{ending}"
            shutil.rmtree(folder, ignore_errors=True)
            model.save_pretrained(folder)
            rng = np.random.default_rng(seed)
            ids = rng.integers(5, 101, (3, 11))
            mask = np.ones((3, 11), np.int64)
            mask[1, 8:] = mask[2, 3:] = 0
            ids[mask == 0] = model.config.pad_token_id
            given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
            if family in SEGMENTS:
                given["token_type_ids"] = torch.tensor(rng.integers(0, 2, ids.shape))
            with torch.no_grad():
                out = model(**given)
            stored = {**given, **{f"output.{key}": value for key, value in out.items()}}
            common.save_file(
                {k: np.ascontiguousarray(v.numpy()) for k, v in stored.items()},
                folder / "reference.safetensors",
                metadata=common.metadata("transformers"),
            )
            (folder / "model.safetensors").chmod(0o644)
            print(folder.name, {k: tuple(v.shape) for k, v in stored.items()})


if __name__ == "__main__":
    main()
