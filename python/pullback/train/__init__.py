"""The trainer, its callbacks and its record of a run."""

from .callbacks import Callback, EarlyStopping, LRMonitor, ModelCheckpoint, ProgressBar
from .history import History
from .loggers import CSVLogger, JSONLogger, TensorBoardLogger
from .loop import Context
from .trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "Context",
    "EarlyStopping",
    "History",
    "JSONLogger",
    "LRMonitor",
    "ModelCheckpoint",
    "ProgressBar",
    "TensorBoardLogger",
    "Trainer",
]
