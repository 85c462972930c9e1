"""What a user hands over (`Task`) and what the search works with (`LoadedTask`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from autocompress.metrics import Metric
from autocompress.network.tflite.outputs import FIRST, Signature
from autocompress.records.output import JudgedOutput

Array = npt.NDArray[Any]
Inputs = Array | Mapping[str, Array]  # one array for a network of one input, else arrays by input name
TrainingData = tuple[dict[str, Array], Array | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A task as its author writes it: a network, data and a metric. `name` is made of the network's path unless given.

    `network` is a `.tflite` as bytes, or the path of a `.tflite`, `.keras`, `.h5` or SavedModel folder (a relative one
    beside the task's file, else in the current folder). `metric` is a name, as in `autocompress.metrics`, or a function
    of outputs and labels that gives a score a sample; `higher_is_better` says which way that goes. `data` is the path
    of an `.npz` with the arrays below, instead of them. Inputs `x_*` have shape (n, ...) as the network takes them: one
    array, or a mapping by input name for several inputs. Labels `y_*` may be left out only with the metric `fidelity`.
    Without `x_calibration` the validation inputs serve. `x_train` and `y_train`, for fine-tuning, may be functions
    without arguments that read the data when needed. `output`: the name of the output that the metric judges, of
    several; `signature`: the key of the signature that is meant, of several."""

    network: bytes | str | Path
    metric: str | Callable[[Array, Array], Any]
    name: str = ""
    higher_is_better: bool = True
    data: str | Path | None = None
    x_validation: Inputs | None = None
    x_test: Inputs | None = None
    y_validation: Array | None = None
    y_test: Array | None = None
    x_calibration: Inputs | None = None
    x_train: Inputs | Callable[[], Inputs] | None = None
    y_train: Array | Callable[[], Array] | None = None
    output: str | None = None
    signature: str | None = None


@dataclass(frozen=True, kw_only=True)
class SignatureChoice:
    """What of a network is meant: the `output` that the metric judges and the `signature`, None: not said. `as_before`:
    the first output of the first graph alone, as studies mean it that say nothing of outputs."""

    output: str | None = None
    signature: str | None = None
    as_before: bool = False


NOTHING = SignatureChoice()


def asked_by(words: Mapping[str, str | None]) -> SignatureChoice:
    """What the words of a search's command ask for; those of older versions do not speak of outputs."""
    return SignatureChoice(
        output=words.get("output"), signature=words.get("signature"), as_before="output" not in words
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedTask:
    """A checked task: inputs by input name, in the network's dtypes and shapes (n, ...).

    `network` is the normalised float `.tflite` that every part starts from, `original` the file as given
    (or as the converter wrote it): sizes of the baseline and `network_sha256` are of `original`.
    `data_sha256` covers the calibration, validation and test data. Labels are None with `fidelity`, whose
    labels are the float network's outputs. `train` reads and checks the training data; None: there are
    none. `source`: what `load_again` takes, None where no file or name stands for the task. `notes` are for people to
    read. `signature`: the network's outputs, and which of them `metric` judges; `output`: the same for the record, None
    in studies that say nothing of outputs."""

    name: str
    network: bytes
    original: bytes
    metric: Metric
    x_calibration: Mapping[str, Array]
    x_validation: Mapping[str, Array]
    y_validation: Array | None
    x_test: Mapping[str, Array]
    y_test: Array | None
    network_sha256: str
    data_sha256: str
    train: Callable[[], TrainingData] | None = None
    source: Mapping[str, str | None] | None = None
    notes: tuple[str, ...] = ()
    signature: Signature = FIRST
    output: JudgedOutput | None = None

    def remark(self, baseline: float) -> str | None:
        """One line where the float network, of this metric, is no better than one that has learned nothing."""
        if self.y_validation is None:
            return None
        judged = None if self.signature.judged is None else self.signature.outputs[self.signature.judged].kind
        shape = (len(self.y_validation), *self.signature.judged_shape[1:])
        return self.metric.read_as(judged).remark(baseline, self.y_validation, shape)
