"""Continued texts of tiny models by transformers: greedy, with penalties, and by beam search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import DATA, metadata, randomise
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

TEXT = Path(__file__).with_name("README.md").read_text()
TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
PROMPTS = [[40, 81, 200, 17, 9, 77], [260, 5, 33], [12, 90, 91, 92, 13, 14, 15, 90, 91]]

BEAMS: dict[str, dict[str, Any]] = {
    "plain": {"num_beams": 3, "num_return_sequences": 3},
    "early": {"num_beams": 4, "num_return_sequences": 2, "early_stopping": True},
    "never": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    "short": {"num_beams": 3, "num_return_sequences": 3, "length_penalty": -1.0},
    "sum": {"num_beams": 2, "length_penalty": 0.0, "early_stopping": "never"},
    "ngram": {
        "num_beams": 3,
        "num_return_sequences": 3,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
    },
    "late": {"num_beams": 3, "min_new_tokens": 8},
}
GREEDY: dict[str, dict[str, Any]] = {
    "greedy": {},
    "repetition": {"repetition_penalty": 1.7},
    "ngram": {"no_repeat_ngram_size": 3},
    "suppress": {"suppress_tokens": [40, 41, 42], "begin_suppress_tokens": [60]},
}


def tokenizer(folder: Path) -> None:
    """Byte-level, 290 tokens, four of them special."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|start|>", "<|end|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
    )
    fast.save_pretrained(folder)


def chat_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["chat_template"] = TEMPLATE
    path.write_text(json.dumps(settings, indent=2))


def generated(model: torch.nn.Module, prompts: list[list[int]], **settings: Any) -> dict[str, Any]:
    """The new tokens of each answer, cut behind the end token, and the scores of beams."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[3] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        pad_token_id=3,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    ends = settings["eos_token_id"] or []
    rows = []
    for row in out.sequences[:, longest:].tolist():
        cut = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        rows.append(row[:cut])
    found: dict[str, Any] = {"settings": settings, "ids": rows}
    if settings.get("num_beams", 1) > 1:
        found["scores"] = out.sequences_scores.tolist()
    return found


def family(name: str, model: Any, defaults: dict[str, Any]) -> None:
    folder = DATA / f"generation-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    randomise(model, 5)
    if name == "gpt2":
        model.transformer.wpe.weight.data *= 4  # or one token is repeated for ever
    model.generation_config = GenerationConfig(**defaults)
    model.save_pretrained(folder)
    tokenizer(folder)
    found: dict[str, Any] = {"prompts": PROMPTS, "greedy": {}, "beams": {}}
    for key, settings in GREEDY.items():
        found["greedy"][key] = [
            generated(model, [p], max_new_tokens=50, eos_token_id=None, **settings) for p in PROMPTS
        ]
    found["batch"] = generated(model, PROMPTS, max_new_tokens=50, eos_token_id=None)
    first = found["greedy"]["greedy"][0]["ids"][0]
    for key, settings in BEAMS.items():
        # Ends that come: one that the greedy text holds, and one in thirteen tokens.
        for ends in ([first[3]], list(range(4, 290, 13))):
            found["beams"][f"{key}-{len(ends)}"] = [
                generated(model, [p], max_new_tokens=20, eos_token_id=ends, **settings)
                for p in PROMPTS
            ]
    found["versions"] = metadata("transformers", "tokenizers")
    (folder / "reference.json").write_text(json.dumps(found))


def processors() -> None:
    """What transformers' processors make of logits, one after the other."""
    rng = np.random.default_rng(3)
    arrays: dict[str, np.ndarray] = {}
    prompt, new = [3, 9, 4, 9, 4, 7], [9, 4]
    ids = torch.tensor([prompt + new])
    logits = torch.tensor(rng.normal(0, 3, (1, 300)).astype(np.float32))
    arrays["logits"] = logits[0].numpy()
    cases = {
        "repetition": RepetitionPenaltyLogitsProcessor(1.5),
        "ngram1": NoRepeatNGramLogitsProcessor(1),
        "ngram2": NoRepeatNGramLogitsProcessor(2),
        "ngram3": NoRepeatNGramLogitsProcessor(3),
        "late": MinNewTokensLengthLogitsProcessor(len(prompt), 4, [9, 11], device="cpu"),
        "suppress": SuppressTokensLogitsProcessor([5, 8], device="cpu"),
        "begin": SuppressTokensAtBeginLogitsProcessor([5, 8], len(prompt) + 2, device="cpu"),
    }
    for name, processor in cases.items():
        arrays[name] = processor(ids, logits.clone())[0].numpy()
    warpers = {
        "t0.7": [TemperatureLogitsWarper(0.7)],
        "k10": [TopKLogitsWarper(10)],
        "p0.8": [TopPLogitsWarper(0.8)],
        "p0.999": [TopPLogitsWarper(0.999)],
        "m0.05": [MinPLogitsWarper(0.05)],
        "t1.5,k40,p0.9,m0.02": [
            TemperatureLogitsWarper(1.5),
            TopKLogitsWarper(40),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.02),
        ],
    }
    for name, chain in warpers.items():
        x = logits.clone()
        for warper in chain:
            x = warper(ids, x)
        arrays[f"warped/{name}"] = x.softmax(-1)[0].numpy()
    save_file(arrays, DATA / "generation.safetensors", metadata("transformers"))


def main() -> None:
    processors()
    family(
        "gpt2",
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=290,
                n_positions=96,
                n_embd=24,
                n_layer=2,
                n_head=3,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=None,
            )
        ),
        {"bos_token_id": 0, "eos_token_id": 0},
    )
    family(
        "llama",
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=290,
                hidden_size=24,
                intermediate_size=40,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                bos_token_id=0,
                eos_token_id=0,
            )
        ),
        {
            "bos_token_id": 0,
            "eos_token_id": [0, 2],
            "pad_token_id": 3,
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.9,
        },
    )
    chat_template(DATA / "generation-llama")


if __name__ == "__main__":
    main()
