"""Class counts of a whole HDF5 dataset, the class weights made from them, and the cached file that keeps both."""

from .counts import DatasetCounts, class_counts, count_dataset
from .errors import DataError, VaefitError
from .location import Location
from .weights import SCHEMES, Scheme, class_weights, weight_ratio

__all__ = [
    "SCHEMES",
    "DataError",
    "DatasetCounts",
    "Location",
    "Scheme",
    "VaefitError",
    "class_counts",
    "class_weights",
    "count_dataset",
    "weight_ratio",
]
