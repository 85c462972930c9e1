"""Made by autocompress export. Run the network: python predict.py [SAMPLES.npy ...], one file an input, samples first.

Needs numpy and ai-edge-litert (or tflite-runtime). Without a file the input is one sample of zeros."""

import sys
from pathlib import Path

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

MODEL = "model.tflite"
OUTPUTS = {"": 0}  # those that were judged: name, position among the file's outputs
network = Interpreter(model_path=str(Path(__file__).parent / MODEL))
network.allocate_tensors()
inputs, outputs = network.get_input_details(), network.get_output_details()
samples = [np.load(name) for name in sys.argv[1:]] or [np.zeros((1, *i["shape"][1:])) for i in inputs]
if [s.shape[1:] for s in samples] != [tuple(i["shape"][1:]) for i in inputs]:
    sys.exit(
        f"the network takes samples of shape {[('n', *map(int, i['shape'][1:])) for i in inputs]}, one file an input"
    )
for number in range(len(samples[0])):
    network.reset_all_variables()
    for i, given in zip(inputs, samples):  # noqa: B905
        network.set_tensor(i["index"], np.broadcast_to(given[number], i["shape"]).astype(i["dtype"]))
    network.invoke()
    for name, position in OUTPUTS.items():
        result = network.get_tensor(outputs[position]["index"])[0]
        shown = np.array2string(result, precision=4, threshold=20)
        print(f"{number}: {f'{name}: ' if len(OUTPUTS) > 1 else ''}largest output {result.argmax()}, outputs {shown}")
