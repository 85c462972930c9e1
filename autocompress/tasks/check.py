"""A task against its network and metric: whatever can be checked without running the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from autocompress.errors import AutocompressError
from autocompress.metrics import Metric
from autocompress.network.tflite.interpreter import TensorSpec
from autocompress.tasks.arrays import fit_inputs, fit_labels, sha256_of, without_faulty
from autocompress.tasks.signatures import judged_output, network_of
from autocompress.tasks.task import NOTHING, Array, Inputs, LoadedTask, SignatureChoice, Task, TrainingData

NO_CALIBRATION = "no calibration inputs: the validation inputs serve"
NO_LABELS_USED = "fidelity compares with the float network: the labels are not used"


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """What arrays are checked against; `prefix` starts each complaint."""

    inputs: tuple[TensorSpec, ...]
    output_shape: tuple[int, ...]
    metric: Metric
    prefix: str

    def fit(self, x: Inputs | None, name: str) -> tuple[dict[str, Array], list[str]]:
        if x is None:
            raise AutocompressError(f"{self.prefix}{name} is missing; give inputs of shape (n, ...)")
        return fit_inputs(x, self.inputs, f"{self.prefix}{name}")

    def labels(self, y: Array | None, x: Mapping[str, Array], name: str) -> Array | None:
        """Checked labels; None for metrics that compare with the float network."""
        where = f"{self.prefix}{name}"
        if not self.metric.needs_labels:
            return None
        if y is None:
            reason = f"metric {self.metric.name} needs labels, fidelity does not"
            raise AutocompressError(f"{where} is missing; {reason}")
        return fit_labels(y, self.metric, x, self.output_shape, where)


def checked(
    task: Task, original: bytes, metric: Metric, prefix: str, network_name: str, asked: SignatureChoice = NOTHING
) -> LoadedTask:
    """`task`, whose network is the float `.tflite` `original`, ready to work with; `asked`: what of it is
    meant. Raises AutocompressError; `prefix` and `network_name` say in it whose data and network are meant."""
    meant = network_of(original, network_name, metric, asked)
    original, signature = meant.original, meant.signature
    read = metric if signature.judged is None else metric.read_as(signature.outputs[signature.judged].kind)
    rules = _Rules(inputs=meant.inputs, output_shape=signature.judged_shape, metric=read, prefix=prefix)
    x, notes = _inputs(task, rules)
    notes += meant.notes
    labels = {
        "y_validation": rules.labels(task.y_validation, x["x_validation"], "y_validation"),
        "y_test": rules.labels(task.y_test, x["x_test"], "y_test"),
    }
    if not metric.needs_labels and (task.y_validation is not None or task.y_test is not None):
        notes.append(NO_LABELS_USED)
    return LoadedTask(
        name=task.name,
        network=meant.network,
        original=original,
        metric=metric,
        network_sha256=hashlib.sha256(original).hexdigest(),
        data_sha256=sha256_of(_parts(x, labels)),
        train=_training(task, rules),
        notes=tuple(notes),
        signature=signature,
        output=None if asked.as_before else judged_output(signature, metric),
        x_calibration=x.get("x_calibration", x["x_validation"]),
        x_validation=x["x_validation"],
        x_test=x["x_test"],
        y_validation=labels["y_validation"],
        y_test=labels["y_test"],
    )


def _inputs(task: Task, rules: _Rules) -> tuple[dict[str, dict[str, Array]], list[str]]:
    """The inputs by split and input name, and notes."""
    splits: dict[str, Inputs | None] = {"x_validation": task.x_validation, "x_test": task.x_test}
    if task.x_calibration is not None:
        splits["x_calibration"] = task.x_calibration
    notes = [] if "x_calibration" in splits else [NO_CALIBRATION]
    fitted = {}
    for name, x in splits.items():
        if name == "x_calibration" and x is not None:
            x, dropped = without_faulty(x)
            notes += [f"{dropped} calibration samples hold NaN or infinities and are left out"] if dropped else []
        fitted[name], casts = rules.fit(x, name)
        notes += casts
    return fitted, notes


def _training(task: Task, rules: _Rules) -> Callable[[], TrainingData] | None:
    """A function that reads and checks the training data. Arrays in memory are checked at once."""
    if task.x_train is None:
        return None

    def read() -> TrainingData:
        x = task.x_train() if callable(task.x_train) else task.x_train
        y = task.y_train() if callable(task.y_train) else task.y_train
        fitted, _ = rules.fit(x, "x_train")
        return fitted, rules.labels(y, fitted, "y_train")

    if not callable(task.x_train) and not callable(task.y_train):
        read()
    return read


def _parts(x: Mapping[str, Mapping[str, Array]], labels: Mapping[str, Array | None]) -> Iterator[tuple[str, Array]]:
    for split in sorted(x):
        yield from ((f"{split}.{name}", array) for name, array in x[split].items())
    yield from ((name, y) for name, y in labels.items() if y is not None)
