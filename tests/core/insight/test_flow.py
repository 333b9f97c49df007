"""Gradients and activations of layers: what is dead, huge, saturated or not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary import nn
from bestiary.core.errors import ConfigError
from bestiary.core.insight.charts import COLOURS, bar_chart, powers_of_ten, step_chart
from bestiary.core.insight.tables import html_table, text_table

X = bt.Tensor(np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32))


def network() -> nn.Sequential:
    bt.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4), nn.Sigmoid()
    )


def flow(net, out=None):
    ((net(X) if out is None else out) ** 2).mean().backward()
    return {row.name: row for row in bt.gradient_flow(net).layers}


def test_means_and_largest_are_those_of_the_gradients():
    net = network()
    rows = flow(net)
    assert list(rows) == ["0", "2", "4"] and not bt.gradient_flow(net).problems
    sizes = np.abs(np.concatenate([net[2].weight.grad.numpy().ravel(), net[2].bias.grad.numpy()]))
    row = rows["2"]
    assert (row.kind, row.state, row.parameters) == ("Linear", "", 16 * 17)
    assert row.mean == pytest.approx(sizes.mean()) and row.largest == pytest.approx(sizes.max())
    assert row.zeros == pytest.approx((sizes == 0).mean())
    norm = math.sqrt((net[2].weight.array ** 2).sum() + (net[2].bias.array ** 2).sum())
    assert row.ratio == pytest.approx(math.sqrt((sizes**2).sum()) / norm, rel=1e-5)


def test_layers_that_get_nothing():
    net = network()
    net.unused = nn.Module()
    net.unused.weight = nn.Parameter(bt.zeros(3))
    net[0].requires_grad_(False)
    net[2].weight.array[...] = 1e3  # tanh is flat there
    rows = flow(net, net[5](net[4](net[3](net[2](net[1](net[0](X)) + 1)))))
    states = {name: row.state for name, row in rows.items()}
    assert states == {"0": "frozen", "2": "dead", "4": "", "unused": "no gradient"}
    report = bt.gradient_flow(net)
    assert {row.name for row in report.problems} == {"2", "unused"}
    assert str(report).endswith("of 4 layers: 1 dead, 1 no gradient")


@pytest.mark.parametrize(
    "factor, state", [(1e-7, "vanishing"), (1e7, "exploding"), (math.inf, "not finite")]
)
def test_layers_whose_gradients_are_tiny_or_huge(factor, state):
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    net(X).sum().backward()
    net[1].weight.grad = net[1].weight.grad * factor
    net[1].bias.grad = net[1].bias.grad * factor
    assert [row.state for row in bt.gradient_flow(net).layers] == ["", state, "", ""]


def test_shared_parameters_are_counted_once_and_half_types_are_read():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).to(bt.bfloat16)
    net[1].weight = net[0].weight
    net(X.astype(bt.bfloat16)).sum().backward()
    rows = bt.gradient_flow(net).layers
    assert [row.parameters for row in rows] == [72, 8]


def test_the_report_as_table_page_and_picture():
    net = network()
    net[2].weight.array[...] = 1e3
    flow(net)
    report = bt.gradient_flow(net)
    assert "2 (Linear)" in str(report) and "dead" in str(report)
    assert report._repr_html_().count("<tr>") == 4
    picture = np.asarray(report.plot())
    assert (picture == COLOURS[0]).all(axis=-1).sum() > 100


def test_what_gradient_flow_does_not_take():
    with pytest.raises(ConfigError, match="no parameter has a gradient"):
        bt.gradient_flow(network())
    with pytest.raises(ConfigError, match="looks at a module, got list"):
        bt.gradient_flow([1])


# -- activations -------------------------------------------------------------------------------


def test_statistics_are_those_of_the_results_of_all_calls():
    net = network()
    with bt.watch_activations(net) as stats:
        first, second = net(X), net(X * 2)
    values = np.concatenate([first.array, second.array])
    row = stats["Sequential"]
    assert (row.calls, row.shape, row.count) == (2, (32, 4), values.size)
    assert row.mean == pytest.approx(values.mean(), rel=1e-5)
    assert row.std == pytest.approx(values.std(), rel=1e-4)
    relu = np.concatenate([net[1](net[0](x)).array for x in (X, X * 2)])
    assert stats["1"].zeros == pytest.approx((relu == 0).mean())
    assert stats["1"].dead == pytest.approx((relu == 0).all(axis=0).mean())
    assert stats["0"].dead is None and stats["0"].saturated is None
    assert len(stats) == 7 and not stats.problems


def test_hooks_are_taken_away_even_after_an_error():
    net = network()
    with bt.watch_activations(net) as stats:
        net(X)
    with pytest.raises(ZeroDivisionError), bt.watch_activations(net):
        1 / 0  # noqa: B018
    net(X)
    assert stats["0"].calls == 1 and not any(m._post_hooks for m in net.modules())


def test_saturated_dead_constant_and_broken_modules():
    net = network()
    net[0].bias.array[...] = -100.0
    net[2].bias.array[...] = 100.0
    net[4].weight.array[0, 0] = np.nan
    with bt.watch_activations(net) as stats:
        net(X)
    states = {row.name: row.state for row in stats.seen}
    assert states["1"] == "dead" and stats["1"].dead == 1.0
    assert states["3"] == "saturated" and stats["3"].saturated == 1.0
    assert states["4"] == "not finite" and stats["4"].bad == 32
    assert states["2"] == "" or states["2"] == "constant"
    assert np.isfinite(stats["4"].mean)  # of the finite ones


def test_channels_of_pictures_and_features_of_tokens():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    net[0].weight.array[1] = 0.0
    net[0].bias.array[1] = -1.0
    with bt.watch_activations(net) as stats:
        net(bt.ones((2, 3, 8, 8)))
    assert stats["1"].dead >= 0.25
    tokens = bt.Tensor(np.eye(3, dtype=np.float32)[None] * np.array([1, 1, -1], np.float32))
    relu = nn.ReLU()
    with bt.watch_activations(relu) as stats:
        relu(tokens)
    assert stats["ReLU"].dead == pytest.approx(1 / 3)


def test_what_gives_no_floats_is_passed_over():
    class Indices(nn.Module):
        def forward(self, x):
            return bt.argmax(x, axis=-1)

    class Pair(nn.Module):
        def __init__(self):
            self.indices = Indices()

        def forward(self, x):
            return (x * 2, self.indices(x))

    net = Pair()
    with bt.watch_activations(net) as stats:
        net(X.astype(bt.float16))
    assert [row.name for row in stats.seen] == ["Pair"]
    with pytest.raises(ConfigError, match="no module 'other' ran"):
        stats["other"]
    assert str(stats).count("\n") == 2 and "<table" in stats._repr_html_()
    assert isinstance(stats.plot(), Image.Image)


def test_what_watch_activations_does_not_take():
    with (
        pytest.raises(ConfigError, match=r"watch_activations\(task.model\)"),
        bt.watch_activations(3),
    ):
        pass
    with bt.watch_activations(network()) as stats:
        assert str(stats) == "no module ran yet"


# -- charts and tables -------------------------------------------------------------------------


def test_a_longer_bar_is_a_larger_value():
    image = np.asarray(bar_chart({"a": {"x": 1e-3}, "b": {"x": 1.0}, "none": {"x": 0.0}}))
    lengths = (image == COLOURS[0]).all(axis=-1)[60:].sum(axis=1)
    rows = lengths[lengths > 0]
    assert rows[-1] > 2 * rows[0] > 0
    assert bar_chart({}).size[0] == 720


def test_long_charts_of_bars_are_cut_and_keep_what_is_marked():
    many = {f"layer{i}": {"x": 1.0} for i in range(400)}
    image = bar_chart(many, marked=["layer399"])
    assert image.size[1] < 3000
    assert (np.asarray(image)[-60:] == COLOURS[1]).all(axis=-1).any()


def test_a_logarithmic_axis():
    assert powers_of_ten(-3, 0) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert len(powers_of_ten(0.1, 0.2)) == 2
    xs = [1e-4, 1e-2, 1.0]
    image = np.asarray(step_chart({"a": (xs, [0.0, 1.0, 2.0])}, x_log=True, mark=1e-2))
    ys, at = np.nonzero((image[60:] == COLOURS[0]).all(axis=-1))
    # A straight line: the middle of the rise is in the middle of the width.
    middle = at[np.abs(ys - (ys.min() + ys.max()) / 2) < 3].mean()
    assert abs(middle - (at.min() + at.max()) / 2) < 12


def test_tables_are_aligned_escaped_and_bounded():
    rows = [("a<b>", 1), ("c", 1000)]
    assert text_table(("name", "n"), rows).splitlines()[2:] == ["a<b>     1", "c     1000"]
    page = html_table(("name", "n"), [*rows, *[("x" * 5000, i) for i in range(1000)]])
    assert "a&lt;b&gt;" in page and "<b>" not in page
    assert "and 802 more rows" in page and len(page) < 200_000
