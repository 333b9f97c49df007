"""One side of the suite: prepares jobs, times them, stores their outputs. See run.py."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
JOBS = {"ours": "jobs_ours", "peer": "jobs_torch", "onnx": "jobs_onnx"}
PAUSE = 0.05  # seconds, in which the threads of the side before stop waiting for more work
SLOW, WARM = 1.0, 2  # seconds of a call; calls of such a job before the first that is timed
LEAST = 0.15  # seconds that one timing takes at least


def main() -> None:
    side, folder = sys.argv[1], Path(sys.argv[2])
    jobs = importlib.import_module(JOBS[side])
    ready: dict[str, tuple[Any, int]] = {}
    warming: dict[str, int] = {}
    for text in sys.stdin:
        request = json.loads(text)
        name = request.get("job", "")
        if request["do"] == "facts":
            answer: dict[str, Any] = jobs.facts()
        elif request["do"] == "prepare":
            answer = {"known": name in jobs.JOBS, "unit": "", "work": None}
            if answer["known"]:
                job = jobs.JOBS[name]()
                start = time.perf_counter()
                out = job.run()
                slow = time.perf_counter() - start > SLOW
                if isinstance(out, np.ndarray):
                    np.save(folder / f"{name}.{side}.npy", out)
                ready[name] = (job.run, 1 if slow else repetitions(job.run))
                if slow:
                    warming[name] = WARM
                answer["unit"], answer["work"] = job.unit, job.work
        elif request["do"] == "time":
            function, count = ready[name]
            time.sleep(PAUSE)
            for _ in range(warming.get(name, 1)):
                function()
            if name in warming:  # what takes so long does not notice how it begins
                warming[name] = 0
            start = time.perf_counter()
            for _ in range(count):
                function()
            answer = {"seconds": (time.perf_counter() - start) / count}
        elif request["do"] == "memory":  # the most that this process held, in bytes
            answer = {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        else:
            ready.pop(name, None)
            warming.pop(name, None)
            answer = {}
        print(json.dumps(answer), flush=True)


def repetitions(function: Any) -> int:
    """How often to call it so that one timing takes long enough."""
    count = 1
    while True:
        start = time.perf_counter()
        for _ in range(count):
            function()
        taken = time.perf_counter() - start
        if taken >= LEAST:
            return max(1, round(count * LEAST / taken))
        count *= 4


if __name__ == "__main__":
    main()
