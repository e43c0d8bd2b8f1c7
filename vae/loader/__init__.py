"""From datasets in HDF5 to batches for training: splits, loaders and augmentation, without torch."""

from .augment import Augmentation
from .loader import Loader, open_loader
from .named_splits import find_named_splits
from .split import LEFT_OUT, ROLES, NamedSplit, Role, SeededSplit, Split, named_split

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
