"""ONNX Runtime's side of the suite: the families that `families.py MODELS --onnx` wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import Job, family_jobs


def facts() -> dict[str, Any]:
    return {"onnxruntime": onnxruntime.__version__, "threads": os.cpu_count()}


def family(folder: Path, pictures: np.ndarray[Any, Any]) -> Job:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    session = onnxruntime.InferenceSession(
        folder / f"{len(pictures)}.onnx", settings, providers=["CPUExecutionProvider"]
    )
    given = {session.get_inputs()[0].name: pictures}
    wanted = [session.get_outputs()[0].name]
    return Job(lambda: session.run(wanted, given)[0])


JOBS = {
    name: make
    for name, make in family_jobs(family).items()
    if (
        Path(os.environ["BESTIARY_BENCH_MODELS"])
        / name.removeprefix("family-").rpartition("-")[0]
        / f"{name.rpartition('-')[2]}.onnx"
    ).is_file()
}
