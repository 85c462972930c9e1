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
network = Interpreter(model_path=str(Path(__file__).parent / MODEL))
network.allocate_tensors()
inputs, output = network.get_input_details(), network.get_output_details()[0]
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
    result = network.get_tensor(output["index"])[0]
    print(f"{number}: largest output {result.argmax()}, outputs {np.array2string(result, precision=4, threshold=20)}")
