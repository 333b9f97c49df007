"""Datasets, samplers, loaders and readers of data in files."""

from .collate import collate as collate
from .dataset import ArrayDataset as ArrayDataset
from .dataset import ConcatDataset as ConcatDataset
from .dataset import Dataset as Dataset
from .dataset import IterableDataset as IterableDataset
from .dataset import MapDataset as MapDataset
from .dataset import Subset as Subset
from .dataset import TensorDataset as TensorDataset
from .dataset import random_split as random_split
from .folder import ImageFolder as ImageFolder
from .folder import ImageTable as ImageTable
from .idx import read_idx as read_idx
from .images import read_image as read_image
from .loader import DataLoader as DataLoader
from .samplers import BatchSampler as BatchSampler
from .samplers import DistributedSampler as DistributedSampler
from .samplers import FixedSampler as FixedSampler
from .samplers import RandomSampler as RandomSampler
from .samplers import Sampler as Sampler
from .samplers import SequentialSampler as SequentialSampler
from .samplers import WeightedRandomSampler as WeightedRandomSampler
from .seeding import sample_rng as sample_rng
from .text_files import CsvDataset as CsvDataset
from .text_files import JsonlDataset as JsonlDataset
from .text_files import read_csv as read_csv
from .text_files import read_jsonl as read_jsonl
