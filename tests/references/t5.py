"""Tiny T5s with random weights, saved by transformers: states, scores, greedy texts, beams.

Run: python tests/references/t5.py
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import common
import numpy as np
import torch
import transformers

_T5 = {"vocab_size": 101, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 2, "num_heads": 3}
_T5 |= {"relative_attention_num_buckets": 8}
_T5 |= {"relative_attention_max_distance": 20, "decoder_start_token_id": 0}
_FLAN = {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-transformers": ("T5ForConditionalGeneration", _T5),
    "t5-transformers-flan": ("T5ForConditionalGeneration", _FLAN),
    "t5-transformers-bare": ("T5Model", {**_T5, "num_decoder_layers": 3}),
    "t5-transformers-encoder": ("T5EncoderModel", _FLAN),
    "mt5-transformers": ("MT5ForConditionalGeneration", _FLAN),
}


def main() -> None:
    """Write a folder for each."""
    for seed, (name, (kind, changes)) in enumerate(MODELS.items()):
        model_class = getattr(transformers, kind)
        model = model_class(model_class.config_class(**changes))
        untied = kind.startswith("T5For") and "flan" in name
        if untied:  # the published flan-T5 has a head of its own, which the library ties when new
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        common.randomise(model, seed)
        with torch.no_grad():  # so that texts do not end in repeating one token
            model.shared.weight.mul_(4)
            if hasattr(model, "lm_head") and not untied:
                model.lm_head.weight = model.shared.weight
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if untied:
            path = folder / "config.json"
            said = json.loads(path.read_text())
            path.write_text(json.dumps({**said, "tie_word_embeddings": False}, indent=2) + "\n")
        rng = np.random.default_rng(seed)
        ids = torch.tensor(rng.integers(2, 101, (3, 27)))
        mask = torch.ones((3, 27), dtype=torch.int64)
        mask[1, 19:] = mask[2, 5:] = 0
        ids = torch.where(mask.bool(), ids, 0)
        decoder_ids = torch.tensor(rng.integers(2, 101, (3, 24)))
        decoder_ids[:, 0] = 0
        stored = {"input_ids": ids, "mask": mask, "decoder_input_ids": decoder_ids}
        with torch.no_grad():
            stored["states"] = model.get_encoder()(ids, attention_mask=mask)[0]
            if hasattr(model, "decoder"):
                out = model(ids, attention_mask=mask, decoder_input_ids=decoder_ids)
                stored["output"] = out[0]
            if hasattr(model, "lm_head"):
                how = {"max_new_tokens": 50, "min_new_tokens": 50, "do_sample": False}
                given = {"attention_mask": mask, **how, "eos_token_id": None}
                stored["greedy"] = model.generate(ids, **given)[:, 1:]
                how = {"max_new_tokens": 12, "num_beams": 4, "num_return_sequences": 2}
                how |= {"output_scores": True, "return_dict_in_generate": True}
                found = model.generate(ids, attention_mask=mask, eos_token_id=1, **how)
                stored["beams"] = found.sequences[:, 1:]
                stored["scores"] = found.sequences_scores
        arrays = {key: np.ascontiguousarray(value.numpy()) for key, value in stored.items()}
        versions = common.metadata("transformers")
        common.save_file(arrays, folder / "reference.safetensors", metadata=versions)
        print(name, {k: v.shape for k, v in arrays.items()})


if __name__ == "__main__":
    main()
