"""Small torch checkpoints of every layout, and what torch reads from them.

    python tests/references/torch_checkpoints.py

needs torch and safetensors; nothing of bestiary. Written with torch 2.13.0 on the CPU into
tests/references/data/torch_checkpoints: NAME.pt, and beside it NAME.safetensors with the tensors
that torch.load gives for it (complex128 as pairs of float64, which safetensors lacks).

Torch still reads but no longer writes the layout of version 0.1 (a tar archive) and files of
big-endian machines; those two are put together here and then read by torch like the others.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "data" / "torch_checkpoints"
META = {"torch": torch.__version__, "numpy": np.__version__}

DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
    "complex64",
    "complex128",
]
# Types that the legacy writer has no storage class for.
NEWER = {"float8_e4m3fn", "float8_e5m2", "uint64", "uint32", "uint16"}


def all_dtypes(skip: set[str] = frozenset()) -> dict[str, torch.Tensor]:
    values = torch.arange(6).reshape(2, 3)
    found = {name: values.to(getattr(torch, name)) for name in DTYPES if name not in skip}
    found["complex64"] = torch.view_as_complex(torch.arange(12.0).reshape(2, 3, 2))
    found["nan"] = torch.tensor([float("nan"), float("inf"), -0.0])
    found["scalar"] = torch.tensor(2.5)
    found["empty"] = torch.zeros(0, 3)
    return found


def module() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2))
    return torch.nn.Sequential(*layers).state_dict()


def parameters() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    plain = torch.nn.Parameter(torch.randn(3, 2))
    marked = torch.nn.Parameter(torch.randn(4))
    marked.note = "an attribute"  # saved through _rebuild_parameter_with_state
    return {"plain": plain, "marked": marked, "frozen": torch.nn.Parameter(plain.data + 1, False)}


def views() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "base": base,
        "transposed": base.t(),
        "strided": base[1:, ::2],
        "tail": base.flatten()[13:],
        "expanded": base[:, :1].expand(4, 5),
        "none": base[4:],
        "tied": base,
    }


def complex_views() -> dict[str, torch.Tensor]:
    x = torch.view_as_complex(torch.arange(8.0).reshape(4, 2))
    y = torch.arange(3.0)
    return {"x": x, "conj": x.conj(), "y": y, "negated": torch._neg_view(y)}


def nested() -> dict[str, Any]:
    torch.manual_seed(2)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "state_dict": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "big": 2**70,
        "best": np.float64(0.875),
        "count": np.int32(-7),
        "name": "café ☕",
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "bytes": b"\x00\xff",
        "flags": {1, 2},
        "mixed": [None, True, (1.5, "x"), OrderedDict(a=torch.ones(2))],
    }


def untyped() -> dict[str, Any]:
    return {"storage": torch.arange(3, dtype=torch.uint8).untyped_storage()}


def write_big_endian(path: Path) -> None:
    """The zip layout as a big-endian machine writes it: other byte order in the storages."""
    tensors = {
        name: tensor
        for name, tensor in all_dtypes(NEWER).items()
        if name not in ("nan", "scalar", "empty")
    }
    memory = io.BytesIO()
    torch.save(tensors, memory)
    with zipfile.ZipFile(memory) as old, zipfile.ZipFile(path, "w") as new:
        sizes = dict(enumerate(tensors.values()))
        for name in old.namelist():
            data = old.read(name)
            parts = name.split("/")
            if parts[-1] == "byteorder":
                data = b"big"
            elif parts[1:2] == ["data"]:
                tensor = sizes[int(parts[2])]
                size = tensor.element_size() // (2 if tensor.is_complex() else 1)
                data = np.frombuffer(data, f"u{size}").byteswap().tobytes()
            new.writestr("/".join(["archive", *parts[1:]]), data)


class Id:
    """Stands for a tensor in the value; pickled as its persistent id."""

    def __init__(self, key: int) -> None:
        self.key = key


class TarPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return str(value.key) if isinstance(value, Id) else None


def write_tar(path: Path) -> None:
    """The layout of torch 0.1: one float storage of 12 elements, a view of it, three tensors."""
    storages, tensors, value = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(2, storages, 2)
    pickle.dump((100, "cpu", torch.FloatStorage), storages, 2)
    storages.write(struct.pack("<q", 12) + np.arange(12, dtype="<f4").tobytes())
    pickle.dump((101, "cuda:0", torch.LongStorage), storages, 2)
    storages.write(struct.pack("<q", 2) + np.array([5, -6], "<i8").tobytes())
    pickle.dump([(102, 100, 4, 6)], storages, 2)
    pickle.dump(3, tensors, 2)
    layout = [
        (200, 100, torch.FloatTensor, (3, 4), (4, 1), 0),
        (201, 102, torch.FloatTensor, (2, 2), (1, 2), 2),
        (202, 101, torch.LongTensor, (2,), (1,), 0),
    ]
    for key, storage, kind, shape, strides, offset in layout:
        pickle.dump((key, storage, kind), tensors, 2)
        n = len(shape)
        tensors.write(struct.pack(f"<ii{n}q{n}qq", n, 0, *shape, *strides, offset))
    names = OrderedDict([("weight", Id(200)), ("part", Id(201)), ("steps", Id(202))])
    TarPickler(value, 2).dump(names)
    system = {"protocol_version": 1000, "little_endian": True, "type_sizes": {}}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in [
            ("sys_info", pickle.dumps(system, 2)),
            ("storages", storages.getvalue()),
            ("tensors", tensors.getvalue()),
            ("pickle", value.getvalue()),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def flattened(value: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a nested value, by the path to them."""
    if isinstance(value, torch.storage.TypedStorage):  # also of what was saved untyped
        value = torch.tensor(value.tolist(), dtype=torch.uint8)
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg()
        if value.dtype == torch.complex128:
            value = torch.view_as_real(value)
        return {prefix: value.clone(memory_format=torch.contiguous_format)}
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return {}
    found = {}
    for name, item in items:
        found.update(flattened(item, f"{prefix}/{name}" if prefix else str(name)))
    return found


def main() -> None:
    HERE.mkdir(parents=True, exist_ok=True)
    makers = {
        "dtypes": all_dtypes,
        "module": module,
        "parameters": parameters,
        "views": views,
        "complex": complex_views,
        "nested": nested,
        "untyped": untyped,
    }
    for name, make in makers.items():
        torch.save(make(), HERE / f"zip_{name}.pt")
    torch.save(nested(), HERE / "zip_protocol4.pt", pickle_protocol=4)
    del makers["untyped"]  # torch writes it, but cannot read it back
    for name, make in makers.items():
        value = make() if make is not all_dtypes else all_dtypes(NEWER)
        torch.save(value, HERE / f"legacy_{name}.pt", _use_new_zipfile_serialization=False)
    write_big_endian(HERE / "zip_big_endian.pt")
    write_tar(HERE / "tar.pt")
    for path in sorted(HERE.glob("*.pt")):
        # These files were made a moment ago, so torch's own unsafe reading of them is harmless.
        loaded = torch.load(path, weights_only=False, map_location="cpu")
        save_file(flattened(loaded), path.with_suffix(".safetensors"), metadata=META)
        path.with_suffix(".safetensors").chmod(0o644)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
