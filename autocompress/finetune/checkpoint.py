"""The state of a training on disk: whole or not there, so that a killed one goes on where it was."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.files import write_whole

Array = np.ndarray[Any, Any]


@dataclass(kw_only=True)
class State:
    """Where a training is. `values` and `best` are those of the variables, `moments` the optimizer's; `key` says what
    is trained and how. Losses are on the held-out training data."""

    key: str
    steps: int = 0
    elapsed_s: float = 0.0
    looks: int = 0  # at the held-out data
    began_s: float = 0.0  # of `elapsed_s`: when the first step was taken
    first_loss: float = float("inf")
    best_loss: float = float("inf")
    since_best: int = 0  # looks
    masks_at: float = 0.0  # the share of the plan for which the masks were last set
    values: list[Array] = field(default_factory=list)
    moments: list[Array] = field(default_factory=list)
    best: list[Array] = field(default_factory=list)


_LISTS = ("values", "moments", "best")


def save(path: Path, state: State) -> None:
    """Write the state, whole or not at all."""
    facts = {key: value for key, value in asdict(state).items() if key not in _LISTS}
    arrays = {f"{name}_{n}": a for name in _LISTS for n, a in enumerate(getattr(state, name))}
    packed = io.BytesIO()
    np.savez(packed, facts=np.array(json.dumps(facts)), **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, packed.getvalue())


def load(path: Path, key: str) -> State | None:
    """The state at `path` if it is of this training, else None."""
    if not path.is_file():
        return None
    with np.load(path) as archive:
        facts = json.loads(str(archive["facts"]))
        if facts["key"] != key:
            return None
        state = State(**facts)
        for name in _LISTS:
            count = sum(each.startswith(f"{name}_") for each in archive.files)
            setattr(state, name, [archive[f"{name}_{n}"] for n in range(count)])
    return state


def values_of(variables: Sequence[Any]) -> list[Array]:
    """The values of variables."""
    return [np.array(variable.numpy()) for variable in variables]


def assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    """Put values back into variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
