"""Small logs of torch's SummaryWriter and of TensorFlow 2's form of events, to be read by ours.

Run: python tests/references/tensorboard_logs.py (needs torch and tensorboard)
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.metadata import create_summary_metadata as histogram_metadata
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata
from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

DATA = Path(__file__).parent / "data" / "tensorboard"


def main() -> None:
    shutil.rmtree(DATA, ignore_errors=True)
    rng = np.random.default_rng(0)
    loss = (1 / np.arange(1, 21)).tolist()
    weights = rng.normal(size=1000)
    picture = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    expected = {
        "steps": list(range(0, 200, 10)),
        "loss": loss,
        "range": [float(weights.min()), float(weights.max())],
    }
    with SummaryWriter(str(DATA / "torch")) as writer:
        for step, value in zip(expected["steps"], loss, strict=True):
            writer.add_scalar("loss", value, step)
        writer.add_histogram("weights", weights, 4, bins=30)
        writer.add_image("picture", picture, 4, dataformats="HWC")
        writer.add_text("note", "some **text**", 4)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    counts, edges = np.histogram(weights, 30)
    table = np.stack([edges[:-1], edges[1:], counts], -1).astype(np.float32)
    writer = EventFileWriter(str(DATA / "tensorboard"))

    def add(tag: str, step: int, value: object, metadata: object, **how: object) -> None:
        tensor = make_tensor_proto(value, **how)
        one = Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
        writer.add_event(Event(wall_time=1.0 + step, step=step, summary=Summary(value=[one])))

    for step, value in zip(expected["steps"], loss, strict=True):
        add("loss", step, np.float32(value), scalar_metadata("", ""))
    add("weights", 4, table, histogram_metadata("", ""))
    add("picture", 4, [b"6", b"5", buffer.getvalue()], image_metadata("", ""))
    add("note", 4, b"some **text**", text_metadata("", ""))
    writer.close()
    (DATA / "expected.json").write_text(json.dumps(expected))
    for path in DATA.rglob("*"):
        print(path.relative_to(DATA), path.stat().st_size if path.is_file() else "")


if __name__ == "__main__":
    main()
