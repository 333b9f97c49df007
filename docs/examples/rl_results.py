"""Make docs/rl-results.md and its curves of what docs/examples/rl_results holds.

    python docs/examples/rl_results.py

Each file there is one training: seed, return, seconds, command. What was not run, of five seeds
each, is shown as missing. A test compares the page with what this makes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "rl_results"
PAGE = HERE.parent / "rl-results.md"
CURVES = HERE.parent / "images" / "rl-results.png"
SEEDS = 5
PEER = "stable-baselines3"
# Run -> what it is, the return that is wanted.
WANTED = {
    "ppo-cartpole": ("PPO, CartPole-v1", 475),
    "a2c-cartpole": ("A2C, CartPole-v1", 475),
    "dqn-cartpole": ("DQN, CartPole-v1", 475),
    "ppo-acrobot": ("PPO, Acrobot-v1", -100),
    "dqn-acrobot": ("DQN, Acrobot-v1", -100),
    "ppo-pendulum": ("PPO, Pendulum-v1", -200),
    "sac-pendulum": ("SAC, Pendulum-v1", -200),
    "td3-pendulum": ("TD3, Pendulum-v1", -200),
    "dqn-catch": ("DQN, Catch-v0, pixels", 0.9),
    "ppo-lunarlander": ("PPO, LunarLander-v3", 200),
    "dqn-lunarlander": ("DQN, LunarLander-v3", 200),
}
BESIDE = ("ppo-cartpole", "a2c-cartpole", "dqn-cartpole", "ppo-acrobot", "ppo-pendulum")
HEAD = """# Results of reinforcement learning

<!-- This page is made by docs/examples/rl_results.py; change that. -->

Every line is what was trained with the seeds 0 to 4, as far as they were run: the mean return of
100 episodes, played by the best action. The spread is the standard deviation between seeds. Seconds
of the processor are for the training alone, in one thread of a machine that did other work too; on
the wall it took longer. The files are in `docs/examples/rl_results`, with the command of each; no
seed that was run is left out.

"""


def results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What was measured in a folder, by run, in the order of the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-[0-9].json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(one["run"], []).append(one)
    return {run: sorted(ones, key=lambda one: int(one["seed"])) for run, ones in found.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n"


def summary(ones: Sequence[dict[str, Any]]) -> list[str]:
    """Return, its spread between seeds, seeds, and seconds of the processor."""
    if not ones:
        return ["missing", "", f"0 of {SEEDS}", ""]
    means = [one["return"]["mean"] for one in ones]
    spread = f"{statistics.pstdev(means):.3g}" if len(means) > 1 else "one seed"
    seconds = statistics.mean(one["seconds"]["cpu"] for one in ones)
    return [f"{statistics.mean(means):.4g}", spread, f"{len(ones)} of {SEEDS}", f"{seconds:.3g}"]


def page(own: dict[str, list[dict[str, Any]]], peer: dict[str, list[dict[str, Any]]]) -> str:
    """The whole page."""
    rows = []
    for run, (what, wanted) in WANTED.items():
        ones = own.get(run, [])
        steps = f"{ones[0]['steps']:,}" if ones else ""
        each = ", ".join(f"{one['return']['mean']:.4g}" for one in ones)
        rows.append([what, steps, str(wanted), *summary(ones), each])
    head = ["", "steps", "wanted", "return", "spread", "seeds", "CPU seconds", "each seed"]
    text = HEAD + table(head, rows)
    text += "![Curves of learning](images/rl-results.png)\n\n"
    text += "The mean return of the last hundred episodes while learning; lines are means over\n"
    text += "seeds.\n\n"
    text += "## Beside Stable-Baselines3\n\n"
    text += "The same hyper-parameters, environments and steps, one thread each.\n\n"
    rows = []
    for run in BESIDE:
        for who, ones in (("bestiary", own.get(run, [])), (PEER, peer.get(run, []))):
            rows.append([WANTED[run][0], who, *summary(ones)])
    text += table(["", "library", "return", "spread", "seeds", "CPU seconds"], rows)
    text += games(own.get("alphazero-connect-four", []))
    text += offline(own.get("decision-transformer-grid-world", []))
    return text.rstrip() + "\n"


def games(ones: Sequence[dict[str, Any]]) -> str:
    """AlphaZero against others."""
    rows = [
        [str(one["seed"]), *(f"{one[who]['won']:.0%}" for who in ("random", "minimax"))]
        for one in ones
    ]
    text = f"## Connect Four\n\nGames that AlphaZero won of 100; {len(ones)} of {SEEDS} seeds.\n\n"
    return text + table(["seed", "against random play", "against minimax of depth 3"], rows)


def offline(ones: Sequence[dict[str, Any]]) -> str:
    """The decision transformer beside behaviour cloning."""
    names = list(ones[0]["return"]) if ones else []
    rows = [
        [str(one["seed"]), *(f"{one['return'][name]['mean']:.3g}" for name in names)]
        for one in ones
    ]
    text = f"## Recorded data\n\nReturn in GridWorld-v0; {len(ones)} of {SEEDS} seeds.\n\n"
    return text + table(["seed", *names], rows)


def curves(own: dict[str, list[dict[str, Any]]]) -> Any:
    """The learning curves of all runs: a chart for each environment, one below the other."""
    import numpy as np
    from PIL import Image

    from bestiary.core.insight.charts import step_chart

    charts: dict[str, dict[str, Any]] = {}
    for run, (what, _) in WANTED.items():
        ones = own.get(run, [])
        if ones:
            at = np.array([step for step, _ in ones[0]["curve"]], float)
            each = [np.interp(at, *np.array(one["curve"], float).T) for one in ones]
            lines = charts.setdefault(ones[0]["environment"], {})
            lines[what.partition(",")[0]] = (list(at), list(np.mean(each, axis=0)))
    size = (720, 300)
    picture = Image.new("RGB", (size[0], size[1] * max(len(charts), 1)), "white")
    for i, (env, lines) in enumerate(charts.items()):
        chart = step_chart(lines, title=env, x_label="steps", size=size, x_log=True)
        picture.paste(chart, (0, i * size[1]))
    return picture


def main() -> None:
    """Write the page and the picture."""
    own = results(RESULTS)
    PAGE.write_text(page(own, results(RESULTS / PEER)), encoding="utf-8", newline="\n")
    curves(own).save(CURVES, optimize=True)


if __name__ == "__main__":
    main()
