"""Tiny CLIPs with random weights and tokenizers, saved by transformers, with their outputs.

The tokenizers are small ones, trained here on the project's pages; `bpe-gpt2` is one for GPT-2.
Also `clip_names.json`: the names and shapes of every tensor of the published sizes.
Run: python tests/references/clip.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import common
import numpy as np
import tokenizers
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, GPT2Tokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

ROOT = Path(__file__).parent.parent.parent
MERGES = 120

# Contractions, capitals, digits, spaces of all kinds, accents in two forms, other scripts, emoji
# of several characters, characters that are no text, special tokens, and a long word.
TEXTS = [
    "a photo of a cat.",
    "A Photo of a CAT!!",
    "  two  blanks\tand\na line ",
    "it's they'll I'M we've don't 's",
    "numbers 1234567890 3.14 x2y ½ ² Ⅷ ٣",
    "café cafe\u0301 naïve ÀÉÎ ß ẞ İstanbul ΟΔΟΣ ǅ",
    "日本語のテキスト 한국어 русский عربى हिन्दी",
    "emoji 👍🏽 👩‍👩‍👧 🇩🇪 ❤️",
    "no\u00a0break\u2003wide\u200bzero\ufeffmark\u0085next\u001cseparator",
    "<|startoftext|> inside <|endoftext|> and < |endoftext| >",
    "snake_case camelCase kebab-case a/b\\c {braces} [x] (y) #tag @you $5 50% a&b x^2 ~ `",
    "...!!!???---___'''\"\"\"",
    "x" * 70 + " " + "ab" * 40,
    "",
    " ",
    "\n\n  \n",
    "the the the shape of the tensor and the model of the model",
]

PROMPTS = ["a photo of a cat.", "a photo of a large dog.", "x"]
TEMPLATE, LABELS = "a drawing of a {}", ("cat", "large dog", "Model", "the shape of a tensor")
_TEXT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
_TEXT |= {"intermediate_size": 40, "max_position_embeddings": 24}
_VISION = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3}
_VISION |= {"intermediate_size": 44, "image_size": 16, "patch_size": 4}
# OpenAI's activation and old number for the end of a text; LAION's activation and the true number.
MODELS = {
    "clip-transformers": ("quick_gelu", 2, 10),
    "clip-transformers-gelu": ("gelu", None, 14),
}
INPUTS = ((2, 3, 16, 16), (1, 3, 22, 12))

NAMES = {
    "clip-vit-base-patch32": (32, 224, "base"),
    "clip-vit-base-patch16": (16, 224, "base"),
    "clip-vit-large-patch14": (14, 224, "large"),
    "clip-vit-large-patch14-336": (14, 336, "large"),
    "clip-vit-b-32-laion2b-s34b-b79k": (32, 224, "base"),
}


def train(suffix: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A small vocabulary with every byte, and its merges."""
    ends = {"end_of_word_suffix": suffix} if suffix else {}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(**ends))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=not suffix)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=12,
        **ends,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pages = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md"))]
    words = [word if suffix else text for text in pages for word in text.lower().split()]
    model.train_from_iterator(words if suffix else pages, trainer)
    merges = [tuple(pair) for pair in json.loads(model.to_str())["model"]["merges"]][:MERGES]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(c + suffix for c in alphabet if suffix)]
    tokens += ["".join(pair) for pair in merges]
    special = ["<|startoftext|>", "<|endoftext|>"] if suffix else ["<|endoftext|>"]
    return {token: i for i, token in enumerate(dict.fromkeys([*tokens, *special]))}, merges


def write_pair(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_expected(path: Path, tokenizer: object) -> None:
    rows = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    made_with = common.metadata("transformers", "tokenizers", script="clip.py")
    content = {"made_with": made_with, "rows": rows}
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def models() -> None:
    meta = common.metadata("transformers", script="clip.py")
    vocab, merges = train("</w>")
    end = vocab["<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=24)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((52, 40), Image.Resampling.BICUBIC))
    for seed, (name, (act, number, size)) in enumerate(MODELS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        ends = {"eos_token_id": end if number is None else number, "bos_token_id": end - 1}
        config = CLIPConfig(
            text_config={**_TEXT, **ends, "hidden_act": act, "vocab_size": len(vocab)},
            vision_config={**_VISION, "hidden_act": act, "num_hidden_layers": 2 - seed},
            projection_dim=size,
        )
        model = common.randomise(CLIPModel(config), 80 + seed)
        model.logit_scale.data.fill_(2.7)  # as at the start of the training
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if seed == 0:  # the other has only tokenizer.json
            write_pair(folder, vocab, merges)
            write_expected(folder / "tokens.json", tokenizer)
            processor.save_pretrained(folder)
        batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
        arrays = dict(batch)
        with torch.no_grad():
            text = model.text_model(**batch)
            arrays["text.tokens"] = text.last_hidden_state
            for i, shape in enumerate(INPUTS):
                x = common.images(*shape, seed=i)
                output = model(**batch, pixel_values=x, interpolate_pos_encoding=True)
                arrays[f"{i}.pixel_values"] = x
                arrays[f"{i}.output"] = output.logits_per_image
                arrays[f"{i}.image_embeds"] = output.image_embeds
                arrays[f"{i}.text_embeds"] = output.text_embeds
                arrays[f"{i}.tokens"] = output.vision_model_output.last_hidden_state

        def run(m: torch.nn.Module, x: torch.Tensor, batch: dict = batch) -> torch.Tensor:
            return m(**batch, pixel_values=x, interpolate_pos_encoding=True).logits_per_image

        if seed == 0:
            prompts = [TEMPLATE.format(label) for label in LABELS]
            inputs = dict(tokenizer(prompts, padding=True, return_tensors="pt"))
            inputs["pixel_values"] = processor(picture, return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                scores = model(**inputs).logits_per_image.softmax(-1)
            arrays |= {"picture": torch.tensor(picture), "zero_shot": scores}
        arrays.update(common.in_bfloat16(model, run, arrays))
        model.zero_grad()
        logits = run(model, arrays["0.pixel_values"])
        coefficients = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
        (logits * coefficients).sum().backward()
        for parameter, tensor in model.named_parameters():
            if parameter.endswith(
                (
                    "0.self_attn.k_proj.weight",
                    "0.mlp.fc1.bias",
                    "logit_scale",
                    "patch_embedding.weight",
                    "visual_projection.weight",
                    "class_embedding",
                )
            ):
                arrays[f"grad.{parameter}"] = tensor.grad.clone()
        common.save(folder / "reference.safetensors", arrays, meta)


def gpt2() -> None:
    vocab, merges = train("")
    folder = common.DATA / "bpe-gpt2"
    write_pair(folder, vocab, merges)
    write_expected(folder / "tokens.json", GPT2Tokenizer(vocab=vocab, merges=merges))


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    found: dict[str, object] = {"made_with": common.metadata("transformers")}
    for name, (patch, pixels, size) in NAMES.items():
        vision: dict[str, int] = {"patch_size": patch, "image_size": pixels}
        text: dict[str, int] = {}
        if size == "large":
            vision |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
            vision |= {"num_attention_heads": 16}
            text |= {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        dim = text.get("hidden_size", 512)
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=dim)
        with torch.device("meta"):
            found[name] = {"transformers": common.listing(CLIPModel(config))}
        print(name, found[name]["transformers"]["parameters"])
    path = common.DATA / "clip_names.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    models()
    gpt2()
    names()
