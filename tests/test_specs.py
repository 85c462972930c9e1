"""Search spaces and device files: what they mean, and what is said of faulty ones."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress import records
from autocompress.errors import AutocompressError
from autocompress.records import LayerChoice
from autocompress.specs import (
    DeviceProfile,
    Rule,
    Runtime,
    SearchSpace,
    allowed_activations,
    allowed_choices,
    container_bits,
    json_schema,
    load_device,
    load_space,
    packed,
    space_names,
)

LAYER = {"name": "conv_2d_0", "tensor_name": "stem/Conv2D", "op": "CONV_2D"}
HEAD = "schema: 1\nname: mine\n"


def fault_of(folder: Path, text: str, load=load_space) -> str:
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


# What a space means


def test_the_default_space_is_that_of_the_design():
    space = load_space("default")
    assert space.activations == ("float32", "int8")
    convolution = space.choices(**LAYER)
    # per sparsity: 32 bits 1, then 8, 6, 5, 4, 3 bits with the clusters that bind: 5 + 4 + 3 + 2 + 1
    assert len(convolution) == 6 * (1 + 5 + 4 + 3 + 2 + 1)
    assert convolution[0] == LayerChoice()
    depthwise = space.choices(name="depthwise_conv_2d_0", tensor_name="x", op="DEPTHWISE_CONV_2D")
    assert {(choice.sparsity, choice.bits) for choice in depthwise} == {(0.0, 32), (0.0, 8)}


def test_every_shipped_space_loads_under_its_own_name():
    assert {"default", "quick", "weights-only", "int16"} <= set(space_names())
    for name in space_names():
        assert load_space(name).name == name
    assert load_space("weights-only").activations == ("float32",)
    assert "int16" in load_space("int16").activations


def test_a_layer_that_no_rule_names_stays_float(tmp_path):
    space = space_of(tmp_path, f"{HEAD}rules: [{{match: conv_2d_1, bits: [8]}}]")
    assert space.choices(**LAYER) == (LayerChoice(),)
    assert not space.names_layer(**LAYER)
    assert space.names_layer(name="conv_2d_1", tensor_name="", op="CONV_2D")


def test_a_rule_names_layers_by_whole_name_tensor_and_op(tmp_path):
    text = HEAD + "rules: [{match: 'stem/.*|conv_2d', op: CONV_2D, bits: [8]}]"
    space = space_of(tmp_path, text)
    assert space.names_layer(**LAYER)
    assert not space.names_layer(**LAYER | {"op": "FULLY_CONNECTED"})
    assert not space.names_layer(**LAYER | {"tensor_name": "x"})  # conv_2d is not the whole of conv_2d_0


def test_one_and_1_0_are_the_same_and_null_is_none(tmp_path):
    text = HEAD + "rules: [{op: CONV_2D, sparsity: [0, 0.0, -0.0], bits: [8], clusters: [none, null, ~]}]"
    (choice,) = space_of(tmp_path, text).choices(**LAYER)
    assert choice.to_json() == LayerChoice(bits=8).to_json()


values = {
    "sparsity": st.sampled_from([0.0, 0.25, 0.5]),
    "bits": st.sampled_from(records.BITS),
    "clusters": st.sampled_from([None, 2, 4, 15, 16, 255, 256]),
}
rules = st.builds(
    Rule,
    match=st.sampled_from([None, ".*", "conv_2d_[0-3]", "conv_2d_1", ".*/dense"]),
    op=st.sampled_from([None, "CONV_2D", "FULLY_CONNECTED"]),
    **{key: st.none() | st.lists(one, min_size=1, max_size=3).map(tuple) for key, one in values.items()},
).filter(lambda rule: rule.match or rule.op)
spaces = st.builds(
    SearchSpace,
    name=st.just("drawn"),
    activations=st.lists(st.sampled_from(records.ACTIVATIONS), min_size=1, unique=True).map(tuple),
    rules=st.lists(rules, max_size=5).map(tuple),
)
layers = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["conv_2d_0", "conv_2d_1", "conv_2d_10", "fully_connected_0"]),
        "tensor_name": st.sampled_from(["a/dense", "dense", "conv_2d_1"]),
        "op": st.sampled_from(["CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"]),
    }
)


def slow_choices(space: SearchSpace, name: str, tensor_name: str, op: str) -> list[LayerChoice]:
    """One key after the other, one rule after the other, one combination after the other."""
    merged: dict[str, tuple] = {}
    for key, default in (("sparsity", 0.0), ("bits", 32), ("clusters", None)):
        merged[key] = (default,)
        for rule in space.rules:
            matches = (
                not rule.match or re.fullmatch(rule.match, name) or re.fullmatch(rule.match, tensor_name)
            )
            if matches and rule.op in (None, op) and getattr(rule, key) is not None:
                merged[key] = getattr(rule, key)
    found: list[LayerChoice] = []
    for sparsity in merged["sparsity"]:
        for bits in merged["bits"]:
            for clusters in merged["clusters"]:
                binds = bits <= 8 and clusters is not None and clusters < 2**bits - 1
                choice = LayerChoice(sparsity=sparsity, bits=bits, clusters=clusters if binds else None)
                if choice not in found:
                    found.append(choice)
    return found


@settings(deadline=None)
@given(spaces, layers)
def test_rules_merge_per_key_and_later_ones_win(space, layer):
    choices = space.choices(**layer)
    assert list(choices) == slow_choices(space, **layer)
    assert all(choice == choice.normalised() for choice in choices)
    assert len(set(choices)) == len(choices)


# What a device can run

kernel_tables = st.dictionaries(
    st.sampled_from(["CONV_2D", "FULLY_CONNECTED"]),
    st.lists(
        st.tuples(st.sampled_from([8, 4, 2]), st.sampled_from(records.ACTIVATIONS))
        | st.sampled_from([(32, "float32"), (16, "float32")]),
        max_size=6,
    ).map(tuple),
)


def device(kernels) -> DeviceProfile:
    return DeviceProfile(
        name="drawn",
        description="x",
        runtime=Runtime(name="ai-edge-litert", threads=1),
        host=None,
        memory_bytes=None,
        power_w=None,
        kernels=kernels,
        latency_model=None,
    )


def slow_container(kernels, op: str, bits: int, activations: str) -> int | None:
    """Tries every container from the smallest up."""
    for container in (2, 4, 8, 16, 32):
        if op not in kernels:
            right = container == bits == 32
        elif bits > 8:
            right = container == bits and (container, "float32") in kernels[op]
        else:
            right = bits <= container <= 8 and (container, activations) in kernels[op]
        if right:
            return container
    return None


@settings(deadline=None)
@given(
    kernel_tables,
    st.sampled_from(["CONV_2D", "FULLY_CONNECTED", "CONV_3D"]),
    st.sampled_from(records.BITS),
    st.sampled_from(records.ACTIVATIONS),
)
def test_weights_go_into_the_smallest_container_that_runs(kernels, op, bits, activations):
    assert container_bits(kernels, op, bits, activations) == slow_container(kernels, op, bits, activations)


@settings(deadline=None)
@given(spaces, kernel_tables, layers)
def test_only_what_the_device_runs_under_all_activations_is_offered(space, kernels, layer):
    profile = device(kernels)
    integer = {kind for pairs in kernels.values() for bits, kind in pairs if bits <= 8}
    if integer and not integer & set(space.activations):
        with pytest.raises(AutocompressError, match="add one of these"):
            allowed_choices(space, profile, **layer)
        return
    activations = allowed_activations(space, profile)
    expected = tuple(kind for kind in space.activations if kind in integer) if integer else ("float32",)
    assert activations == expected
    offered, allowed = space.choices(**layer), allowed_choices(space, profile, **layer)
    runnable = [
        choice
        for choice in offered
        if all(container_bits(kernels, layer["op"], choice.bits, kind) for kind in activations)
    ]
    if runnable:
        assert list(allowed) == runnable
    else:
        assert {choice.bits for choice in allowed} == {32}
        assert {choice.sparsity for choice in allowed} == {choice.sparsity for choice in offered}
    assert len(set(allowed)) == len(allowed) > 0


def test_three_bits_are_stored_in_the_next_container():
    kernels = {"CONV_2D": [(32, "float32"), (8, "float32"), (4, "float32"), (8, "int8")]}
    assert container_bits(kernels, "CONV_2D", 3, "float32") == 4
    assert container_bits(kernels, "CONV_2D", 3, "int8") == 8
    assert container_bits(kernels, "CONV_2D", 5, "float32") == 8
    assert container_bits(kernels, "CONV_2D", 8, "int16") is None
    assert container_bits(kernels, "CONV_2D", 16, "float32") is None


def test_modelled_latency_drops_activations_without_coefficients():
    space, rpi4 = load_space("int16"), load_device("rpi4")
    assert allowed_activations(space, rpi4) == ("float32", "int8", "int16")
    assert allowed_activations(space, rpi4, modelled=True) == ("float32", "int8")
    only = SearchSpace(name="only", activations=("int16",), rules=space.rules)
    with pytest.raises(AutocompressError, match="'only' offers activations int16 only"):
        allowed_activations(only, rpi4, modelled=True)


def test_an_op_that_the_device_lacks_stays_float():
    profile = device({"CONV_2D": ((32, "float32"), (8, "float32"))})
    space = load_space("quick")
    assert allowed_activations(space, profile) == ("float32",)
    dense = allowed_choices(space, profile, name="fully_connected_0", tensor_name="x", op="FULLY_CONNECTED")
    assert dense == (LayerChoice(), LayerChoice(sparsity=0.5))


# Faulty files


def test_all_faults_come_at_once_with_their_paths(tmp_path):
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
        "13 faults: $.activations[0]: true is not one of float32, int8, int16 (YAML reads on"
    )
    for part in (
        "$.rules[0].match: 'conv(' is not a regular expression",
        "$.rules[0].bits[1]: 9 is not one of 32, 16, 8, 7, 6, 5, 4, 3, 2",
        "$.rules[0].sparsity[0]: 1 is not below 1",
        "$.rules[0].sparsity[1]: '1e-3' is not a number (YAML reads this as text: write 0.001",
        "$.rules[0].sparsity[2]: nan is not a finite number",
        "$.rules[0].clusters[0]: false is not none or a whole number from 2 to 256 (YAML reads on",
        "$.rules[0].clusters[1]: 300 is not none or a whole number from 2 to 256",
        "$.rules[0].granularity[0]: granularity 'channel' is not available yet; use element",
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
        ("[" * 100_000, "$: not valid YAML: nested more than 32 deep"),
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
def test_a_fault_says_where_and_what(tmp_path, text, fault):
    assert fault in fault_of(tmp_path, text)


def test_files_that_cannot_be_read_are_faults_in_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    (tmp_path / "folder.yaml").mkdir()
    for name, words in (
        ("latin.yaml", "not UTF-8"),
        ("folder.yaml", "is a folder"),
        ("gone.yaml", "does not exist; give a .yaml file or one of: default"),
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
def test_an_unknown_name_gets_the_nearest_or_all(load, name, words):
    with pytest.raises(AutocompressError, match=re.escape(words)):
        load(name)


def test_aliases_and_merge_keys_are_plain_yaml(tmp_path):
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
        ("{command: [env, python3]}", {"command": ["env", "python3"]}),
    ],
)
def test_a_device_file_with_each_kind_of_host(tmp_path, host, meaning):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{GOOD_DEVICE}host: {host}\n")
    profile = load_device(path)
    assert profile.host == meaning
    assert profile.runtime == Runtime(name="tflite-runtime", threads=2)
    assert profile.kernels == {"CONV_2D": ((32, "float32"), (8, "int8"))}
    assert (profile.memory_bytes, profile.power_w, profile.latency_model) == (None, None, None)


POINT = "{model: a, dtype: float32, mmac: 1, mb: 1, ops: 1, latency_ms: 1, source: s}"
ZEROS = "{ms_per_mmac: 0, ms_per_mb: 0, ms_per_op: 0}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("host: locl", "$.host: 'locl' is not one of null, local; did you mean local?"),
        ("host: {ssh: a, command: [b]}", "$.host: a mapping is not null, local, {ssh: user@name}"),
        ("host: {command: []}", "$.host: a mapping is not null, local"),
        ("memory_bytes: -1", "$.memory_bytes: -1 is not above 0"),
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
def test_a_faulty_device_file_says_where_and_what(tmp_path, text, fault):
    assert fault in fault_of(tmp_path, f"{GOOD_DEVICE}{text}\n", load_device)


@pytest.mark.parametrize(
    ("kernels", "fault"),
    [
        ("{CONV_2D: [[9, float32]]}", "$.kernels.CONV_2D[0]: [9, 'float32'] is not a pair"),
        ("{CONV_2D: [[8, float]]}", "$.kernels.CONV_2D[0]: [8, 'float'] is not a pair"),
        ("{CONV_2D: [8, float32]}", "$.kernels.CONV_2D[0]: 8 is not a pair"),
        ("{CONV_2D: [[32, int8]]}", "float weights run with float32 activations only"),
        ("{CONV2D: []}", "$.kernels.CONV2D: 'CONV2D' is not known here; did you mean CONV_2D?"),
    ],
)
def test_faulty_kernels(tmp_path, kernels, fault):
    text = re.sub("kernels: .*", f"kernels: {kernels}", GOOD_DEVICE)
    assert fault in fault_of(tmp_path, text, load_device)


# Around the files


def test_the_json_schema_names_every_key_and_no_other():
    space, profile = json_schema("space"), json_schema("device")
    assert set(space["properties"]) == {"schema", "name", "activations", "rules"}
    assert space["additionalProperties"] is False
    rule = space["$defs"]["RuleFile"]["properties"]
    assert set(rule) == {"match", "op", "sparsity", "granularity", "bits", "clusters"}
    assert rule["bits"]["items"]["enum"] == list(records.BITS)
    assert {"runtime", "host", "kernels", "power_w", "latency_model"} <= set(profile["properties"])
    with pytest.raises(AutocompressError, match="did you mean 'space'"):
        json_schema("spaces")


def test_files_next_to_the_package_come_first(tmp_path, monkeypatch):
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


def test_importing_specs_loads_neither_pydantic_nor_yaml():
    code = "import sys, autocompress.specs; print({'pydantic', 'yaml', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
