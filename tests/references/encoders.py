"""Tiny encoders with random weights and every head, saved by transformers, with their outputs.

Run: python tests/references/encoders.py
"""

from __future__ import annotations

import json
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

# Classes at the defaults of their library; the sizes of deberta-v3-small are those of its Config.
_V3 = {"num_hidden_layers": 6, "type_vocab_size": 0, "position_buckets": 256}
_V3 |= {"relative_attention": True, "position_biased_input": False, "share_att_key": True}
_V3 |= {"norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p"}
NAMES: dict[str, dict[str, Any]] = {family: {} for family in FAMILIES} | {"deberta-v2": _V3}


def names() -> None:
    """Write config.json, names and shapes of every family at full size, without weights."""
    found: dict[str, object] = {"made_with": common.metadata("transformers")}
    for family, changes in NAMES.items():
        for kind in ("ForMaskedLM", "ForSequenceClassification"):
            model_class = getattr(transformers, FAMILIES[family][0] + kind)
            config = model_class.config_class(**changes)
            with torch.device("meta"):
                model = model_class(config)
            said = {**json.loads(config.to_json_string(use_diff=False))}
            said["architectures"] = [model_class.__name__]
            found[model_class.__name__] = {"config": said, **common.listing(model)}
    path = common.DATA / "encoder_names.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


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
    names()


if __name__ == "__main__":
    main()
