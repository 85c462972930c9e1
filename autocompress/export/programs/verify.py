"""Made by autocompress export. Check this bundle against its card:

    python verify.py [CARD.json] [--data DATA.npz] [--float NETWORK.tflite]

Reads the files themselves, with numpy alone: sizes, SHA-256, and of each layer container, zeros and distinct levels.
With --data (x_validation, y_validation, x_test, y_test) it also runs the network, with ai-edge-litert or else
tflite-runtime, and computes the metric; `fidelity` needs the float network instead of labels. Python 3.8 or later.
Exit code 0: all holds, 1: something does not, 2: it cannot be checked."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CARD = "model.json"
OPS = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 9: "FULLY_CONNECTED", 67: "TRANSPOSE_CONV"}  # whose input 1 is a weight
EXPANDING = (6, 124)  # DEQUANTIZE, DENSIFY: the weight is stored before them
CONTAINERS = {0: ("FLOAT32", "<f4"), 1: ("FLOAT16", "<f2"), 9: ("INT8", "i1"), 17: ("INT4", "")}
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    ImportError,
    EOFError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
Array = Any


# --- the file, by the published schema of TFLite and the layout of FlatBuffers ---------------------


class Table:
    """A FlatBuffers table; fields are numbered in the order of the schema."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def _field(self, number: int) -> int | None:
        vtable = self.at - self._read("<i", self.at)
        if 4 + 2 * number >= self._read("<H", vtable):
            return None
        offset = self._read("<H", vtable + 4 + 2 * number)
        return self.at + offset if offset else None

    def _read(self, form: str, at: int) -> int:
        return int(struct.unpack_from(form, self.data, at)[0])

    def number(self, field: int, form: str) -> int:
        at = self._field(field)
        return 0 if at is None else self._read(form, at)

    def table(self, field: int) -> Table | None:
        at = self._field(field)
        return None if at is None else Table(self.data, at + self._read("<I", at))

    def span(self, field: int) -> tuple[int, int]:
        """Where a vector begins and how many elements it has."""
        at = self._field(field)
        if at is None:
            return 0, 0
        at += self._read("<I", at)
        return at + 4, self._read("<I", at)

    def integers(self, field: int) -> list[int]:
        start, count = self.span(field)
        return [self._read("<i", start + 4 * n) for n in range(count)]

    def tables(self, field: int) -> list[Table]:
        start, count = self.span(field)
        spots = [start + 4 * n for n in range(count)]
        return [Table(self.data, spot + self._read("<I", spot)) for spot in spots]


def layers_of(data: bytes) -> list[dict[str, Any]]:
    """Each layer with a constant weight: name, container, shape, weights, zeros, levels."""
    root = Table(data, struct.unpack_from("<I", data)[0])
    codes = [max(code.number(0, "b"), code.number(3, "<i")) for code in root.tables(1)]
    graph, buffers = root.tables(2)[0], root.tables(4)
    tensors, operators = graph.tables(0), graph.tables(3)
    makers = {out: op for op in operators for out in op.integers(2)}
    counts, found = dict.fromkeys(OPS.values(), 0), []
    for operator in operators:
        name = OPS.get(codes[operator.number(0, "<I")])
        if name is None:
            continue
        number, counts[name] = counts[name], counts[name] + 1
        index = operator.integers(1)[1]
        while not buffers[tensors[index].number(2, "<I")].span(0)[1] and index in makers:
            if codes[makers[index].number(0, "<I")] not in EXPANDING:
                break
            index = makers[index].integers(1)[0]
        start, size = buffers[tensors[index].number(2, "<I")].span(0)
        if size:
            found.append(described(f"{name.lower()}_{number}", tensors[index], data[start : start + size]))
    return found


def described(name: str, tensor: Table, raw: bytes) -> dict[str, Any]:
    shape = tensor.integers(0)
    container, form = CONTAINERS.get(tensor.number(1, "b"), (f"type {tensor.number(1, 'b')}", "u1"))
    values = np.frombuffer(raw, form) if form else four_bits(raw, int(np.prod(shape)))
    sparsity = tensor.table(6)
    if sparsity is not None:
        check_sparse(sparsity, shape, len(values))
        values = np.concatenate([values, np.zeros(int(np.prod(shape)) - len(values), values.dtype)])
    facts = {"weights": values.size, "zeros": int((values == 0).sum()), "levels": len(np.unique(values))}
    return {"name": name, "container": container, "shape": shape, **facts}


def check_sparse(sparsity: Table, shape: list[int], stored: int) -> None:
    """ValueError unless the indices of a weight that is stored sparse place each of its `stored` values, once, within
    `shape`. Zeros are what is not stored (and what is, and is zero)."""
    places, size, kept = 1, 1, None
    for dimension in sparsity.tables(2):
        if dimension.number(0, "b") == 0:
            places, size = places * dimension.number(1, "<i"), size * dimension.number(1, "<i")
            continue
        segments, indices = index_vector(dimension, 2), index_vector(dimension, 4)
        rows = [indices[a:b] for a, b in zip(segments, segments[1:])]  # noqa: B905, RUF007
        if len(rows) != places or segments[:1] != [0] or segments[-1] != len(indices):
            raise ValueError("the rows of a weight that is stored sparse do not fit its indices")
        if any(a >= b for row in rows for a, b in zip(row, row[1:])) or any(i >= shape[-1] for i in indices):  # noqa: B905, RUF007
            raise ValueError("a weight that is stored sparse has a place twice, or outside of its shape")
        places, size, kept = len(indices), size * shape[-1], len(indices)
    if kept is None or places != stored or size != int(np.prod(shape)):
        raise ValueError("the values of a weight that is stored sparse do not fit its indices")


def index_vector(dimension: Table, kind: int) -> list[int]:
    """The vector of a union: its kind in field `kind` (1: int32, 2: uint16, 3: uint8), the vector behind it."""
    form, table = {1: "<i4", 2: "<u2", 3: "u1"}[dimension.number(kind, "B")], dimension.table(kind + 1)
    start, count = (0, 0) if table is None else table.span(0)
    numbers: list[int] = np.frombuffer(dimension.data, form, count, start).tolist()
    return numbers


def four_bits(raw: bytes, size: int) -> Array:
    pairs = np.frombuffer(raw, np.uint8)
    both: Array = np.stack([pairs & 15, pairs >> 4], axis=1)
    return both.reshape(-1)[:size]


# --- the metric -----------------------------------------------------------------------------------


def interpreter_of(model: bytes) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter(model_content=model)


def outputs_of(model: bytes, data: Any, split: str, judged: dict[str, Any] | None) -> tuple[list[Array], Array]:
    """The judged outputs for every sample of a split, and the first input. `judged`: `output` of the card."""
    network = interpreter_of(model)
    network.allocate_tensors()
    if judged and len(network.get_signature_list()) > 1:  # the float network as it was given
        return outputs_of_signature(network, data, split, judged)
    inputs, outputs = network.get_input_details(), network.get_output_details()
    outputs = [outputs[each["position"]] for each in judged["judged"]] if judged else outputs[:1]
    names = [detail["name"] for detail in inputs]
    signatures = network.get_signature_list()
    if len(inputs) > 1 and len(signatures) == 1:
        named = network.get_signature_runner(next(iter(signatures))).get_input_details()
        keys = {detail["index"]: name for name, detail in named.items()}
        names = [keys[detail["index"]] for detail in inputs]
    x = [data[f"x_{split}"]] if len(inputs) == 1 else [data[f"x_{split}.{name}"] for name in names]
    batch, results = int(inputs[0]["shape"][0]), [[] for _ in outputs]  # type: int, list[list[Array]]
    for start in range(0, len(x[0]), batch):
        network.reset_all_variables()
        for detail, values in zip(inputs, x):  # noqa: B905
            piece = values[start : start + batch].reshape(-1, *detail["shape"][1:])
            filled = np.concatenate([piece, np.repeat(piece[-1:], batch - len(piece), axis=0)])
            network.set_tensor(detail["index"], filled.astype(detail["dtype"]))
        network.invoke()
        for found, output in zip(results, outputs):  # noqa: B905
            found.append(network.get_tensor(output["index"]).copy())
    return [np.concatenate(found)[: len(x[0])] for found in results], x[0]


def outputs_of_signature(network: Any, data: Any, split: str, judged: dict[str, Any]) -> tuple[list[Array], Array]:
    """The same where a file has several signatures: by names, a sample at a time."""
    run = network.get_signature_runner(judged["signature"])
    named = run.get_input_details()
    x = {name: data[f"x_{split}" if len(named) == 1 else f"x_{split}.{name}"] for name in named}
    first, rows = next(iter(x.values())), []
    for number in range(len(first)):
        given = {name: np.broadcast_to(x[name][number], named[name]["shape"]) for name in named}
        found = run(**{name: values.astype(named[name]["dtype"]) for name, values in given.items()})
        rows.append([found[each["name"]][:1] for each in judged["judged"]])
    return [np.concatenate(parts) for parts in zip(*rows)], first  # noqa: B905


def classes_at(outputs: Array, labels: Any, kind: str | None) -> Array:
    """The class at each position of labels of this shape."""
    if outputs.size == np.prod(labels):
        values = outputs.reshape(labels)
        return values if kind == "integer" else np.asarray(values > (0 if kind == "linear" else 0.5)).astype(int)
    first = len(labels) > 1 and outputs.shape[2:] == labels[1:] and outputs.shape[1:-1] != labels[1:]
    return np.asarray(outputs.argmax(1) if first else outputs.reshape(*labels, -1).argmax(-1)).reshape(labels)


def numbers(y: Array, outputs: Array, keeps_rows: bool) -> Array:
    """Labels as the numbers of classes: of columns, whole float numbers and one-hot rows."""
    while y.ndim > 1 and y.shape[-1] == 1:
        y = y[..., 0]
    if y.dtype.kind == "f":
        y = y.astype(np.int64)
    same = y.ndim in (2, 4) and y.size == outputs.size and y.shape[-1] == outputs.shape[-1]
    hot = same and not keeps_rows and bool(((y == 0) | (y == 1)).all() and (y.sum(-1) == 1).all())
    return np.asarray(y.argmax(-1)) if hot else y


def that_count(y: Array) -> Array:
    """Positions of label maps that are not 255, void."""
    return np.asarray(y != 255) if y.ndim > 1 and y.max() == 255 else np.ones(y.shape, bool)


def by_class(name: str, outputs: Array, y: Array, kind: str | None) -> float:
    """Metrics of hits, predictions and labels of each class."""
    told, counted = classes_at(outputs, y.shape, kind), that_count(y)
    if y.ndim == 2 and y.size == outputs.size:  # several labels a sample
        pairs = [(told[:, c].astype(bool), y[:, c].astype(bool)) for c in range(y.shape[1])]
    else:
        known = np.array([1]) if name == "f1" else np.unique(y[counted])
        pairs = [((told == c) & counted, (y == c) & counted) for c in known]
    hits, predicted, real = (
        np.array(each, float)
        for each in zip(*((int((a & b).sum()), int(a.sum()), int(b.sum())) for a, b in pairs))  # noqa: B905
    )
    if name == "f1":
        return float(2 * hits.sum() / max(predicted.sum() + real.sum(), 1))
    hits, predicted, real = hits[real > 0], predicted[real > 0], real[real > 0]
    if name == "mean-iou":
        return float((hits / (predicted + real - hits)).mean())
    return float((hits / real if name == "recall" else 2 * hits / (predicted + real)).mean())


def likeness(name: str, outputs: Array, reference: Array, kind: str | None) -> float:
    if name == "class-fidelity" or (name == "fidelity" and kind != "linear"):
        at = outputs.shape if kind == "integer" or outputs.ndim == 1 else outputs.shape[:-1]
        return float((classes_at(outputs, at, kind) == classes_at(reference, at, kind)).mean())
    a, b = (values.reshape(len(values), -1).astype(float) for values in (outputs, reference))
    size, varies = np.sqrt((b**2).mean()), np.sqrt(((b - b.mean(axis=0)) ** 2).mean())
    unit = float(varies if varies > 1e-6 * size else size) or 1.0
    return float((1 - np.minimum(np.sqrt(((a / unit - b / unit) ** 2).mean(axis=1)), 1)).mean())


def metric_of(name: str, outputs: Array, y: Array, x: Array, kind: str | None = None) -> float:
    """`kind`: what makes the output, as the card says."""
    rows = outputs.reshape(len(outputs), -1)
    if name.endswith("fidelity"):
        return likeness(name, outputs, y, kind)
    if name == "mae":
        return float(np.abs(rows.astype(float) - y.reshape(len(y), -1)).mean())
    y = numbers(y, outputs, name in ("f1", "macro-f1") and kind == "logistic")
    if name == "roc-auc":
        wide = rows.shape[1] > 2
        scores = ((rows.astype(float) - x.reshape(len(x), -1)) ** 2).mean(1) if wide else rows[:, -1].astype(float)
        good, bad = scores[y.astype(bool)], np.sort(scores[~y.astype(bool)])
        wins = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
        return float(wins.sum() / 2 / len(good) / len(bad))
    if name.startswith("top-"):
        own, earlier = rows[np.arange(len(y)), y][:, None], np.arange(rows.shape[1]) < y[:, None]
        return float((((rows > own) | ((rows == own) & earlier)).sum(1) < int(name[4:])).mean())
    if name == "accuracy":
        right, counted = classes_at(outputs, y.shape, kind) == y, that_count(y)
        return float(((right & counted).reshape(len(y), -1).sum(1) / counted.reshape(len(y), -1).sum(1)).mean())
    if name not in ("recall", "macro-f1", "f1", "mean-iou"):
        raise ValueError(f"this program does not know the metric {name}")
    return by_class(name, outputs, y, kind)


# --- the checks -----------------------------------------------------------------------------------


def check_files(card: dict[str, Any], folder: Path) -> list[tuple[bool, str]]:
    checks = []
    for name, told in card["files"].items():
        if not (folder / name).is_file():
            checks.append((False, f"{name}: is missing"))
            continue
        content = (folder / name).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        holds = found == told["sha256"] and len(content) == told["bytes"]
        says = "" if holds else f"; the card says {told['bytes']} bytes, sha256 {told['sha256']}"
        checks.append((holds, f"{name}: {len(content)} bytes, sha256 {found}{says}"))
    return checks


def check_model(card: dict[str, Any], folder: Path, options: argparse.Namespace) -> list[tuple[bool, str]]:
    name = card["model"]
    model = (folder / name).read_bytes()
    packed = gzip.decompress((folder / f"{name}.gz").read_bytes())
    checks = [(packed == model, f"{name}.gz unpacks to {name}"), *check_layers(card, model)]
    if options.data is not None:
        float_model = None if options.float_model is None else options.float_model.read_bytes()
        checks += check_metric(card, model, np.load(options.data), float_model)
    return checks


def check_layers(card: dict[str, Any], model: bytes) -> list[tuple[bool, str]]:
    found, checks = {layer["name"]: layer for layer in layers_of(model)}, []
    if list(found) != [told["name"] for told in card["layers"]]:
        checks.append((False, f"layers: the file holds {', '.join(found)}"))
    for told in card["layers"]:
        layer = found.get(told["name"])
        if layer is None:
            continue
        least, most = bounds(told.get("asked"), layer["weights"])
        line = (
            f"{told['name']}: {layer['container']}, {layer['zeros']} of {layer['weights']} zeros (at least {least}), "
            f"{layer['levels']} levels" + ("" if most is None else f" (at most {most})")
        )
        kept = layer["zeros"] >= least and (most is None or layer["levels"] <= most)
        checks.append((kept and all(told[key] == value for key, value in layer.items()), line))
    return checks


def bounds(asked: dict[str, Any] | None, weights: int) -> tuple[int, int | None]:
    """How many zeros and levels the configuration wants of a layer: at least, at most."""
    if asked is None:
        return 0, None
    most = None if asked["bits"] > 8 else asked["clusters"] or 2 ** asked["bits"] - 1
    return math.ceil(asked["sparsity"] * weights - 1e-9), most


def check_metric(card: dict[str, Any], model: bytes, data: Any, float_model: bytes | None) -> list[tuple[bool, str]]:
    name, checks = card["metric"]["name"], []
    for split, key, interval in (
        ("validation", "accuracy", "accuracy_ci"),
        ("test", "test_accuracy", "test_accuracy_ci"),
    ):
        told, within = card["measurements"][key], card["measurements"][interval]
        if told is None or not any(key.split(".")[0] == f"x_{split}" for key in data.files):
            print(f"      {split} data: not checked ({'no value in the card' if told is None else 'no such arrays'})")
            continue
        judged = card.get("output")
        outputs, x = outputs_of(model, data, split, judged)
        likens = name.endswith("fidelity")
        if likens and float_model is None:
            raise ValueError("fidelity compares with the float network; add --float NETWORK.tflite")
        known = outputs_of(float_model or b"", data, split, judged)[0] if likens else [data[f"y_{split}"]]
        kinds = [each.get("kind") for each in judged["judged"]] if judged else [None]
        rows = zip(outputs, known, kinds)  # noqa: B905
        value = float(np.mean([metric_of(name, each, y, x, kind) for each, y, kind in rows]))
        # Kernels of other processors round otherwise: a sample or two may change sides.
        width = 0.005 if within is None else (within[1] - within[0]) / 2
        most = max(1.5 / len(x), width if name == "mae" or likens else min(width, 0.005))
        runtime = type(interpreter_of(model)).__module__.split(".")[0]
        line = f"{name} on {split} data: {value:.6f} with {runtime}, the card says {told:.6f}; {len(x)} samples"
        checks.append((abs(value - told) <= most, line))
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(description="Check an exported bundle against its card.")
    parser.add_argument("card", nargs="?", type=Path, default=Path(__file__).parent / CARD)
    parser.add_argument("--data", type=Path, help="an .npz with x_validation, y_validation, x_test, y_test")
    parser.add_argument("--float", type=Path, dest="float_model", help="the float network, for fidelity")
    options = parser.parse_args()
    try:
        card, folder = json.loads(options.card.read_text(encoding="utf-8")), options.card.parent
        checks = check_files(card, folder)
        if all(holds for holds, _ in checks):  # else it is another network than the card's
            checks += check_model(card, folder, options)
    except UNREADABLE as fault:
        print(f"cannot be checked: {type(fault).__name__}: {fault}", file=sys.stderr)
        return 2
    for holds, line in checks:
        print(f"{'ok   ' if holds else 'FAULT'} {line}")
    bad = sum(not holds for holds, _ in checks)
    print(
        f"{len(checks) - bad} of {len(checks)} checks hold"
        + ("" if options.data else "; the metric: add --data DATA.npz")
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
