"""What notebooks show: well-formed, escaped, of bounded size, and true."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.errors import DataError
from bestiary.core.insight.answers import Answers
from bestiary.core.insight.notebook import module_html, task_html, tensor_html

EVIL = "<script>alert('x')</script>&\""


class Page(HTMLParser):
    """Fails where tags are not closed in order; keeps tags, text and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.pictures: list[Image.Image] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert "script" not in self.tags

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), (name, value)
        if tag == "img":
            source = dict(attributes)["src"]
            assert source.startswith("data:image/png;base64,")
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "

    def count(self, tag: str) -> int:
        return self.tags.count(tag)


# -- tensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        bt.tensor(3.5),
        bt.zeros(0),
        bt.zeros((2, 0, 3)),
        bt.arange(30),
        bt.ones((20, 20), dtype=bt.bfloat16),
        bt.ones((2, 3, 4, 5)),
        bt.asarray([True, False]),
        bt.tensor([1 + 2j]),
        bt.tensor([float("nan"), float("inf")]),
        bt.zeros((3, 32, 32)),
        bt.permute_dims(bt.arange(24).reshape((2, 3, 4)), (2, 0, 1)),
    ],
)
def test_every_tensor_has_a_page(x):
    page = Page(x._repr_html_())
    assert f"shape {x.shape}, {x.dtype.name}, cpu" in page.text and not page.pictures


def test_the_corners_of_a_matrix_are_shown():
    x = bt.arange(10000).reshape((100, 100))
    page = Page(tensor_html(x))
    shown = {int(n) for n in re.findall(r"\d+", page.text)}
    assert {0, 3, 96, 99, 9900, 9999, 303} <= shown and 404 not in shown and 5050 not in shown
    assert page.count("tr") == 10
    assert len(tensor_html(bt.zeros((2000, 2000)))) < 12_000


def test_the_first_matrix_of_more_axes_and_what_made_it():
    w = bt.ones((2, 2, 3)).requires_grad_()
    page = Page(tensor_html(w * 7))
    assert (
        "[0, :, :]" in page.text and page.text.count("7") == 6 and "made by multiply" in page.text
    )
    assert "needs gradients" in Page(tensor_html(w)).text


@pytest.mark.parametrize("dtype", [bt.uint8, bt.float32, bt.float16])
def test_what_looks_like_a_picture_is_shown_as_one(dtype):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 20, 30)).astype(np.uint8)
    x = bt.Tensor(pixels if dtype == bt.uint8 else (pixels / 255).astype(np.float32)).astype(dtype)
    (picture,) = Page(tensor_html(x)).pictures
    assert picture.size == (30, 20)
    np.testing.assert_array_equal(np.asarray(picture), pixels.transpose(1, 2, 0))


def test_batches_are_several_pictures_and_large_ones_are_made_smaller():
    x = bt.Tensor(np.random.default_rng(0).random((20, 1, 1000, 700)).astype(np.float32))
    text = tensor_html(x)
    pictures = Page(text).pictures
    assert len(pictures) == 8 and max(pictures[0].size) <= 200 and len(text) < 500_000


@pytest.mark.parametrize(
    "x",
    [
        bt.Tensor(np.random.default_rng(0).normal(size=(3, 32, 32))),  # beyond 0 to 1
        bt.full((1, 32, 32), 0.5),  # all alike
        bt.full((3, 32, 32), float("nan")),
        bt.Tensor(np.random.default_rng(0).random((5, 32, 32))),  # five channels
        bt.Tensor(np.random.default_rng(0).random((3, 8, 8))),  # too small
        bt.Tensor(np.random.default_rng(0).integers(0, 9, (3, 32, 32))),  # class numbers
    ],
)
def test_what_is_no_picture_is_a_table(x):
    page = Page(tensor_html(x))
    assert not page.pictures and page.count("table") == 1


# -- modules -----------------------------------------------------------------------------------


class Odd(nn.Module):
    def extra_repr(self) -> str:
        return EVIL


def test_the_tree_of_a_module():
    net = nn.Sequential(nn.Linear(3, 2), nn.Sequential(Odd(), nn.ReLU()))
    page = Page(net._repr_html_())
    assert page.count("details") == 2 and "Linear(3, 2, bias=True)" in page.text
    assert EVIL in page.text  # as text


def test_large_trees_are_cut():
    net = nn.Sequential(*(nn.Sequential(nn.ReLU(), nn.ReLU()) for _ in range(2000)))
    text = module_html(net)
    assert Page(text).text.count("…") == 1 and len(text) < 60_000


def test_summary_profile_and_history():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    page = Page(net.summary((1, 3))._repr_html_())
    assert "0: Linear" in page.text and "training memory" in page.text
    with bt.profile() as profile:
        net(bt.ones((1, 3)))
    page = Page(profile._repr_html_())
    assert page.count("table") == 2 and "linear" in page.text
    history = bt.training.History([{"step": 1, "loss": 2.0}], [{"epoch": 1, "step": 5, "a": 0.5}])
    assert "0.5" in Page(history._repr_html_()).text
    assert "loss" in Page(bt.training.History([{"step": 1, "loss": 2.0}])._repr_html_()).text
    Page(bt.training.History()._repr_html_())


def test_histories_are_drawn():
    steps = [{"step": i, "loss": 1 / i} for i in range(1, 9)]
    history = bt.training.History(steps, [{"epoch": 1, "step": 8, "accuracy": 0.5}])
    assert history.plot().size == (720, 420)
    assert np.asarray(history.plot("loss", "accuracy")).std() > 1
    with pytest.raises(DataError, match="has no figure 'other'; it has: loss, epoch, accuracy"):
        history.plot("other")
    with pytest.raises(DataError, match="it has: none"):
        bt.training.History().plot()


# -- answers and tasks -------------------------------------------------------------------------


def test_answers_are_lists_and_tables():
    rows = [{"label": EVIL, "score": 0.975}, {"label": "cat", "score": 0.025, "box": [1.25, 2.0]}]
    answers = Answers(rows)
    assert answers == rows and json.loads(json.dumps(answers)) == rows
    assert isinstance(answers, list) and repr(answers) == repr(rows)
    page = Page(answers._repr_html_())
    assert page.count("tr") == 3 and page.count("th") == 3
    for part in (EVIL, "97.5%", "[1.25, 2]"):
        assert part in page.text


def test_answers_to_several_inputs_are_numbered():
    several = Answers([Answers([{"label": "a"}]), Answers([{"label": "b"}, {"label": "c"}])])
    page = Page(several._repr_html_())
    assert page.count("tr") == 4
    assert page.text.split() == ["#", "label", "0", "a", "1", "b", "1", "c"]
    assert Answers([3, "x"])._repr_html_() is None  # shown as text
    Page(Answers([])._repr_html_())


def test_long_lists_of_answers_are_cut():
    text = Answers({"text": "x" * 10_000, "score": 1e9} for _ in range(5000))._repr_html_()
    assert Page(text).text.count("4,800 more rows") == 1 and len(text) < 120_000


def test_a_task_tells_what_it_is():
    class Card:
        name, license, data, note, architecture = EVIL, "MIT", None, None, "tiny"
        results = [{"name": "top-1", "value": 0.5, "dataset": "toy"}]

    class Task:
        task = "image-classification"
        card = Card()
        labels = [f"{EVIL}{i}" for i in range(1000)]
        module = nn.Linear(3, 2)
        preprocess = "size 224"
        tokenizer = None

    text = task_html(Task())
    page = Page(text)
    for part in (f"Task {EVIL}", "8 parameters, float32, on cpu", "1000: ", "MIT", "0.5 toy"):
        assert part in page.text
    assert page.count("details") == 1 and len(text) < 5000


def test_real_tasks_and_their_answers():
    model = bt.load("resnet-fashion")
    page = Page(model._repr_html_())
    assert "image-classification" in page.text and "labels" in page.text
    assert "Preprocess" in page.text
    pictures = [np.zeros((28, 28, 3), np.uint8)] * 2
    assert Page(model(pictures[0], top=3)._repr_html_()).count("tr") == 4
    assert Page(model(pictures, top=3)._repr_html_()).count("tr") == 7


def test_agents():
    agent = bt.rl.PPO("CartPole-v1", n_steps=16, batch_size=16, num_envs=1)
    page = Page(agent._repr_html_())
    for part in ("PPO", "Discrete(n=2", "settings", "n_steps", "Linear"):
        assert part in page.text
    assert "mean return" not in page.text
    agent.returns.append(12.5)
    assert "12.5, of the last 1 episodes" in Page(agent._repr_html_()).text


# -- runs --------------------------------------------------------------------------------------


def test_a_run_is_drawn_while_it_is_written(tmp_path):
    net = nn.Linear(2, 1)
    x = bt.ones((4, 2))
    with bt.Run(tmp_path / "run", system=False) as run:
        trainer = bt.training.Trainer(
            net, optim.SGD(net.parameters(), lr=0.1), lambda m, b: (m(b) ** 2).mean(), [x] * 3,
            epochs=2, quiet=True, run=run,
        )  # fmt: skip
        trainer.fit()
        assert run.plot("train/loss").size == (720, 420)
        assert run._repr_png_().startswith(b"\x89PNG")
        with pytest.raises(DataError, match="no numbers 'other'"):
            run.plot("other")
    assert run.plot(size=(300, 200)).size == (300, 200)  # after its end too
