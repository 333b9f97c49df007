"""A tiny Whisper with random weights, saved by transformers: spectrograms, scores, transcripts.

Run: python tests/references/whisper.py
"""

from __future__ import annotations

import shutil

import common
import numpy as np
import torch
import transformers

SEED = 15
CONFIG = {
    "vocab_size": 121,
    "num_mel_bins": 20,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 36,
    "max_source_positions": 50,
    "max_target_positions": 60,
    "decoder_start_token_id": 61,
    "eos_token_id": 60,
    "pad_token_id": 60,
    "bos_token_id": 60,
}
# 60 words, the end, the start, three languages, tasks, others, then 51 times from 0 to 1 second.
GENERATION = {
    "decoder_start_token_id": 61,
    "eos_token_id": 60,
    "pad_token_id": 60,
    "bos_token_id": 60,
    "max_length": 60,
    "suppress_tokens": [3, 7],
    "begin_suppress_tokens": [5, 60],
    "lang_to_id": {"<|en|>": 62, "<|de|>": 63, "<|fr|>": 64},
    "task_to_id": {"translate": 65, "transcribe": 66},
    "no_timestamps_token_id": 69,
    "max_initial_timestamp_index": 20,
    "is_multilingual": True,
    "return_timestamps": False,
}


def sound(seconds: float, seed: int) -> np.ndarray:
    """Tones that rise and fade, and noise; the last tenth is silent."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(16_000 * seconds)) / 16_000
    x = 0.3 * np.sin(2 * np.pi * (200 + 900 * t) * t) * np.exp(-t / 2)
    x += 0.02 * rng.standard_normal(len(t))
    return np.round(np.where(t < 0.9 * seconds, x, 0) * 32_767).astype(np.int16)


def main() -> None:
    """Write the folder."""
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**CONFIG))
    common.randomise(model, SEED)
    with torch.no_grad():  # so that texts do not repeat one word, and have times and ends
        model.model.decoder.embed_tokens.weight[60:].mul_(1.5)
        model.model.decoder.embed_positions.weight.mul_(2)
        for layer in model.model.decoder.layers:
            layer.encoder_attn.out_proj.weight.mul_(3)
            layer.fc2.weight.mul_(4)
    model.tie_weights()
    model.generation_config = transformers.GenerationConfig(**GENERATION)
    folder = common.DATA / "whisper-transformers"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    extract = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    extract.save_pretrained(folder)
    full = transformers.WhisperFeatureExtractor()
    samples = [sound(0.5, 0), sound(1.0, 1), sound(0.3, 2)]
    sounds = [x / np.float32(32_768) for x in samples]
    long = np.concatenate([sounds[1], sounds[0][::-1], sounds[2], sounds[1]])
    many = {"return_tensors": "pt", "sampling_rate": 16_000}
    features = extract(sounds, **many).input_features
    whole = extract(long, truncation=False, padding="longest", **many).input_features
    rng = np.random.default_rng(0)
    decoder_ids = torch.tensor(rng.integers(0, 121, (3, 24)))
    stored = {f"sound.{i}": torch.tensor(x) for i, x in enumerate(samples)}
    stored |= {"features": features, "whole": whole[0]}
    stored["full"] = full(sounds[0], **many).input_features[0, :, :60]
    stored["decoder_input_ids"] = decoder_ids
    once = {"force_unique_generate_call": True}
    with torch.no_grad():
        stored["states"] = model.model.encoder(features)[0]
        stored["output"] = model(features, decoder_input_ids=decoder_ids)[0]
        stored["language"] = model.detect_language(features)
        stored["greedy"] = model.generate(
            features, language="de", task="translate", max_new_tokens=50, **once
        )
        stored["timed"] = model.generate(
            features, language="en", return_timestamps=True, max_new_tokens=50, **once
        )
        stored["beams"] = model.generate(
            features, language="fr", num_beams=3, max_new_tokens=9, **once
        )
        found = model.generate(
            whole, language="en", task="transcribe", return_timestamps=True, return_segments=True
        )["segments"][0]
    stored["long.times"] = torch.tensor([[float(s["start"]), float(s["end"])] for s in found])
    stored["long.counts"] = torch.tensor([len(s["tokens"]) for s in found])
    stored["long.ids"] = torch.cat([s["tokens"] for s in found])
    print(stored["greedy"], stored["timed"], stored["beams"], stored["language"])
    print(stored["long.times"], stored["long.ids"])
    common.save(folder / "reference.safetensors", stored, common.metadata("transformers"))


if __name__ == "__main__":
    main()
