"""Class counts of a whole HDF5 dataset, cached in a file, and the class weights derived from them."""

from .dataset_counts import DatasetCounts, count_dataset
from .errors import DataError, SettingError, VaefitError
from .location import Location
from .schemes import SCHEMES, Scheme, weight_ratio
from .shard_counts import ShardCounts, class_counts, count_shards
from .shards import find_shards
from .weights import class_weights

__all__ = [
    "SCHEMES",
    "DataError",
    "DatasetCounts",
    "Location",
    "Scheme",
    "SettingError",
    "ShardCounts",
    "VaefitError",
    "class_counts",
    "class_weights",
    "count_dataset",
    "count_shards",
    "find_shards",
    "weight_ratio",
]
