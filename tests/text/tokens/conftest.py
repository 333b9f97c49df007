"""Mixed text, and small tokenizers that the library `tokenizers` trains on it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    "the quick brown Fox jumps over Lazy dogs don't I'll they've naïve café straße İstanbul ΟΔΟΣ "
    "1234567890 3.14159 def f(x): return x**2 foo_bar {a: [1,2]} http://a.b/c?d=e&f 👩‍👩‍👧 👍🏽 "
    "🇩🇪 ❤️ #tag @me e\u0301 \u200f שלום مرحبا 日本語 한국어 हिन्दी ไทย"
).split(" ")
SPACES = (" ", "  ", "\t", "\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u2003", " " * 17)
# First and last characters of scripts, marks, symbols, controls, private use.
BLOCKS = (
    *((0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5F4)),
    *((0x620, 0x64A), (0x900, 0x963), (0xE01, 0xE3A), (0x1100, 0x1170), (0x3041, 0x3096)),
    *((0x30A1, 0x30FA), (0x4E00, 0x4FFF), (0xAC00, 0xAD00), (0x1F300, 0x1F5FF)),
    *((0x2000, 0x206F), (0x300, 0x36F), (0x20000, 0x20100), (0x2150, 0x218B)),
    *((0x1D400, 0x1D454), (0xFB00, 0xFB06), (0xFF01, 0xFFEE), (0x0, 0x1F), (0x7F, 0x9F)),
    *((0xFE00, 0xFE0F), (0xE000, 0xE010)),
)


def mixed_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of words, characters of all scripts, spaces and long numbers."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 9)):
            kind = draw.random()
            if kind < 0.55:
                parts.append(draw.choice(WORDS))
            elif kind < 0.8:
                low, high = draw.choice(BLOCKS)
                size = draw.randint(1, 8)
                parts.append("".join(chr(draw.randint(low, high)) for _ in range(size)))
            elif kind < 0.9:
                parts.append(draw.choice(SPACES))
            else:
                parts.append(str(draw.randint(0, 10 ** draw.randint(1, 30))))
            parts.append(draw.choice(["", " ", " ", " "]))
        lines.append("".join(parts))
    return lines


@pytest.fixture(scope="session")
def lines() -> list[str]:
    return mixed_lines(10_000)


def _save(folder: Path, whole: Any, config: dict[str, Any], bare: bool) -> Path:
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if bare:
        whole.model.save(str(folder))
    else:
        whole.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ "bert", "gpt2", "roberta": a folder with tokenizer.json; with "-bare": with a vocabulary."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    root = tmp_path_factory.mktemp("tokenizers")
    text = mixed_lines(600, seed=7)
    found: dict[str, Path] = {}

    def keep(name: str, whole: Any, config: dict[str, Any]) -> None:
        found[name] = _save(root / name, whole, config, False)
        found[f"{name}-bare"] = _save(root / f"{name}-bare", whole, config, True)

    for name, lower in (("bert", True), ("bert-cased", False)):
        bert = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        bert.normalizer = normalizers.BertNormalizer(lowercase=lower)
        bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        bert.decoder = decoders.WordPiece()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special)
        bert.train_from_iterator(text, trainer)
        ends = [(token, bert.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
        bert.post_processor = processors.BertProcessing(*ends)
        config = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
        keep(name, bert, {**config, "do_lower_case": lower})

    for name, special, prefix in (
        ("gpt2", ["<|endoftext|>"], False),
        ("roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], True),
    ):
        pairs = tokenizers.Tokenizer(models.BPE())
        pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        pairs.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        pairs.train_from_iterator(text, trainer)
        config = {"add_prefix_space": prefix, "model_max_length": 10**30}
        if name == "roberta":
            mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
            pairs.add_special_tokens([mask])
            ends = [(token, pairs.token_to_id(token)) for token in ("</s>", "<s>")]
            pairs.post_processor = processors.RobertaProcessing(*ends)
            config |= {"tokenizer_class": "RobertaTokenizer"}
        else:
            pairs.post_processor = processors.ByteLevel(trim_offsets=False)
            config |= {"tokenizer_class": "GPT2Tokenizer"}
        keep(name, pairs, config)
    return found
