"""Adapters of peft on a tiny GPT-2 and a tiny Llama: before and after 20 steps, with all losses.

Run after decoders.py: python tests/references/lora.py
"""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import common
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

STEPS = 20
CASES: dict[str, tuple[str, type, dict[str, Any]]] = {
    "lora-gpt2": (
        "gpt2-transformers",
        AutoModelForCausalLM,
        {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "mlp.c_proj"]},
    ),
    "lora-llama": (
        "llama-transformers",
        AutoModelForCausalLM,
        {
            "r": 3,
            "lora_alpha": 5,
            "target_modules": r".*self_attn\.(q|v|o)_proj|.*up_proj",
            "use_rslora": True,
        },
    ),
    "lora-bert": (
        "bert-transformers-classes",
        AutoModelForSequenceClassification,
        {"r": 2, "lora_alpha": 4, "target_modules": ["query", "value"],
         "modules_to_save": ["classifier"]},
    ),
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    meta = common.metadata("transformers", "peft", script="lora.py")
    for seed, (name, (base, kind, settings)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        plain = kind.from_pretrained(common.DATA / base)
        task = "CAUSAL_LM" if kind is AutoModelForCausalLM else "SEQ_CLS"
        model = get_peft_model(plain, LoraConfig(task_type=task, **settings)).eval()
        start = {k: v.clone() for k, v in get_peft_model_state_dict(model).items()}
        ids = torch.randint(5, plain.config.vocab_size, (STEPS, 3, 11))
        labels = ids if task == "CAUSAL_LM" else ids[:, :, 0] % plain.config.num_labels
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        losses = []
        for step in range(STEPS):
            loss = model(input_ids=ids[step], labels=labels[step]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        path.write_text(path.read_text().replace(str(common.DATA / base), base))
        with torch.no_grad():
            logits = model(input_ids=ids[0]).logits
        arrays = {
            **{f"start.{k}": v for k, v in start.items()},
            "ids": ids,
            "labels": labels,
            "losses": torch.tensor(losses),
            "logits": logits,
        }
        common.save(folder / "reference.safetensors", arrays, meta)
        print(name, [round(v, 4) for v in losses[::5]], losses[-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
