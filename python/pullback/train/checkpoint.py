"""A training state as one safetensors file, and the folder that keeps the newest few of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pullback as pb
from pullback import io

if TYPE_CHECKING:
    from .trainer import Trainer

_FORMAT = 1
_STATE = "trainer"  # name of the metadata entry


def pack(tree: Any, path: str = "") -> tuple[Any, dict[str, Any]]:
    """Splits nested dicts, lists and tuples into a JSON value and the tensors in it, named by their place."""
    tensors: dict[str, Any] = {}

    def walk(value: Any, at: str) -> Any:
        if isinstance(value, pb.Tensor):
            tensors[at] = value
            return {"$tensor": at}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, pb.dtype):
            return {"$dtype": value.name}
        if isinstance(value, list):
            return [walk(v, f"{at}/{i}") for i, v in enumerate(value)]
        if isinstance(value, tuple):
            return {"$tuple": [walk(v, f"{at}/{i}") for i, v in enumerate(value)]}
        if isinstance(value, Mapping):
            if all(isinstance(k, str) and not k.startswith("$") for k in value):
                return {k: walk(value[k], f"{at}/{k}" if at else k) for k in sorted(value)}
            pairs = sorted(value.items(), key=lambda pair: (type(pair[0]).__name__, pair[0]))
            return {"$items": [[walk(k, ""), walk(v, f"{at}/{k}")] for k, v in pairs]}
        raise TypeError(
            f"checkpoint: {at or 'the state'} is a {type(value).__name__}, which a checkpoint cannot hold\n"
            "help: state is made of tensors, numbers, text, None, dicts, lists and tuples"
        )

    return walk(tree, path), tensors


def unpack(value: Any, tensors: Mapping[str, Any]) -> Any:
    """The tree that `pack` was given."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$dtype" in value:
        return getattr(pb, value["$dtype"])
    if "$tuple" in value:
        return tuple(unpack(v, tensors) for v in value["$tuple"])
    if "$items" in value:
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value["$items"]}
    return {k: unpack(v, tensors) for k, v in value.items()}


def write(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes a state so that equal states give equal bytes."""
    tree, tensors = pack(state)
    text = json.dumps({"format": _FORMAT, "state": tree}, sort_keys=True, separators=(",", ":"))
    io.save(path, {name: tensors[name] for name in sorted(tensors)}, {_STATE: text})


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a state. Raises CheckpointError where the file is damaged or holds no training state."""
    tensors, notes = io.read(path)
    try:
        table = json.loads(notes[_STATE])
        if table["format"] != _FORMAT:
            raise ValueError(f"format {table['format']}")
        return unpack(table["state"], tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise pb.CheckpointError(
            f"load: {os.fspath(path)} holds no state of a trainer that can be read ({error!r})\n"
            "help: pass a file that Trainer.save or checkpoint_dir wrote; for plain tensors use pb.load"
        ) from error


class Folder:
    """The checkpoints of one run: step-00000042.safetensors and so on, the newest `keep` of them."""

    _name = re.compile(r"step-(\d+)\.safetensors")
    _leftover = re.compile(r"\.step-\d+\.safetensors\.\d+\.tmp")

    def __init__(self, path: str | os.PathLike[str], keep: int):
        self.path, self.keep = Path(path), keep
        self.superseded: list[Path] = []  # of an earlier run that this one replaces

    def files(self) -> list[Path]:
        """All checkpoints, oldest first."""
        if not self.path.is_dir():
            return []
        found = [(int(m[1]), p) for p in self.path.iterdir() if (m := self._name.fullmatch(p.name))]
        return [p for _, p in sorted(found)]

    def write(self, step: int, state: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of a step, then drops those that are too old."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"step-{step:08d}.safetensors"
        write(path, state)
        for old in self.superseded:
            if old != path:
                old.unlink(missing_ok=True)
        self.superseded = []
        self.tidy()
        return path

    def tidy(self) -> None:
        """Removes all but the newest `keep`, and what a killed save left behind."""
        if not self.path.is_dir():
            return
        for old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)
        for p in self.path.iterdir():
            if self._leftover.fullmatch(p.name):
                with contextlib.suppress(OSError):
                    p.unlink()

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole; torn ones before it are named in a warning."""
        torn: list[str] = []
        for path in reversed(self.files()):
            try:
                state = read(path)
            except pb.CheckpointError as error:
                torn.append(str(error).split("\n")[0])
                continue
            if torn:
                warnings.warn(
                    f"resuming from {path.name}: newer checkpoints are damaged: {'; '.join(torn)}", stacklevel=2
                )
            return path, state
        if torn:
            raise pb.CheckpointError(
                f"fit: no checkpoint in {self.path} is whole: {'; '.join(torn)}\n"
                "help: pass resume=False to start anew, which replaces them"
            )
        return None


def difference(have: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first difference of two state dicts, in words."""
    for name, mine in have.items():
        if name not in found:
            return f"no {name!r}"
        t = found[name]
        if t.shape != mine.shape or t.dtype != mine.dtype:
            return f"{name!r} as {t.dtype.name}{list(t.shape)}, the model has {mine.dtype.name}{list(mine.shape)}"
    more = [name for name in found if name not in have]
    return f"{more[0]!r}, which the model has not" if more else None


# ---- the state of a trainer


def capture(trainer: Trainer) -> dict[str, Any]:
    """Everything that a continued run needs. Nothing of the clock or of the machine is in it."""
    return {
        "step": trainer.step,
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "means": [[name, *sums] for name, sums in trainer._means.sums.items()],
        "rates": list(trainer.last_lr.items()),
        "model": trainer.model_state(),
        "optimizer": {name: o.state_dict() for name, o in trainer.optimizers.items()},
        "schedule": [s.state_dict() for s in trainer._schedules],
        "ema": None if trainer.ema is None else trainer.ema.state_dict(),
        "generator": pb.random.default_generator().get_state(),
        "roundings": pb.random.default_generator().roundings,
        "loader": {k: v.state_dict() if hasattr(v, "state_dict") else None for k, v in trainer._loaders.items()},
        "history": trainer.history.state_dict(),
        "keeping": trainer.keeping.choices,
        "loss_scale": None if trainer.loss_scale is None else trainer.loss_scale.state_dict(),
        "callbacks": [[type(c).__name__, s] for c in trainer.callbacks if (s := c.state_dict())],
    }


def restore(trainer: Trainer, path: Any, state: Mapping[str, Any]) -> None:
    """Puts a captured state into a trainer; raises CheckpointError, with nothing changed, where it is another's."""
    _check(trainer, path, state)
    try:  # these refuse a state that does not fit; the model, which was compared, comes last
        for name, optimizer in trainer.optimizers.items():
            optimizer.load_state_dict(state["optimizer"][name])
        if trainer.ema is not None:
            trainer.ema.load_state_dict(state["ema"])
        for schedule, saved in zip(trainer._schedules, state["schedule"], strict=True):
            schedule.load_state_dict(saved)
    except (ValueError, KeyError, TypeError) as error:
        raise _other(path, f"a state that does not fit: {error}") from error
    trainer.model.load_state_dict(state["model"])
    trainer._loader_states = state["loader"]
    pb.random.default_generator().set_state(state["generator"])
    pb.random.default_generator().roundings = state.get("roundings", 0)
    trainer.history.load_state_dict(state["history"])
    trainer.keeping.restore(state.get("keeping"))
    if trainer.loss_scale is not None and state.get("loss_scale") is not None:
        trainer.loss_scale.load_state_dict(state["loss_scale"])
    trainer.step, trainer.epoch, trainer.batch = state["step"], state["epoch"], state["batch"]
    trainer._means.sums = {name: sums for name, *sums in state["means"]}
    trainer.last_lr = dict(state["rates"])
    trainer._unsaved = False
    waiting = [list(pair) for pair in state["callbacks"]]
    for callback in trainer.callbacks:  # each takes the first state of its class that is left
        match = next((pair for pair in waiting if pair[0] == type(callback).__name__), None)
        if match is not None:
            waiting.remove(match)
            callback.load_state_dict(match[1])


def _check(trainer: Trainer, path: Any, state: Mapping[str, Any]) -> None:
    """Raises before anything is changed where a state is of another model or another trainer."""
    try:
        have, found = trainer.model_state(), state["model"]
        what = difference(have, found)
        if what is None and set(state["optimizer"]) != set(trainer.optimizers):
            what = f"optimizers {sorted(state['optimizer'])}, here are {sorted(trainer.optimizers)}"
        if what is None and (state["ema"] is None) != (trainer.ema is None):
            what = "an EMA on one side only"
        if what is None and len(state["schedule"]) != len(trainer._schedules):
            what = f"{len(state['schedule'])} schedules, here are {len(trainer._schedules)}"
    except (KeyError, TypeError, AttributeError) as error:
        what = f"no {error}"
    if what is not None:
        raise _other(path, f"it has {what}")


def _other(path: Any, what: str) -> Exception:
    return pb.CheckpointError(
        f"load: {os.fspath(path)} is the checkpoint of another model or trainer: {what}\n"
        "help: build the model and the trainer as in the first run, or choose another folder"
    )
