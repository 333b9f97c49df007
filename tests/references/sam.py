"""Tiny Segment Anything networks with random weights, saved by transformers, with their answers.

Also a prepared picture, masks at its size, all masks of its pipeline `mask-generation`, and the
names and shapes of every tensor of the published sizes. Run: python tests/references/sam.py
"""

from __future__ import annotations

import gzip
import json
import shutil
from typing import Any

import common
import numpy as np
import torch
from segmentation import listing, picture
from transformers import SamConfig, SamModel, SamProcessor, pipeline
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil, _rle_to_mask

SIDE = 64
_WIDTHS = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8}
_TINY: dict[str, dict[str, Any]] = {
    "vision_config": {
        "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "mlp_dim": 40,
        "image_size": SIDE, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1],
        "output_channels": 16, "num_pos_feats": 8,
    },
    "prompt_encoder_config": {**_WIDTHS, "mask_input_channels": 8},
    "mask_decoder_config": {
        "hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 32, "iou_head_hidden_dim": 12,
    },
}  # fmt: skip
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "sam-transformers": {},
    "sam-transformers-plain": {
        "vision_config": {
            "use_rel_pos": False,
            "qkv_bias": False,
            "mlp_dim": None,
            "mlp_ratio": 2.0,
        },
        "mask_decoder_config": {"iou_head_depth": 4, "num_multimask_outputs": 2},
    },
}
SIZES: dict[str, dict[str, Any]] = {
    "sam-vit-base": {},
    "sam-vit-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "global_attn_indexes": [5, 11, 17, 23], "mlp_dim": 4096,
    },
    "sam-vit-huge": {
        "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31], "mlp_dim": 5120,
    },
}  # fmt: skip


def prompts() -> dict[str, dict[str, torch.Tensor]]:
    """Inputs by case: points alone, boxes alone, points in boxes with an earlier mask, nothing."""
    rng = torch.Generator().manual_seed(5)
    points = torch.rand(2, 3, 2, 2, generator=rng) * SIDE
    labels = torch.tensor([[[1, 0], [1, -10], [1, 1]]] * 2)
    corners = torch.rand(2, 3, 2, 2, generator=rng) * SIDE
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
    masks = torch.randn(2, 1, SIDE // 2, SIDE // 2, generator=rng)
    return {
        "points": {"input_points": points, "input_labels": labels},
        "boxes": {"input_boxes": boxes},
        "all": {
            "input_points": points[:, :1],
            "input_labels": labels[:, :1],
            "input_boxes": boxes[:, :1],
            "input_masks": masks,
        },
    }


def outputs(model: Any, processor: Any) -> dict[str, Any]:
    x = common.images(2, 3, SIDE, SIDE, seed=0)
    arrays: dict[str, Any] = {"0.pixel_values": x}
    with torch.no_grad():
        for case, given in prompts().items():
            arrays |= {f"{case}.{name}": value for name, value in given.items()}
            for several in (False, True):
                out = model(pixel_values=x, multimask_output=several, **given)
                which = f"{case}.{'several' if several else 'one'}"
                arrays |= {f"{which}.scores": out.iou_scores, f"{which}.masks": out.pred_masks}
        arrays["0.output"] = model.get_image_embeddings(x)
        arrays |= common.in_bfloat16(model, lambda m, v: m.get_image_embeddings(v), arrays)
        image = picture()
        given = processor(
            np.asarray(image),
            input_points=[[[[20.0, 30.0], [40.0, 11.0]]]],
            input_labels=[[[1, 0]]],
            input_boxes=[[[5.0, 4.0, 50.0, 41.0]]],
            return_tensors="pt",
        )
        sizes = given.pop("original_sizes"), given.pop("reshaped_input_sizes")
        given = {k: v.float() if v.is_floating_point() else v for k, v in given.items()}
        out = model(**given, multimask_output=True)
        full = processor.image_processor.post_process_masks(out.pred_masks, *sizes, binarize=False)
        arrays |= {
            "picture": np.asarray(image),
            "prepared": given["pixel_values"],
            "picture.scores": out.iou_scores,
            "picture.logits": full[0][0],
        }
    made = pipeline(
        "mask-generation", model=model, image_processor=processor.image_processor, device="cpu"
    )
    found = made(
        image, points_per_crop=6, points_per_batch=10, pred_iou_thresh=0.01,
        stability_score_thresh=0.12, crops_nms_thresh=1.0,
    )  # fmt: skip
    arrays |= {
        "everything.scores": found["scores"],
        "everything.masks": np.packbits(np.array(found["masks"]), axis=-1),
    }
    print(len(found["scores"]), "masks of everything")
    return arrays


def suppressed(self: Any, masks: Any, scores: Any, boxes: Any, threshold: float) -> Any:
    """The last step of the pipeline, which would need torchvision: non-maximum suppression."""
    left, kept = torch.argsort(-scores, stable=True).tolist(), []
    while left:
        best, *left = left
        kept.append(best)
        corner = torch.maximum(boxes[left, :2], boxes[best, :2])
        sides = (torch.minimum(boxes[left, 2:], boxes[best, 2:]) - corner).clamp(min=0)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        shared = sides.prod(-1)
        overlap = shared / (areas[left] + areas[best] - shared)
        left = [i for i, v in zip(left, overlap.tolist(), strict=True) if v <= threshold]
    chosen = [masks[i] for i in kept]
    return [_rle_to_mask(one) for one in chosen], scores[kept], chosen, boxes[kept]


def main() -> None:
    SamImageProcessorPil.post_process_for_mask_generation = suppressed
    meta = common.metadata("transformers", "pillow", script="sam.py")
    for seed, (name, changes) in enumerate(MODELS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        parts = {part: {**own, **changes.get(part, {})} for part, own in _TINY.items()}
        model = common.randomise(SamModel(SamConfig(**parts)), 10 + seed)
        # A spread of waves and of opinions as in trained networks, in place of nearly none.
        model.shared_image_embedding.positional_embedding.data *= 2
        model.prompt_encoder.shared_embedding.positional_embedding.data = (
            model.shared_image_embedding.positional_embedding.data
        )
        model.mask_decoder.iou_prediction_head.proj_out.weight.data *= 4
        model.mask_decoder.iou_prediction_head.proj_out.bias.data += 1
        for network in model.mask_decoder.output_hypernetworks_mlps:
            network.proj_out.weight.data *= 20
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        half = {"height": SIDE // 2, "width": SIDE // 2}
        processor = SamImageProcessorPil(
            size={"longest_edge": SIDE},
            pad_size={"height": SIDE, "width": SIDE},
            mask_size={"longest_edge": SIDE // 2},
            mask_pad_size=half,
        )
        processor.save_pretrained(folder)
        arrays = outputs(model, SamProcessor(processor))
        common.save(folder / "reference.safetensors", arrays, meta)
    found: dict[str, Any] = {"made_with": common.metadata("transformers", script="sam.py")}
    for name, vision in SIZES.items():
        with torch.device("meta"):
            model = SamModel(SamConfig(vision_config=vision))
        found[name] = listing(model)
    path = common.DATA / "sam_names.json.gz"
    path.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")
    print({name: found[name]["parameters"] for name in SIZES})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
