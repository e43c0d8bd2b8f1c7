"""Batches of HDF5 datasets for training: splits, loaders and augmentation. Needs no torch."""

from .augment import Augmentation
from .loader import Loader, open_loader
from .split import LEFT_OUT, ROLES, NamedSplit, Role, SeededSplit, Split, find_named_splits, named_split

__all__ = [
    "LEFT_OUT",
    "ROLES",
    "Augmentation",
    "Loader",
    "NamedSplit",
    "Role",
    "SeededSplit",
    "Split",
    "find_named_splits",
    "named_split",
    "open_loader",
]
