"""A Keras file or SavedModel to a float flatbuffer, within a process that TensorFlow may take along.

Where the converter fails on what it cannot know, it is asked again: recurrent layers need a batch of fixed size, mixed
precision needs float32. Where nothing helps, the reason comes with a remedy."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

REASON_CHARACTERS = 300
_LISTS = "TensorList"  # what the converter makes of a recurrent layer whose batch is open
_TEXT = re.compile(r"String|Regex|Ragged|LookupTable|Unicode|Bytes")
_CUSTOM = (  # how the two Keras name a layer that they do not know
    re.compile(r"Could not locate class '(\w+)'"),
    re.compile(r"Unknown layer: '?(?:\w+>)?(\w+)"),
    re.compile(r"Cannot deserialize object of type `(\w+)`"),
    re.compile(r"'class_name': '(\w+)', 'config'"),
)


def one_line(text: str) -> str:
    """Whatever a framework says, shortened."""
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"


def convert_here(source: str, target: str, reason: str) -> None:
    """Converts in this process: writes the flatbuffer to `target`, or why there is none, and in a second line what to
    do, to `reason`."""
    path = Path(source)
    try:
        model = _of_saved_model(path) if path.is_dir() else _of_keras(path)
    except Exception as error:  # whatever TensorFlow raises is about the user's file; the parent reports it
        Path(reason).write_text("\n".join(_reason(error)))
        return
    partial = Path(f"{target}.partial")
    partial.write_bytes(model)
    partial.rename(target)


def _reason(error: Exception) -> tuple[str, ...]:
    """The error in one line, of the converter's pages of it the operators that it cannot express; and a remedy where
    one is known."""
    text, operators = str(error), _operators(error)
    if any(_TEXT.search(operator) for operator in operators):
        return (
            f"it reads text (operators {', '.join(operators)}), and TFLite networks read numbers",
            "save the part behind the tokenizer, with the token ids as its input",
        )
    if any(operator.startswith(_LISTS) for operator in operators):
        return (
            "its recurrent layers are of an open batch or length",
            "give the Keras model as a .keras file, of fixed length: keras.Input((LENGTH, FEATURES))",
        )
    if operators:
        return (f"TFLite has no operator for {', '.join(operators)}",)
    if "Lambda" in text:
        return ("its Lambda layer is Python code, which is not run from a file", _AS_SAVED_MODEL)
    name = next((found[1] for pattern in _CUSTOM if (found := pattern.search(text))), None)
    if name is not None:
        return (f"its layer {name} is code of your own, which the file does not hold", _AS_SAVED_MODEL)
    return (one_line(f"{type(error).__name__}: {error}"),)


_AS_SAVED_MODEL = "where that code is, save the network with model.export('FOLDER') and give --model FOLDER"


def _operators(error: Exception) -> list[str]:
    return sorted(set(re.findall(r"'tf\.(\w+)' op", str(error))))


def _of_saved_model(path: Path) -> bytes:
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_saved_model(str(path)).convert())


def _of_keras(path: Path) -> bytes:
    version = _keras_version(path)  # first: a file that is none is refused before the slow import
    import tensorflow as tf

    model = _in_float32(_load_keras(path, version))
    try:
        return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    except Exception as fault:
        if not any(operator.startswith(_LISTS) for operator in _operators(fault)):
            raise
        return _of_one_sample(model)


def _of_one_sample(model: Any) -> bytes:
    """A recurrent network with a batch of 1, its variables made constants: within its loops they would stay."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec([1, *each.shape[1:]], each.dtype, name=each.name.split(":")[0]) for each in model.inputs]
    called = tf.function(lambda *inputs: model(inputs if len(inputs) > 1 else inputs[0], training=False))
    frozen = convert_variables_to_constants_v2(called.get_concrete_function(*specs), lower_control_flow=False)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


def _in_float32(model: Any) -> Any:
    """The network as it is or, of one that computes in 16 bits (mixed precision), the same weights in float32."""
    computed = {str(getattr(layer, "compute_dtype", "")) for layer in model._flatten_layers()}
    if not computed & {"float16", "bfloat16"}:
        return model
    again = type(model).from_config(json.loads(_without_mixed(json.dumps(model.get_config(), default=str))))
    again.set_weights(model.get_weights())
    return again


def _without_mixed(config: str) -> str:
    return re.sub(r'"(mixed_)?b?float16"', '"float32"', config)


def _load_keras(path: Path, version: str) -> Any:
    """The model, by the Keras of the version that wrote the file; by the other one when that fails."""
    first, second = (_load_keras_2, _load_keras_3) if version.startswith("2.") else (_load_keras_3, _load_keras_2)
    try:
        return first(path)
    except Exception as fault:  # Keras raises anything
        try:
            return second(path)
        except Exception:  # the reason of the Keras that wrote the file tells more than the other's
            raise fault from None


def _load_keras_3(path: Path) -> Any:
    import keras

    return keras.models.load_model(path, compile=False)


def _load_keras_2(path: Path) -> Any:
    import tf_keras

    return tf_keras.models.load_model(path, compile=False)


def _keras_version(path: Path) -> str:
    """The version of Keras that wrote the file, as it says itself; empty where it does not."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
    import h5py  # type: ignore[import-untyped]

    with h5py.File(path, "r") as file:
        version = file.attrs.get("keras_version", "")
    return version.decode() if isinstance(version, bytes) else str(version)
