"""Optimizer states as flat dicts, and those of torch.optim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _core as C
from .._core import Tensor

if TYPE_CHECKING:
    from .optimizer import Optimizer


def _kept(opt: Optimizer, group: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the tensors and of the numbers that the rule keeps for each parameter."""
    from .optimizer import RULES

    row = RULES[opt._rule(group)]
    return row["slots"], row["scalars"]


def save(opt: Optimizer, copy: bool) -> dict[str, Any]:
    """The flat dict of an optimizer."""
    d: dict[str, Any] = {"rule": type(opt).__name__}
    at = 0
    for j, group in enumerate(opt.param_groups):
        d[f"groups.{j}.params"] = list(range(at, at + len(group["params"])))
        for key, value in group.items():
            if key != "params":
                d[f"groups.{j}.{key}"] = _plain(value)
        for i, p in enumerate(group["params"], at):
            kept = opt._driver.stored_state(p)
            if kept is None:
                continue
            d[f"state.{i}.step"] = kept[0]
            slots, scalars = _kept(opt, group)
            tensors: dict[str, Any] = {}
            for name, slot in zip(slots, kept[1], strict=False):
                if isinstance(slot, tuple):
                    tensors[name], tensors[f"{name}.scale"] = slot
                else:
                    tensors[name] = slot
            rest = kept[3]
            if rest is not None:
                tensors["compensation" if rest.dtype == p.dtype else "master"] = rest
            for name, t in tensors.items():
                if t is not None:
                    d[f"state.{i}.{name}"] = t.clone() if copy else t
            d.update({f"state.{i}.{name}": value for name, value in zip(scalars, kept[2], strict=False)})
        at += len(group["params"])
    return d


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Tensor):
        return float(value)
    return value


def load(opt: Optimizer, d: Mapping[str, Any]) -> None:
    """Puts a flat dict, or that of torch.optim, into an optimizer; unchanged where it does not fit."""
    torch_groups = d.get("param_groups")
    groups, states = _from_torch(opt, d) if torch_groups is not None else _from_flat(opt, d)
    if len(groups) != len(opt.param_groups):
        raise ValueError(
            f"load_state_dict: the state has {len(groups)} groups, this optimizer {len(opt.param_groups)}\n"
            "help: build the optimizer as when it was saved"
        )
    new_groups, new_states = [], []
    at = 0
    for group, (count, values) in zip(opt.param_groups, groups, strict=True):
        if count != len(group["params"]):
            raise ValueError(
                f"load_state_dict: a group of the state has {count} parameters, here it has {len(group['params'])}\n"
                "help: build the optimizer as when it was saved"
            )
        if "names" in group and "names" in values and list(values["names"]) != list(group["names"]):
            raise ValueError("load_state_dict: the parameters have other names\nhelp: load the state of this model")
        merged = {**group, **values, "params": group["params"], "state": group["state"], "rounding": group["rounding"]}
        for key, default in opt.defaults.items():
            if isinstance(default, tuple):
                merged[key] = tuple(merged[key])
        opt._check(merged)
        new_groups.append(merged)
        names = _kept(opt, merged)
        for i, p in enumerate(group["params"], at):
            new_states.append((p, _check_state(p, states.pop(i, None), names, i)))
        at += count
    if states:
        raise ValueError(
            f"load_state_dict: the state names parameter {min(states)}, but there are {at}\n"
            "help: load the state of this model"
        )
    for group, new in zip(opt.param_groups, new_groups, strict=True):
        group.update(new)
    for p, kept in new_states:
        opt._driver.forget(p)
        if kept is not None:
            opt._driver.set_state(p, *kept)


def _check_state(p: Tensor, kept: dict[str, Any] | None, names: tuple[tuple[str, ...], tuple[str, ...]], i: int) -> Any:
    if kept is None:
        return None
    kept = dict(kept)
    if "step" not in kept:
        raise ValueError(f"load_state_dict: state {i} has no step count\nhelp: the file is damaged")
    step = int(kept.pop("step"))
    slots = []
    for name in names[0]:
        value = kept.pop(name, None)
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(f"load_state_dict: state {i}, {name}: not a tensor\nhelp: the file is damaged")
        if value is not None and value.shape != p.shape:
            raise C.ShapeError(
                f"load_state_dict: state {i}, {name}: shape {value.shape}, the parameter has {p.shape}\n"
                "help: load the state of this model"
            )
        if value is None and step > 0:
            raise ValueError(f"load_state_dict: state {i} has no {name}\nhelp: the file is damaged or of another rule")
        scale = kept.pop(f"{name}.scale", None)
        slots.append(_codes(value, scale, f"state {i}, {name}"))
    rest = _rest(p, kept, i)
    scalars = []
    for name in names[1]:
        if name not in kept and step > 0:
            raise ValueError(f"load_state_dict: state {i} has no {name}\nhelp: the file is damaged or of another rule")
        scalars.append(float(kept.pop(name, 0.0)))
    if kept:
        raise ValueError(
            f"load_state_dict: state {i} has an unknown entry {sorted(kept)[0]!r}\nhelp: it belongs to another rule"
        )
    return step, slots, scalars, rest


def _codes(value: Any, scale: Any, place: str) -> Any:
    """A state as the driver takes it: a floating tensor, or 8-bit codes and their scales."""
    if value is None or (scale is None and value.dtype.is_floating):
        return value
    if scale is None:
        raise ValueError(f"load_state_dict: {place}: {value.dtype.name} without scales\nhelp: the file is damaged")
    blocks = -(-value.size // 256)
    if value.dtype != C.uint8 or not isinstance(scale, Tensor) or scale.dtype != C.float32 or scale.shape != (blocks,):
        raise ValueError(
            f"load_state_dict: {place}: 8-bit states are uint8 codes with {blocks} float32 scales here\n"
            "help: the file is damaged"
        )
    return value, scale


def _rest(p: Tensor, kept: dict[str, Any], i: int) -> Any:
    """What a rounding keeps beside a 16-bit parameter."""
    found = [(name, kept.pop(name)) for name in ("compensation", "master") if name in kept]
    for name, value in found:
        dtype = p.dtype if name == "compensation" else C.float32
        if p.dtype.itemsize != 2:
            raise ValueError(
                f"load_state_dict: state {i} has a {name}, but the parameter is {p.dtype.name}\n"
                "help: build the model in the dtype in which it was saved"
            )
        if not isinstance(value, Tensor) or value.shape != p.shape or value.dtype != dtype:
            raise ValueError(
                f"load_state_dict: state {i}, {name}: must be {dtype.name}{list(p.shape)}\n"
                "help: load the state of this model"
            )
    return found[0][1] if found else None


Groups = list[tuple[int, dict[str, Any]]]
States = dict[int, dict[str, Any]]


def _from_flat(opt: Optimizer, d: Mapping[str, Any]) -> tuple[Groups, States]:
    if d.get("rule") != type(opt).__name__:
        raise ValueError(
            f"load_state_dict: this is a state of {d.get('rule')}, not of {type(opt).__name__}\n"
            "help: build the optimizer that was saved"
        )
    raw: dict[int, dict[str, Any]] = {}
    states: States = {}
    for key, value in d.items():
        if key == "rule":
            continue
        kind, number, name = ([*key.split(".", 2), "", ""])[:3]
        if kind not in ("groups", "state") or not number.isdigit() or not name:
            raise ValueError(f"load_state_dict: unknown entry {key!r}\nhelp: the file is damaged")
        (raw if kind == "groups" else states).setdefault(int(number), {})[name] = value
    groups: Groups = []
    for j in range(len(raw)):
        values = dict(raw.get(j, {}))
        if "params" not in values:
            raise ValueError(f"load_state_dict: group {j} has no parameters\nhelp: the file is damaged")
        groups.append((len(values.pop("params")), values))
    return groups, states


def _tensor(value: Any) -> Any:
    if value is None or isinstance(value, Tensor):
        return value
    return C.asarray(value.detach() if hasattr(value, "detach") else value)


def _from_torch(opt: Optimizer, d: Mapping[str, Any]) -> tuple[Groups, States]:
    groups: Groups = []
    order: list[Any] = []
    for source in d["param_groups"]:
        if source.get("maximize"):
            raise ValueError("load_state_dict: maximize=True is not supported\nhelp: negate the loss")
        values = {k: v for k, v in source.items() if k in opt.defaults or k in ("initial_lr",)}
        if "decoupled_weight_decay" in source:
            values["decoupled"] = bool(source["decoupled_weight_decay"])
        if type(opt).__name__ == "RAdam" and "foreach" in source and "eps_mode" not in source:
            values["eps_mode"] = "before"  # PyTorch's
        values = {k: float(v) if hasattr(v, "detach") else v for k, v in values.items()}
        order += source["params"]
        groups.append((len(source["params"]), values))
    states: States = {}
    for i, key in enumerate(order):
        source = d.get("state", {}).get(key)
        if not source:
            continue
        kept = {name: _tensor(v) for name, v in source.items() if name != "step" and v is not None}
        # SGD counts no steps in PyTorch; a momentum buffer shows that the first one is done.
        kept["step"] = int(source["step"]) if "step" in source else int("momentum_buffer" in kept)
        states[i] = kept
    return groups, states
