"""Language models in few bits: memory, tokens per second, and what the rounding costs.

    python tests/benchmarks/quantized.py MODEL [TEXTS] --dtypes float32 bfloat16 int8 int4 stored
    PEER/bin/python tests/benchmarks/quantized.py FOLDER --torch --dtypes float32 bfloat16
    PEER/bin/python tests/benchmarks/quantized.py FILE.gguf --llama-cpp

MODEL is a name, folder or GGUF file of a language model ("stored": as the file has the weights).
TEXTS is a CSV file with a column `text`, or plain text: its beginning is scored. The second and
third forms time transformers on PyTorch and llama.cpp (xllamacpp) on the same job: after 64 tokens,
32 more, each the best one. Every dtype runs in a process of its own, on two threads; peak memory is
that of the whole process, the median of the steps is quoted.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMPT, STEPS, LONGEST, READ = 64, 32, 256, 512
THREADS = 2


def texts_of(path: Path, count: int) -> list[str]:
    """Some texts of a file."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            found = [row["text"] for row in csv.DictReader(file)]
    else:
        found = path.read_text(encoding="utf-8").split("\n\n")
    return [text for text in found if len(text) > 200][:count]


def ours(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """What is measured of bestiary."""
    import numpy as np

    import bestiary as bt
    from bestiary.core import native
    from bestiary.text.generate.steps import CausalStep

    if native.available():
        native.set_num_threads(THREADS)
    start = time.perf_counter()
    model = bt.load(arguments.model, dtype=None if dtype == "stored" else dtype)
    found: dict[str, Any] = {"load s": time.perf_counter() - start}
    found["after loading MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    once = {id(t.array): t.nbytes for t in model.module.state_dict().values()}
    found["weights MB"] = sum(once.values()) / 1e6
    size = model.config.vocab_size
    ids = np.random.default_rng(0).integers(0, size, PROMPT).tolist()
    step, times = CausalStep(model.module, STEPS), []
    scores = step.start([ids])[0]
    for _ in range(STEPS):
        start = time.perf_counter()
        scores = step(np.array([[int(scores.argmax())]]))[0, -1]
        times.append(time.perf_counter() - start)
    found["tokens/s"] = 1 / statistics.median(times)
    many = np.random.default_rng(1).integers(0, size, READ).tolist()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        CausalStep(model.module, 1).start([many])
        times.append(time.perf_counter() - start)
    found[f"{READ} read ms"] = 1e3 * min(times)
    if arguments.texts is not None:
        logprobs: list[float] = []
        for text in texts_of(arguments.texts, arguments.count):
            tokens = model.tokenizer.encode(text)[:LONGEST]
            cut = model.tokenizer.decode(tokens)
            logprobs += model.score(cut).logprobs
        found["perplexity"] = float(np.exp(-np.mean(logprobs)))
        found["tokens"] = len(logprobs)
    return found


def torch_side(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same of transformers on PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    start = time.perf_counter()
    kind = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(arguments.model, dtype=getattr(torch, dtype)).eval()
    found = {"load s": time.perf_counter() - start}
    found["after loading MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    found["weights MB"] = sum(p.nbytes for p in model.parameters()) / 1e6
    ids = torch.randint(0, model.config.vocab_size, (1, PROMPT))
    times = []
    with torch.inference_mode():
        out = model(ids, use_cache=True)
        for _ in range(STEPS):
            start = time.perf_counter()
            token = out.logits[:, -1:].argmax(-1)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            times.append(time.perf_counter() - start)
        found["tokens/s"] = 1 / statistics.median(times)
        many, times = torch.randint(0, model.config.vocab_size, (1, READ)), []
        for _ in range(3):
            start = time.perf_counter()
            model(many, use_cache=True, logits_to_keep=1)
            times.append(time.perf_counter() - start)
    found[f"{READ} read ms"] = 1e3 * min(times)
    return found


def llama_cpp(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same of llama.cpp, whose server tells its own times."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(arguments.model)
    settings.n_ctx = 512
    for threads in (settings.cpuparams, settings.cpuparams_batch):
        threads.n_threads = THREADS
    server = xllamacpp.Server(settings)
    request = {"prompt": "word " * PROMPT, "n_predict": STEPS, "max_tokens": STEPS}
    request |= {"temperature": 0, "ignore_eos": True, "timings_per_token": True}
    speeds = []
    for _ in range(3):
        said = server.handle_completions(request | {"cache_prompt": False})
        said = said if isinstance(said, dict) else json.loads(said)
        speeds.append(said["timings"]["predicted_per_second"])
    return {"tokens/s": statistics.median(speeds)}


def main() -> None:
    """Run each dtype in a process of its own, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("texts", nargs="?", type=Path)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8", "int4"])
    parser.add_argument("--count", type=int, default=12, help="texts that are scored")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--llama-cpp", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        if arguments.llama_cpp:
            found = llama_cpp(arguments)
        else:
            found = (torch_side if arguments.torch else ours)(arguments, arguments.one)
        found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(found), flush=True)
        os._exit(0)  # a server of llama.cpp has threads that do not end
    for dtype in ["stored"] if arguments.llama_cpp else arguments.dtypes:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", dtype]
        limits = {"OMP_NUM_THREADS": str(THREADS), "OPENBLAS_NUM_THREADS": str(THREADS)}
        run = subprocess.run(command, capture_output=True, text=True, env=os.environ | limits)
        if run.returncode:
            sys.exit(run.stderr)
        values = json.loads(run.stdout.strip().splitlines()[-1])
        print(dtype, " ".join(f"{k}={v:.4g}" for k, v in values.items()), flush=True)


if __name__ == "__main__":
    main()
