"""Search space and device files: how they are found, and what is said of faulty ones."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import AutocompressError
from autocompress.records.configuration import BITS
from autocompress.specs import (
    Rule,
    Runtime,
    SearchSpace,
    json_schema,
    load_device,
    load_space,
    packed,
)

LAYER: dict[str, Any] = {"name": "conv_2d_0", "tensor_name": "stem/Conv2D", "op": "CONV_2D"}
HEAD = "schema: 1\nname: mine\n"


def fault_of(folder: Path, text: str, load: Callable[[Path], object] = load_space) -> str:
    path = folder / "faulty.yaml"
    path.write_text(text)
    with pytest.raises(AutocompressError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def space_of(folder: Path, text: str) -> SearchSpace:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_space(path)


# Faulty files


def test_all_faults_come_at_once_with_their_paths(tmp_path: Path) -> None:
    text = """
schema: 1
name: mine
activations: [on, float32]
sparsity: [0]
rules:
  - match: "conv("
    bits: [8, 9]
    sparsity: [1, 1e-3, .nan]
    clusters: [no, 300]
    granularity: [channel]
    bitz: [3]
  - bits: 8
"""
    message = fault_of(tmp_path, text)
    assert message.startswith(
        "13 faults: $.activations[0]: true is not one of float32, int8, int16, weight_only (YAML reads on"
    )
    for part in (
        "$.rules[0].match: 'conv(' is not a regular expression",
        "$.rules[0].bits[1]: 9 is not one of 32, 16, 8, 7, 6, 5, 4, 3, 2",
        "$.rules[0].sparsity[0]: 1 is not below 1",
        "$.rules[0].sparsity[1]: '1e-3' is not a number (YAML reads this as text: write 0.001",
        "$.rules[0].sparsity[2]: nan is not a finite number",
        "$.rules[0].clusters[0]: false is not none or a whole number from 2 to 256 (YAML reads on",
        "$.rules[0].clusters[1]: 300 is not none or a whole number from 2 to 256",
        "$.rules[0].granularity[0]: channels are kept by groups of layers, not by layer; use the key",
        "$.rules[0].bitz: unknown key; did you mean 'bits'?",
        '$.rules[1].match: the rule names no layer; give match (".*" for every layer) or op',
        "$.rules[1].bits: 8 is not a list",
    ):
        assert f": {part}" in message or f"; {part}" in message, part


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1 fault: $: the file is empty"),
        ("# nothing\n", "1 fault: $: the file is empty"),
        ("- a\n", "$: ['a'] is not a mapping"),
        ("a: [1", "$: not valid YAML in line 2"),
        ("a: !!python/object:os.x 1", "$: not valid YAML in line 1, column 4"),
        ("a: 2022-13-45", "$: not valid YAML: month must be in 1..12"),
        ("a: 1\n---\nb: 2", "$: not valid YAML in line 2, column 1: but found"),
        ("[" * 50, "$: not valid YAML: nested more than 32 deep"),
        ("[" * 100_000, "$: not valid YAML"),  # PyYAML 6.0.4 refuses it before it hands over the first bracket
        ("- " * 100_000, "$: not valid YAML: nested more than 32 deep"),
        ("schema: 1", "2 faults: $.name: is missing; $.rules: is missing"),
        (f"{HEAD}rules: []", "$.rules: [] is empty"),
        (
            f"{HEAD}rules: [{{op: conv_2d}}]",
            "$.rules[0].op: 'conv_2d' is not known here; did you mean CONV_2D?",
        ),
        (f"{HEAD}rules: [{{op: A}}]", "$.rules[0].op: 'A' is not one of CONV_2D, DEPTHWISE"),
        (f"{HEAD}rules: [{{op: CONV_2D, bits: []}}]", "$.rules[0].bits: [] is empty"),
        (f"{HEAD}rules: [{{op: CONV_2D, bits: }}]", "$.rules[0].bits: null is not a list"),
        (f"{HEAD}rules: [{{op: CONV_2D, bits: ['8']}}]", "'8' is not one of 32, 16"),
        (f"{HEAD}rules: [{{op: CONV_2D, sparsity: [yes]}}]", "$.rules[0].sparsity[0]: true is not a number"),
        (
            f"{HEAD}rules: [{{op: CONV_2D, sparsity: [-0.1]}}]",
            "$.rules[0].sparsity[0]: -0.1 is not at least 0",
        ),
        (f"{HEAD}rules: [{{op: CONV_2D, clusters: [16.5]}}]", "$.rules[0].clusters[0]: 16.5 is not none or"),
        (f"{HEAD}rules: [3]", "$.rules[0]: 3 is not a mapping"),
        ("schema: 2\nname: mine\nrules: [{op: CONV_2D}]", "1 fault: $.schema: 2 is not 1"),
        ("schema: true\nname: mine\nrules: [{op: CONV_2D}]", "1 fault: $.schema: true is not 1"),
        ("schema: 1\nname: a/b\nrules: [{op: CONV_2D}]", "$.name: 'a/b' is not a name of letters"),
        ("schema: 1\nname: no\nrules: [{op: CONV_2D}]", "$.name: false is not text"),
        (
            f"{HEAD}name: again\nrules: [{{op: CONV_2D}}]",
            "1 fault: $: key 'name' is given twice, again in line 3",
        ),
        (f"{HEAD}rules: [{{op: CONV_2D, op: CONV_3D}}]", "$.rules[0]: key 'op' is given twice"),
        (f"{HEAD}on: 1\nrules: [{{op: CONV_2D}}]", "1 fault: $: key 'on' is read by YAML as bool"),
        (f"{HEAD}? [1]\n: 2\nrules: [{{op: CONV_2D}}]", "$: key (a collection) is read by YAML as seq"),
        (f"{HEAD}rules: &all [{{op: CONV_2D, bits: *all}}]", "$.rules[0].bits[0]: a mapping is not one of"),
    ],
)
def test_a_fault_says_where_and_what(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in fault_of(tmp_path, text)


def test_files_that_cannot_be_read_are_faults_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    (tmp_path / "folder.yaml").mkdir()
    for name, words in (
        ("latin.yaml", "not UTF-8"),
        ("folder.yaml", "is a folder"),
        ("gone.yaml", "does not exist; give a .yaml file or one of: channels, default"),
        ("folder/space", "does not end with .yaml"),
    ):
        with pytest.raises(AutocompressError, match=words):
            load_space(tmp_path / name)


@pytest.mark.parametrize(
    ("load", "name", "words"),
    [
        (load_space, "defualt", "unknown search space 'defualt'; did you mean 'default'?"),
        (load_device, "rpi-4", "unknown device 'rpi-4'; did you mean 'rpi4'?"),
        (load_device, "toaster", "choose one of: coral-dev-cpu, "),
        (load_device, "", "choose one of: coral-dev-cpu, "),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_all(load: Callable[[str], object], name: str, words: str) -> None:
    with pytest.raises(AutocompressError, match=re.escape(words)):
        load(name)


def test_aliases_and_merge_keys_are_plain_yaml(tmp_path: Path) -> None:
    text = HEAD + "rules:\n- &first {match: a, bits: [8]}\n- {<<: *first, match: b}\n"
    assert space_of(tmp_path, text).rules == (Rule(match="a", bits=(8,)), Rule(match="b", bits=(8,)))


GOOD_DEVICE = """schema: 1
name: mine
description: a board
runtime: {name: tflite-runtime, threads: 2}
kernels: {CONV_2D: [[32, float32], [8, int8], [8, int8]]}
"""


@pytest.mark.parametrize(
    ("host", "meaning"),
    [
        ("null", None),
        ("local", "local"),
        ("{ssh: pi@board}", {"ssh": "pi@board"}),
        ("{ssh: pi@board, python: ~/venv/bin/python3}", {"ssh": "pi@board", "python": "~/venv/bin/python3"}),
        ("{command: [env, python3]}", {"command": ["env", "python3"]}),
    ],
)
def test_a_device_file_with_each_kind_of_host(tmp_path: Path, host: str, meaning: object) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{GOOD_DEVICE}host: {host}\n")
    profile = load_device(path)
    assert profile.host == meaning
    assert profile.runtime == Runtime(name="tflite-runtime", threads=2)
    assert profile.kernels == {"CONV_2D": ((32, "float32"), (8, "int8"))}
    assert (profile.memory_bytes, profile.power_w, profile.latency_model) == (None, None, None)
    assert (profile.cores, profile.clock_mhz, profile.sources) == (None, None, {})


POINT = "{model: a, dtype: float32, mmac: 1, mb: 1, ops: 1, latency_ms: 1, source: s}"
ZEROS = "{ms_per_mmac: 0, ms_per_mb: 0, ms_per_op: 0}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("host: locl", "$.host: 'locl' is not one of null, local; did you mean local?"),
        ("host: {ssh: a, command: [b]}", "$.host: a mapping is not null, local, {ssh: user@name}"),
        ("host: {ssh: -oProxyCommand=x}", "$.host: '-oProxyCommand=x' is empty or begins with '-'"),
        ("host: {ssh: pi@board, python: ''}", "$.host: '' is empty or begins with '-'"),
        ("host: {python: python3}", "$.host: a mapping is not null, local, {ssh: user@name}"),
        ("host: {command: []}", "$.host: a mapping is not null, local"),
        ("memory_bytes: -1", "$.memory_bytes: -1 is not above 0"),
        ("cores: 1", "$.cores: 1 cores are fewer than the 2 threads of the runtime"),
        ("clock_mhz: 0", "$.clock_mhz: 0 is not above 0"),
        ("sources: {clock: a}", "$.sources.clock: 'clock' is not one of cores, clock_mhz, memory_bytes"),
        ("memory_bytes: 1.5", "$.memory_bytes: 1.5 is not a whole number"),
        ("power_w: {busy: 0}", "2 faults: $.power_w.busy: 0 is not above 0; $.power_w.source: is missing"),
        ("latency_model: {}", "4 faults: $.latency_model.runtime: is missing"),
        (
            f"latency_model: {{runtime: {{name: x, version: 2022-02-08, threads: 0}}, fitted_to: [{POINT}], "
            f"coefficients: {{float32: {ZEROS}, int8: {ZEROS}}}, leave_one_out: {{float32: -1}}}}",
            "4 faults: $.latency_model.runtime.version: 2022-02-08 is not text (put it in quotes); "
            "$.latency_model.runtime.threads: 0 is not at least 1; "
            "$.latency_model.coefficients: int8 has no point in fitted_to; "
            "$.latency_model.leave_one_out.float32: -1 is not at least 0",
        ),
        (
            f"latency_model: {{runtime: {{name: x, version: '1', threads: 1}}, fitted_to: [{POINT}], "
            f"coefficients: {{float32: {ZEROS}}}, leave_one_out: {{float32: 0, int8: 0}}}}",
            "1 fault: $.latency_model.leave_one_out: int8 has no coefficients",
        ),
    ],
)
def test_a_faulty_device_file_says_where_and_what(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in fault_of(tmp_path, f"{GOOD_DEVICE}{text}\n", load_device)


@pytest.mark.parametrize(
    ("kernels", "fault"),
    [
        ("{CONV_2D: [[9, float32]]}", "$.kernels.CONV_2D[0]: [9, 'float32'] is not a pair"),
        ("{CONV_2D: [[8, float]]}", "$.kernels.CONV_2D[0]: [8, 'float'] is not a pair"),
        (
            "{CONV_2D: [[2, float32]]}",
            "$.kernels.CONV_2D[0]: [2, 'float32'] is not a pair [weight bits, activations] of 32, 16, 8, 4",
        ),
        (
            "{DEPTHWISE_CONV_2D: [[8, int8], [4, int8]]}",
            "DEPTHWISE_CONV_2D [4, int8]: its weights are stored in 8 bits at least; leave [4, int8] out",
        ),
        ("{CONV_2D: [8, float32]}", "$.kernels.CONV_2D[0]: 8 is not a pair"),
        ("{CONV_2D: [[32, int8]]}", "float weights run with float32 activations only"),
        ("{CONV2D: []}", "$.kernels.CONV2D: 'CONV2D' is not known here; did you mean CONV_2D?"),
    ],
)
def test_faulty_kernels(tmp_path: Path, kernels: str, fault: str) -> None:
    text = re.sub("kernels: .*", f"kernels: {kernels}", GOOD_DEVICE)
    assert fault in fault_of(tmp_path, text, load_device)


# Around the files


def test_the_json_schema_names_every_key_and_no_other() -> None:
    space, profile = json_schema("space"), json_schema("device")
    assert set(space["properties"]) == {"schema", "name", "activations", "rules", "channels"}
    assert space["additionalProperties"] is False
    rule = space["$defs"]["RuleFile"]["properties"]
    assert set(rule) == {"match", "op", "sparse_kernels", "sparsity", "granularity", "bits", "clusters"}
    assert rule["bits"]["items"]["enum"] == list(BITS)
    assert {"runtime", "host", "kernels", "power_w", "latency_model"} <= set(profile["properties"])
    with pytest.raises(AutocompressError, match="did you mean 'space'"):
        json_schema("spaces")


def test_files_next_to_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "autocompress"
    for parent, name in ((tmp_path, "checkout"), (package, "wheel")):
        (parent / "search_spaces").mkdir(parents=True)
        (parent / "search_spaces" / f"{name}.yaml").write_text("")
    monkeypatch.setattr(packed, "_PACKAGE", package)
    assert packed.names("search_spaces") == ("wheel",)
    for file in itertools.chain(package.rglob("*.yaml")):
        file.unlink()
    (package / "search_spaces").rmdir()
    assert packed.names("search_spaces") == ("checkout",)
    with pytest.raises(AutocompressError, match="'device_profiles' is missing"):
        packed.names("device_profiles")


def test_importing_specs_loads_neither_pydantic_nor_yaml() -> None:
    code = "import sys, autocompress.specs; print({'pydantic', 'yaml', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
