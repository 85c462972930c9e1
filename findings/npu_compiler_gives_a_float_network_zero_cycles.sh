#!/usr/bin/env bash
# Arm's compiler for Ethos-U takes a float network, ends well, and estimates 0 cycles for it.
#
# A good engineer who ranks networks by Vela's cycles expects an error, or a large figure, for a network that the NPU
# cannot run. Vela leaves every float operator to the CPU, whose time its estimate does not hold, writes the file and the
# summary with exit code 0, and the slowest network of all has inference_time 0: the fastest. The number of NPU
# operators must be looked at.
#
# ethos-u-vela 5.2.0, Python 3.11. The network is the float sine model that tflite-micro's own package brings. Output seen:
#   exit code 0, cycles_total 0, inference_time 0.0, weights coded for the NPU: 0 bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  ethos-u-vela==5.2.0 tflite-micro==0.dev20261023182759 numpy==1.26.4 flatbuffers==25.12.19

cp "$folder"/venv/lib/python*/site-packages/tflite_micro/python/tflite_micro/sine_float.tflite "$folder/sine.tflite"
cd "$folder"
"$folder/venv/bin/vela" sine.tflite --accelerator-config ethos-u85-256 --config Arm/vela.ini \
  --system-config Ethos_U85_SYS_Flash_High --memory-mode Shared_Sram --output-dir out > vela.log 2>&1
echo "exit code $?" > code
"$folder/venv/bin/python" - <<'PYTHON'
import csv
import glob

(row,) = csv.DictReader(open(glob.glob("out/*_summary_*.csv")[0], newline=""))
code = open("code").read().strip()
cycles, seconds, coded = float(row["cycles_total"]), float(row["inference_time"]), float(row["total_npu_encoded_weights"])
print(f"{code}, cycles_total {cycles:.0f}, inference_time {seconds}, weights coded for the NPU: {coded:.0f} bytes")
assert (code, cycles, seconds, coded) == ("exit code 0", 0, 0, 0)
PYTHON
