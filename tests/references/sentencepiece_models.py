"""Small SentencePiece models, and the ids that their own library and transformers give.

Trained here on the mixed text of the tokenizers' tests.
Run: python tests/references/sentencepiece_models.py
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import sentencepiece
import transformers

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS / "text" / "tokens"))

from conftest import mixed_lines  # noqa: E402

MODELS = {
    "unigram-nfkc": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"},
    "unigram-bytes": {"model_type": "unigram", "byte_fallback": True},
    "pairs-bytes": {"model_type": "bpe", "byte_fallback": True},
}
PLAIN = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "user_defined_symbols": ["<tool>"],
}
# Kind of tokenizer -> the model, the name of its file, tokenizer_config.json.
LAYOUTS = {
    "T5": ("unigram-nfkc", "spiece.model", {"pad_token": "</s>"}),
    "XLMRoberta": ("unigram-nfkc", "sentencepiece.bpe.model", {}),
    "Llama": ("pairs-bytes", "tokenizer.model", {"add_bos_token": True}),
}
TEXTS = ["the quick brown Fox", "naïve 日本語 don't", "ﬁ ① Ａ１ straße", "12345 f(x): 👍🏽", "a"]


def main() -> None:
    out = TESTS / "references" / "data" / "sentencepiece"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    corpus = [line.replace("\n", " ").replace("\0", "") for line in mixed_lines(3000, seed=7)]
    lines = [line for line in mixed_lines(10_000) if "\0" not in line]
    found = {"versions": {m.__name__: m.__version__ for m in (sentencepiece, transformers)}}
    for name, settings in MODELS.items():
        file = io.BytesIO()
        more = PLAIN if settings.get("byte_fallback") else {}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=file,
            vocab_size=2600,
            character_coverage=0.985,
            minloglevel=2,
            **{**more, **settings},
        )
        (out / f"{name}.model.gz").write_bytes(gzip.compress(file.getvalue(), 9, mtime=0))
        processor = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
        ids = processor.encode(lines)
        found[name] = {
            "lines": len(lines),
            "sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
            "ids": ids[:60],
            "texts": [processor.decode(row) for row in ids[:60]],
        }
    for kind, (name, file_name, config) in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = gzip.decompress((out / f"{name}.model.gz").read_bytes())
            (Path(folder) / file_name).write_bytes(model)
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
            reference = getattr(transformers, f"{kind}Tokenizer").from_pretrained(folder)
            found[kind] = {
                "model": name,
                "file": file_name,
                "config": config,
                "texts": TEXTS,
                "ids": [reference(text)["input_ids"] for text in TEXTS],
                "pair": reference("the Fox", "dogs")["input_ids"],
                "size": len(reference),
                "eos": reference.eos_token_id,
            }
    (out / "tokens.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
