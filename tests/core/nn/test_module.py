"""The walk, the state dict, loading, hooks, and what modules say about mistakes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, GradError, ShapeError, WeightsError

nn = bt.nn


def values(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


def wide(tensor: Any) -> Any:
    return np.float64 if tensor.dtype.kind == "f" else np.int32


def narrow(tensor: Any) -> Any:
    return np.float16 if tensor.dtype.kind == "f" else np.int32


class Leaf(nn.Module):
    def __init__(self, size: int = 2) -> None:
        self.offset = nn.Buffer(values(size))
        self.weight = nn.Parameter(values(size))

    def forward(self, x: Any) -> Any:
        return x * self.weight + self.offset


class Tree(nn.Module):
    """Children come after own tensors, wherever they were assigned."""

    def __init__(self) -> None:
        self.first = Leaf()
        self.scale = nn.Parameter(values(1))
        self.layers = [Leaf(), Leaf()]
        self.table = {"a": Leaf(), "b": [Leaf()], "size": 3}
        self.count = nn.Buffer(np.zeros((), np.int64))
        self.cache = nn.Buffer(values(3), persistent=False)
        self.bias = nn.Parameter(values(1))
        self.last = Leaf()
        self._private = Leaf()
        self.settings = (1, 2, "three")
        self.nothing = None

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.table["b"][0](x) * self.scale


LEAVES = ["first", "layers.0", "layers.1", "table.a", "table.b.0", "last"]


def test_names_come_in_the_order_of_torch():
    tree = Tree()
    assert [n for n, _ in tree.named_parameters()] == [
        "scale",
        "bias",
        *(f"{leaf}.weight" for leaf in LEAVES),
    ]
    assert [n for n, _ in tree.named_buffers()] == [
        "count",
        "cache",
        *(f"{leaf}.offset" for leaf in LEAVES),
    ]
    expected = ["scale", "bias", "count"]
    for leaf in LEAVES:
        expected += [f"{leaf}.weight", f"{leaf}.offset"]
    assert list(tree.state_dict()) == expected
    assert [n for n, _ in tree.named_modules()] == ["", *LEAVES]
    assert [n for n, _ in tree.named_children()] == LEAVES
    assert len(list(tree.parameters())) == 8
    assert len(list(tree.buffers())) == 8
    assert len(list(tree.modules())) == 7
    assert len(list(tree.children())) == 6


def test_reassigning_keeps_the_place():
    tree = Tree()
    tree.scale = nn.Parameter(values(1))
    tree.first = Leaf(3)
    assert next(iter(tree.state_dict())) == "scale"
    assert next(iter(tree.named_children()))[0] == "first"


def test_shared_parameters_have_every_name_in_the_state_dict_only():
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.embedding = Leaf()
            self.head = Leaf()
            self.head.weight = self.embedding.weight
            self.again = self.embedding

    tied = Tied()
    assert [n for n, _ in tied.named_parameters()] == ["embedding.weight"]
    assert list(tied.state_dict()) == [
        "embedding.weight",
        "embedding.offset",
        "head.weight",
        "head.offset",
        "again.weight",
        "again.offset",
    ]
    assert [n for n, _ in tied.named_modules()] == ["", "embedding", "head"]
    tied.load_state_dict({k: v.array + 1 for k, v in tied.state_dict().items()})
    np.testing.assert_array_equal(tied.head.weight.array, values(2) + 1)
    assert tied.head.weight is tied.embedding.weight


def test_cycles_raise_with_a_way_out():
    tree = Tree()
    tree.last.parent = tree
    for use in (tree.parameters, tree.modules, tree.state_dict, lambda: repr(tree)):
        with pytest.raises(ConfigError, match="contains itself"):
            list(use())
    with pytest.raises(ConfigError, match=r"'last.parent' contains itself") as caught:
        list(tree.parameters())
    assert "self._parent" in str(caught.value)
    del tree.last.parent
    tree.last._parent = tree
    assert len(list(tree.parameters())) == 8
    tree.table["self"] = tree.table
    with pytest.raises(ConfigError, match="contains itself"):
        list(tree.parameters())


def test_a_plain_tensor_with_gradients_raises():
    tree = Tree()
    tree.first.extra = bt.tensor([1.0], requires_grad=True)
    with pytest.raises(GradError, match=r"'first.extra'.*\(1,\)") as caught:
        tree.state_dict()
    assert "nn.Parameter(tensor)" in str(caught.value)
    assert "nn.Buffer(tensor.detach())" in str(caught.value)
    tree.first.extra = bt.tensor([1.0])  # a constant is nobody's business
    assert "first.extra" not in tree.state_dict()


@pytest.mark.parametrize(
    "hiding",
    [lambda: (Leaf(), Leaf()), lambda: {Leaf()}, lambda: (1, [Leaf()]), lambda: (Leaf().weight,)],
)
def test_modules_in_tuples_and_sets_raise(hiding):
    tree = Tree()
    tree.last.hidden = hiding()
    with pytest.raises(ConfigError, match=r"'last.hidden' holds modules or parameters in a") as e:
        list(tree.parameters())
    assert "self.hidden = list(...)" in str(e.value)


def test_getting_by_name():
    tree = Tree()
    assert tree.get_submodule("table.b.0") is tree.table["b"][0]
    assert tree.get_submodule("") is tree
    assert tree.get_parameter("layers.1.weight") is tree.layers[1].weight
    assert tree.get_parameter("count") is tree.count
    with pytest.raises(ConfigError, match=r"no module named 'layer\.1'") as caught:
        tree.get_submodule("layer.1")
    assert "layers.1" in str(caught.value)
    with pytest.raises(ConfigError, match=r"no parameter named 'first.weights'.*\n.*first.weight"):
        tree.get_parameter("first.weights")


def test_attributes_of_torch_have_our_spelling():
    tree = Tree()
    with pytest.raises(AttributeError, match=r"nn\.Buffer"):
        tree.register_buffer("x", None)
    with pytest.raises(AttributeError, match=r"module\.to\('cuda'\)"):
        tree.cuda()
    with pytest.raises(AttributeError, match="did you mean 'first'"):
        tree.frist  # noqa: B018

    class Unfinished(nn.Module):
        pass

    with pytest.raises(AttributeError, match="def forward"):
        Unfinished()(1)


# -- calling -----------------------------------------------------------------------------------


def test_calls_and_training_flags():
    tree = Tree()
    assert tree.training
    assert tree.eval() is tree
    assert not any(m.training for m in tree.modules())
    tree.train()
    assert all(m.training for m in tree.modules())
    x = bt.asarray(np.ones(2, np.float32))
    assert tree(x).shape == (2,)


def test_hooks_see_and_replace():
    leaf = Leaf()
    seen: list[Any] = []
    first = leaf.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    second = leaf.register_forward_hook(lambda m, args, out: seen.append(args[0].tolist()))
    third = leaf.register_forward_hook(lambda m, args, out: out + 100)
    x = bt.asarray(np.array([1.0, 2.0], np.float32))
    assert leaf(x).tolist() == [100.0, 105.0]
    assert seen == [[2.0, 4.0]]
    for handle in (first, second, third, third):
        handle.remove()
    assert leaf(x).tolist() == [0.0, 3.0]
    keywords = leaf.register_forward_pre_hook(
        lambda m, args, kwargs: ((), {"x": kwargs["x"] + 1}), with_kwargs=True
    )
    leaf.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs["x"].tolist()), with_kwargs=True
    )
    assert leaf(x=x).tolist() == [0.0, 4.0]
    assert seen[-1] == [2.0, 3.0]
    keywords.remove()
    copied = copy.deepcopy(leaf)
    copied(x=x)
    assert len(seen) == 2


def test_own_errors_name_the_module():
    tree = Tree()
    tree.layers[1].weight = nn.Parameter(values(3))
    with pytest.raises(ShapeError, match=r"in module 'layers.1'") as caught:
        tree(bt.asarray(values(2)))
    assert caught.value.module_path == "layers.1"


def test_foreign_errors_get_one_note():
    class Faulty(nn.Module):
        def forward(self, x: Any) -> Any:
            raise KeyError("lost")

    tree = Tree()
    tree.table["b"][0] = Faulty()
    outer = nn.Sequential(nn.Sequential({"tree": tree}))
    with pytest.raises(KeyError) as caught:
        outer(bt.asarray(values(2)))
    assert caught.value.__notes__ == ["in module '0.tree.table.b.0'"]
    with pytest.raises(KeyError) as caught:
        Faulty()(1)
    assert not hasattr(caught.value, "__notes__")


def test_the_path_of_a_module_called_past_its_parent():
    class Reaching(nn.Module):
        def __init__(self) -> None:
            self.tree = Tree()

        def forward(self, x: Any) -> Any:
            return self.tree.layers[0](x)

    with pytest.raises(ShapeError) as caught:
        Reaching()(bt.asarray(values(5)))
    assert caught.value.module_path == "tree.layers.0"


# -- state -------------------------------------------------------------------------------------


def test_the_state_dict_shares_memory():
    tree = Tree()
    state = tree.state_dict()
    assert state["first.weight"].array is tree.first.weight.array
    assert not state["first.weight"].requires_grad


def test_loading_copies_converts_and_checks_the_graph():
    tree = Tree()
    state = {k: v.array.astype(wide(v)) + 1 for k, v in tree.state_dict().items()}
    array = tree.first.weight.array
    result = tree.load_state_dict(state)
    assert result == ([], [])
    assert tree.first.weight.array is array
    assert tree.first.weight.dtype == np.float32
    assert tree.count.array.tolist() == 1
    np.testing.assert_array_equal(array, values(2) + 1)
    assert tree.first.weight.requires_grad
    loss = (tree.first.weight * tree.first.weight).sum()
    tree.load_state_dict(state)
    with pytest.raises(GradError, match="changed in place"):
        loss.backward()


def test_assigning_takes_the_arrays_themselves():
    tree = Tree()
    state = {k: v.array.astype(narrow(v)) for k, v in tree.state_dict().items()}
    parameter = tree.first.weight
    tree.load_state_dict(state, assign=True)
    assert tree.first.weight is parameter
    assert parameter.array is state["first.weight"]
    assert parameter.requires_grad
    (parameter * parameter).sum().backward()
    assert parameter.grad.dtype == np.float16


def test_a_misfit_changes_nothing_and_is_reported():
    tree = Tree()
    state = {k: v.array + 1 for k, v in tree.state_dict().items()}
    del state["layers.0.weight"]
    state["layers.7.weight"] = values(2)
    before = {k: v.array.copy() for k, v in tree.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        tree.load_state_dict(state)
    assert "layers.0.weight" in str(caught.value)
    assert "layers.7.weight" in str(caught.value)
    state["first.weight"] = values(9)
    with pytest.raises(WeightsError, match=r"first.weight") as caught:
        tree.load_state_dict(state, strict=False)
    assert "(2,)" in str(caught.value)
    assert "(9,)" in str(caught.value)
    for name, tensor in tree.state_dict().items():
        np.testing.assert_array_equal(tensor.array, before[name])
    del state["first.weight"]
    missing, unexpected = tree.load_state_dict(state, strict=False)
    assert missing == ["first.weight", "layers.0.weight"]
    assert unexpected == ["layers.7.weight"]
    np.testing.assert_array_equal(tree.last.weight.array, before["last.weight"] + 1)


def test_a_common_prefix_is_noticed():
    tree = Tree()
    state = {f"module.{k}": v for k, v in tree.state_dict().items()}
    with pytest.raises(WeightsError, match=r"removeprefix\('module.'\)"):
        tree.load_state_dict(state)


# -- changing ----------------------------------------------------------------------------------


def test_to_converts_floats_and_keeps_the_objects():
    tree = Tree()
    weight = tree.first.weight
    weight.grad = bt.asarray(values(2))
    assert tree.to(bt.float64) is tree
    assert tree.first.weight is weight
    assert weight.dtype == np.float64
    assert weight.grad.dtype == np.float64
    assert tree.first.offset.dtype == np.float64
    assert tree.count.dtype == np.int64
    (weight * weight).sum().backward()
    assert weight.grad.dtype == np.float64
    assert tree.dtype == np.float64
    assert tree.device == "cpu"
    tree.to("cpu", bt.bfloat16)
    assert tree.dtype == bt.bfloat16
    tree.to(device="cpu", dtype="float32")
    assert tree.dtype == np.float32
    with pytest.raises(ConfigError, match="int32"):
        tree.to(bt.int32)


def test_device_and_dtype_may_be_overridden():
    class Own(nn.Module):
        def __init__(self) -> None:
            self.device = "mine"

    assert Own().device == "mine"
    assert Own().dtype is None


def test_freezing_and_clearing():
    tree = Tree()
    tree.scale.grad = bt.asarray(values(1))
    tree.zero_grad()
    assert tree.scale.grad is None
    tree.requires_grad_(False)
    assert not any(p.requires_grad for p in tree.parameters())
    tree.last.requires_grad_()
    assert [n for n, p in tree.named_parameters() if p.requires_grad] == ["last.weight"]


def test_apply_visits_children_first():
    seen: list[str] = []
    tree = nn.Sequential(Leaf(), nn.Sequential(Leaf()))
    assert tree.apply(lambda m: seen.append(type(m).__name__)) is tree
    assert seen == ["Leaf", "Sequential", "Leaf", "Sequential"]


def test_copies_and_pickles_are_independent():
    tree = Tree()
    tree.last.weight = tree.first.weight
    for copied in (copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
        assert list(copied.state_dict()) == list(tree.state_dict())
        assert copied.last.weight is copied.first.weight
        assert copied.first.weight is not tree.first.weight
        assert copied.first.weight.requires_grad
        assert isinstance(copied.first.weight, nn.Parameter)
        assert not copied.cache.persistent
        copied.first.weight.array[...] = 9
        assert not (tree.first.weight.array == 9).any()


def test_parameters_and_buffers():
    array = values(3)
    assert nn.Parameter(array).array is array
    assert nn.Parameter([1, 2.5]).dtype == np.float32
    assert not nn.Parameter(array, requires_grad=False).requires_grad
    assert nn.Buffer(bt.asarray(array)).array is array
    assert nn.Buffer([1]).persistent
    with pytest.raises(GradError):
        nn.Parameter(np.arange(3))
    product = nn.Parameter(array) * 2
    assert type(product) is bt.Tensor


# -- showing -----------------------------------------------------------------------------------


def test_repr_folds_equal_layers():
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            self.width = width
            self.inner = Leaf()

        def extra_repr(self) -> str:
            return f"width={self.width}"

    class Model(nn.Module):
        def __init__(self) -> None:
            self.blocks = nn.ModuleList([Block(4), Block(4), Block(4), Block(5)])
            self.head = Leaf()

    assert repr(Model()) == (
        "Model(\n"
        "  (blocks): ModuleList(\n"
        "    (0-2): 3 x Block(\n"
        "      width=4\n"
        "      (inner): Leaf()\n"
        "    )\n"
        "    (3): Block(\n"
        "      width=5\n"
        "      (inner): Leaf()\n"
        "    )\n"
        "  )\n"
        "  (head): Leaf()\n"
        ")"
    )


def test_empty_parameters_are_never_initialised():
    code = (
        "import bestiary as bt\n"
        "def fail(*a, **k): raise AssertionError('initialised')\n"
        "import bestiary.core.nn.init as init\n"
        "init._fill = fail\n"
        "with init.empty():\n"
        "    for f in ('uniform_', 'normal_', 'trunc_normal_', 'zeros_', 'ones_', 'eye_',\n"
        "              'xavier_uniform_', 'xavier_normal_', 'kaiming_uniform_',\n"
        "              'kaiming_normal_', 'orthogonal_'):\n"
        "        getattr(init, f)(init.parameter(3, 4))\n"
        "    init.sparse_(init.parameter(3, 4), 0.5), init.dirac_(init.parameter(3, 4, 3))\n"
        "try: init.zeros_(init.parameter(3))\n"
        "except AssertionError: print('fine')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "fine"


def test_errors_10_a_parameter_is_not_replaced_by_a_plain_tensor():
    m = nn.Linear(2, 2)
    before, kept = m.weight, m.weight.array.copy()
    with pytest.raises(GradError, match=r"(?s)Linear\.weight is a parameter.*bt\.assign"):
        m.weight += 1.0
    assert m.weight is before
    np.testing.assert_array_equal(m.weight.array, kept)
    bt.assign(m.weight, m.weight.detach() + 1.0)  # what the message says
    np.testing.assert_allclose(m.weight.array, kept + 1, rtol=1e-6)
    m.weight = nn.Parameter(bt.zeros((2, 2)))
    assert not m.weight.array.any()


def test_a_buffer_that_is_assigned_stays_a_buffer():
    class Counter(nn.Module):
        def __init__(self) -> None:
            self.count = nn.Buffer(bt.zeros(()))
            self.hidden = nn.Buffer(bt.zeros(()), persistent=False)

    m = Counter()
    m.count += 1
    m.hidden += 2
    assert isinstance(m.count, nn.Buffer)
    assert list(m.state_dict()) == ["count"]
    assert m.state_dict()["count"].item() == 1
    assert not m.hidden.persistent and m.hidden.item() == 2
