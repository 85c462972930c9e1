"""Made by autocompress export. Run the network on samples, and print its outputs.

Needs numpy and ai-edge-litert (or tflite-runtime)."""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "model.tflite"
OUTPUTS = {"": 0}  # those that were judged: name, position among the file's outputs
HELP = """\
a .npy with samples, samples first: one file an input, in the order of the inputs; or one .npz with an array an input,
by the input's name, or x_test, x_validation (several inputs: x_test.NAME) as the data of a search have it. Without any:
one sample of zeros."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="*", metavar="SAMPLES", help=HELP)
    files = parser.parse_args().samples
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

    network = Interpreter(model_path=str(Path(__file__).parent / MODEL))
    network.allocate_tensors()
    inputs = network.get_input_details()
    samples = read(files, inputs) if files else [np.zeros((1, *i["shape"][1:])) for i in inputs]
    check(samples, inputs)
    run(network, inputs, samples)


def read(files: list[str], inputs: list[dict[str, Any]]) -> list[Any]:
    """The samples of each input."""
    try:
        if len(files) == 1 and files[0].endswith(".npz"):
            with np.load(files[0]) as archive:
                return [archive[key_of(archive.files, i["name"], len(inputs))] for i in inputs]
        return [np.load(name) for name in files]
    except (OSError, ValueError, zipfile.BadZipFile) as fault:
        sys.exit(f"cannot read {' '.join(files)}: {fault}; give a .npy an input or one .npz, see --help")


def key_of(keys: list[str], name: str, count: int) -> str:
    """The array of an archive that is for the input `name`."""
    short = name.split(":")[0].removeprefix("serving_default_")
    wanted = [name, short, *(f"{split}.{each}" for split in ("x_test", "x_validation") for each in (name, short))]
    wanted += ["x_test", "x_validation", "x", *keys[: len(keys) == 1]] if count == 1 else []
    found = [key for key in wanted if key in keys]
    if not found:
        sys.exit(f"no array for the input '{short}' among {', '.join(keys) or 'none'}; call it {short} or x_test")
    return found[0]


def check(samples: list[Any], inputs: list[dict[str, Any]]) -> None:
    """End with what the network takes where the samples are something else."""
    counts = {len(s) if s.ndim else 0 for s in samples}
    if [s.shape[1:] for s in samples] != [tuple(i["shape"][1:]) for i in inputs] or len(counts) != 1:
        shapes = ", ".join(f"(n, {', '.join(str(d) for d in i['shape'][1:])})" for i in inputs)
        given = ", ".join(str(s.shape) for s in samples)
        sys.exit(f"the network takes samples of shape {shapes}, as many of each; got {given}")


def run(network: Any, inputs: list[dict[str, Any]], samples: list[Any]) -> None:
    """Run one sample after the other."""
    outputs = network.get_output_details()
    for number in range(len(samples[0])):
        network.reset_all_variables()
        for i, given in zip(inputs, samples):  # noqa: B905
            network.set_tensor(i["index"], np.broadcast_to(given[number], i["shape"]).astype(i["dtype"]))
        network.invoke()
        for name, position in OUTPUTS.items():
            result = network.get_tensor(outputs[position]["index"])[0]
            shown = np.array2string(result, precision=4, threshold=20)
            print(
                f"{number}: {f'{name}: ' if len(OUTPUTS) > 1 else ''}largest output {result.argmax()}, outputs {shown}"
            )


if __name__ == "__main__":
    main()
