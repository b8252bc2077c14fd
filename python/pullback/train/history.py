"""The numbers of a run: one record for each step and one for each epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pullback as pb


class History:
    """What `Trainer.fit` returns.

    Attributes:
        steps: a dict for each optimizer step: step (from 1), epoch (from 1), loss, metrics.
        epochs: a dict for each epoch: epoch, step, the means of loss and metrics, and valid_... of each of them.
        stopped: why fit ended before its epochs or steps: "interrupted", "callback", or None.
        seconds: wall-clock time of the last fit; never part of a checkpoint.
        made: steps of the last fit, without those of the run that it resumed; the same.

    Example:
        >>> h = History()
        >>> h.epochs.append({"epoch": 1, "step": 10, "loss": 0.5})
        >>> h["loss"]
        [0.5]
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self.seconds = 0.0
        self.made = 0

    def __getitem__(self, name: str) -> list[Any]:
        """The values of one number by epoch; epochs without it are left out."""
        values = [record[name] for record in self.epochs if name in record]
        if not values:
            known = sorted({key for record in self.epochs for key in record})
            raise KeyError(f"History: no epoch has {name!r}\nhelp: there are {', '.join(known) or 'no epochs yet'}")
        return values

    def __repr__(self) -> str:
        last = ", ".join(f"{k} {v:.4g}" for k, v in (self.epochs[-1] if self.epochs else {}).items())
        return f"History({len(self.steps)} steps, {len(self.epochs)} epochs{'; ' + last if last else ''})"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the loss by step, with the validation loss, into an image file (its type from the name's end).

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                'plot: matplotlib cannot be imported\nhelp: pip install "pullback[train]", or pip install matplotlib'
            ) from error
        axes = (figure := Figure(figsize=(7, 4), layout="constrained")).add_subplot()
        rows = [(r["step"], r["loss"]) for r in self.steps if "loss" in r]
        axes.plot([s for s, _ in rows], [v for _, v in rows], linewidth=0.8, alpha=0.5, label="training loss")
        for name, label in (("loss", "mean of an epoch"), ("valid_loss", "validation loss")):
            points = [(r["step"], r[name]) for r in self.epochs if name in r]
            if points:
                axes.plot([s for s, _ in points], [v for _, v in points], marker="o", markersize=3, label=label)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend()
        figure.savefig(os.fspath(path), dpi=120)

    def state_dict(self) -> dict[str, Any]:
        """The records as columns of int64 or float64 tensors."""
        return {"steps": _columns(self.steps), "epochs": _columns(self.epochs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the records of a `state_dict`."""
        self.steps, self.epochs = _rows(state["steps"]), _rows(state["epochs"])


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(key for row in rows for key in row))  # in the order they came up
    columns: dict[str, Any] = {"length": len(rows), "names": names}
    for name in names:
        values = [row.get(name) for row in rows]
        dtype = pb.int64 if all(v is None or type(v) is int for v in values) else pb.float64
        columns[f"value.{name}"] = pb.tensor([0 if v is None else v for v in values], dtype=dtype)
        if None in values:
            columns[f"there.{name}"] = pb.tensor([v is not None for v in values], dtype=pb.bool)
    return columns


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(columns["length"])]
    for name in columns["names"]:
        values = columns[f"value.{name}"].tolist()
        there = columns[f"there.{name}"].tolist() if f"there.{name}" in columns else [True] * len(rows)
        for row, value, is_there in zip(rows, values, there, strict=True):
            if is_there:
                row[name] = value
    return rows
