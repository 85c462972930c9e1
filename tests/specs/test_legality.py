"""What a space means for a layer, and what of it a device can run: against slow, obvious references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import AutocompressError
from autocompress.records.configuration import ACTIVATIONS, BITS, LayerChoice
from autocompress.records.kernels import Kernel, Kernels, kernel_of
from autocompress.specs import (
    DeviceProfile,
    Rule,
    Runtime,
    SearchSpace,
    allowed_activations,
    allowed_choices,
    container_bits,
    is_unpacked,
    left_out_line,
    load_device,
    load_space,
    offered_kernels,
    space_names,
)

LAYER: dict[str, Any] = {"name": "conv_2d_0", "tensor_name": "stem/Conv2D", "op": "CONV_2D"}
HEAD = "schema: 1\nname: mine\n"


def space_of(folder: Path, text: str) -> SearchSpace:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_space(path)


# What a space means


def test_the_default_space_is_that_of_the_design() -> None:
    space = load_space("default")
    assert space.activations == ("float32", "int8", "weight_only")
    convolution = space.choices(**LAYER)
    # per sparsity: 32 bits 1, then 8, 6, 5, 4, 3 bits with the clusters that bind: 5 + 4 + 3 + 2 + 1
    assert len(convolution) == 6 * (1 + 5 + 4 + 3 + 2 + 1)
    assert convolution[0] == LayerChoice()
    depthwise = space.choices(name="depthwise_conv_2d_0", tensor_name="x", op="DEPTHWISE_CONV_2D")
    assert {(choice.sparsity, choice.bits) for choice in depthwise} == {(0.0, 32), (0.0, 8)}


def test_every_shipped_space_loads_under_its_own_name() -> None:
    assert {"default", "quick", "weights-only", "int16"} <= set(space_names())
    for name in space_names():
        assert load_space(name).name == name
    assert load_space("weights-only").activations == ("float32",)
    assert "int16" in load_space("int16").activations


def test_a_layer_that_no_rule_names_stays_float(tmp_path: Path) -> None:
    space = space_of(tmp_path, f"{HEAD}rules: [{{match: conv_2d_1, bits: [8]}}]")
    assert space.choices(**LAYER) == (LayerChoice(),)
    assert not space.names_layer(**LAYER)
    assert space.names_layer(name="conv_2d_1", tensor_name="", op="CONV_2D")


def test_a_rule_names_layers_by_whole_name_tensor_and_op(tmp_path: Path) -> None:
    text = HEAD + "rules: [{match: 'stem/.*|conv_2d', op: CONV_2D, bits: [8]}]"
    space = space_of(tmp_path, text)
    assert space.names_layer(**LAYER)
    assert not space.names_layer(**LAYER | {"op": "FULLY_CONNECTED"})
    assert not space.names_layer(**LAYER | {"tensor_name": "x"})  # conv_2d is not the whole of conv_2d_0


def test_one_and_1_0_are_the_same_and_null_is_none(tmp_path: Path) -> None:
    text = HEAD + "rules: [{op: CONV_2D, sparsity: [0, 0.0, -0.0], bits: [8], clusters: [none, null, ~]}]"
    (choice,) = space_of(tmp_path, text).choices(**LAYER)
    assert choice.to_json() == LayerChoice(bits=8).to_json()


values = {
    "sparsity": st.sampled_from([0.0, 0.25, 0.5]),
    "bits": st.sampled_from(BITS),
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
    activations=st.lists(st.sampled_from(ACTIVATIONS), min_size=1, unique=True).map(tuple),
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
    merged: dict[str, tuple[Any, ...]] = {}
    for key, default in (("sparsity", 0.0), ("bits", 32), ("clusters", None)):
        merged[key] = (default,)
        for rule in space.rules:
            matches = not rule.match or re.fullmatch(rule.match, name) or re.fullmatch(rule.match, tensor_name)
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
def test_rules_merge_per_key_and_later_ones_win(space: SearchSpace, layer: dict[str, Any]) -> None:
    choices = space.choices(**layer)
    assert list(choices) == slow_choices(space, **layer)
    assert all(choice == choice.normalised() for choice in choices)
    assert len(set(choices)) == len(choices)


# What a device can run

kernel_tables = st.dictionaries(
    st.sampled_from(["CONV_2D", "FULLY_CONNECTED"]),
    st.lists(
        st.tuples(st.sampled_from([8, 4, 2]), st.sampled_from(ACTIVATIONS))
        | st.sampled_from([(32, "float32"), (16, "float32")]),
        max_size=6,
    ).map(tuple),
)


def device(kernels: Mapping[str, tuple[Kernel, ...]]) -> DeviceProfile:
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


def slow_kernel(kernels: Kernels, op: str, bits: int, activations: str) -> tuple[int, str] | None:
    """Tries every container from the smallest up, first as the activations say, then unpacked."""
    for kind in (activations, "weight_only"):
        for container in (4, 8, 16, 32):
            if op not in kernels:
                right, kind = container == bits == 32, "float32"
            elif bits > 8:
                right, kind = container == bits and (container, "float32") in kernels[op], "float32"
            else:
                right = bits <= container <= 8 and (container, kind) in kernels[op]
            if right:
                return container, kind
    return None


@settings(deadline=None)
@given(
    kernel_tables,
    st.sampled_from(["CONV_2D", "FULLY_CONNECTED", "CONV_3D"]),
    st.sampled_from(BITS),
    st.sampled_from(ACTIVATIONS),
)
def test_weights_go_into_the_smallest_container_that_runs(
    kernels: Kernels, op: str, bits: int, activations: str
) -> None:
    kernel = slow_kernel(kernels, op, bits, activations)
    assert kernel_of(kernels, op, bits, activations) == kernel
    assert container_bits(kernels, op, bits, activations) == (kernel and kernel[0])
    integer_elsewhere = kernel is not None and bits <= 8 and kernel[1] != activations
    assert is_unpacked(kernels, op, bits, activations) == integer_elsewhere


@settings(deadline=None)
@given(spaces, kernel_tables, layers)
def test_only_what_the_device_runs_under_all_activations_is_offered(
    space: SearchSpace, kernels: Mapping[str, tuple[Kernel, ...]], layer: dict[str, Any]
) -> None:
    profile = device(kernels)
    integer = {kind for pairs in kernels.values() for bits, kind in pairs if bits <= 8}
    if integer and not integer & set(space.activations):
        with pytest.raises(AutocompressError, match="add one of these"):
            allowed_choices(space, profile, **layer)
        return
    activations = allowed_activations(space, profile)
    expected = tuple(kind for kind in space.activations if kind in integer) if integer else ("float32",)
    assert activations == expected
    offered = space.choices(**layer)
    runnable = [
        choice
        for choice in offered
        if all(container_bits(kernels, layer["op"], choice.bits, kind) for kind in activations)
    ]
    if not runnable and (32, "float32") not in kernels.get(layer["op"], [(32, "float32")]):
        with pytest.raises(AutocompressError, match=r"add \[32, float32\]"):
            allowed_choices(space, profile, **layer)
        return
    allowed = allowed_choices(space, profile, **layer)
    if runnable:
        assert list(allowed) == runnable
    else:
        assert {choice.bits for choice in allowed} == {32}
        assert {choice.sparsity for choice in allowed} == {choice.sparsity for choice in offered}
    assert len(set(allowed)) == len(allowed) > 0


def test_three_bits_are_stored_in_the_next_container() -> None:
    kernels = {"CONV_2D": [(32, "float32"), (8, "float32"), (4, "float32"), (8, "int8")]}
    assert container_bits(kernels, "CONV_2D", 3, "float32") == 4
    assert container_bits(kernels, "CONV_2D", 3, "int8") == 8
    assert container_bits(kernels, "CONV_2D", 5, "float32") == 8
    assert container_bits(kernels, "CONV_2D", 8, "int16") is None
    assert container_bits(kernels, "CONV_2D", 16, "float32") is None


def test_a_layer_without_a_kernel_under_the_activations_is_unpacked_when_it_is_loaded() -> None:
    kernels = {"CONV_2D": [(32, "float32"), (8, "float32"), (4, "weight_only"), (8, "weight_only")]}
    assert kernel_of(kernels, "CONV_2D", 3, "float32") == (8, "float32")
    assert kernel_of(kernels, "CONV_2D", 3, "int8") == (4, "weight_only")
    assert kernel_of(kernels, "CONV_2D", 8, "int8") == (8, "weight_only")
    assert kernel_of(kernels, "CONV_2D", 16, "int8") is None


def test_a_2_bit_container_is_never_used() -> None:
    kernels = {"CONV_2D": [(2, "float32"), (8, "float32")]}
    assert kernel_of(kernels, "CONV_2D", 2, "float32") == (8, "float32")


def test_a_model_of_published_points_has_no_price_for_what_leaves_xnnpack() -> None:
    rpi4 = load_device("rpi4")
    assert (8, "float32") in rpi4.kernels["DEPTHWISE_CONV_2D"]
    assert offered_kernels(rpi4, modelled=False) == rpi4.kernels
    offered = offered_kernels(rpi4, modelled=True)
    assert (8, "float32") not in offered["DEPTHWISE_CONV_2D"]
    assert {(8, "float32"), (8, "int8")} <= set(offered["CONV_2D"])
    assert {(8, "int8"), (8, "weight_only")} <= set(offered["DEPTHWISE_CONV_2D"])
    said = left_out_line(rpi4, frozenset({"DEPTHWISE_CONV_2D", "CONV_2D"}), ("float32", "int8"))
    assert said is not None
    assert said.startswith("8-bit DEPTHWISE_CONV_2D with float (dynamic range) activations: not taken by XNNPACK")
    assert left_out_line(rpi4, frozenset({"CONV_2D"}), ("float32", "int8")) is None
    own = replace(rpi4, not_delegated={"CONV_2D": ((8, "int8"),)})
    assert (8, "int8") not in offered_kernels(own, modelled=True)["CONV_2D"]
    assert (8, "float32") in offered_kernels(own, modelled=True)["DEPTHWISE_CONV_2D"]


def test_8_bits_stay_on_offer_for_a_depthwise_layer_that_dynamic_range_leaves() -> None:
    space, rpi4 = load_space("default"), load_device("rpi4")
    layer: dict[str, Any] = {"name": "depthwise_conv_2d_0", "tensor_name": "x", "op": "DEPTHWISE_CONV_2D"}
    assert {choice.bits for choice in allowed_choices(space, rpi4, **layer, modelled=True)} == {32, 8}


def test_a_modelled_runtime_that_delegates_float_alone_unpacks_all_weights() -> None:
    profile = replace(load_device("local-tflite-runtime"), host=None, latency_model=load_device("rpi4").latency_model)
    assert allowed_activations(load_space("default"), profile, modelled=True) == ("float32",)
    offered = offered_kernels(profile, modelled=True)
    assert kernel_of(offered, "CONV_2D", 8, "float32") == (8, "weight_only")


def test_modelled_latency_drops_activations_without_coefficients() -> None:
    space, rpi4 = load_space("int16"), load_device("rpi4")
    assert allowed_activations(space, rpi4) == ("float32", "int8", "int16")
    assert allowed_activations(space, rpi4, modelled=True) == ("float32", "int8")
    only = SearchSpace(name="only", activations=("int16",), rules=space.rules)
    with pytest.raises(AutocompressError, match="'only' offers activations int16 only"):
        allowed_activations(only, rpi4, modelled=True)


def test_weight_only_is_left_out_where_the_model_cannot_tell_it_from_dynamic_range() -> None:
    space, rpi4 = load_space("default"), load_device("rpi4")
    assert allowed_activations(space, rpi4) == ("float32", "int8", "weight_only")
    assert allowed_activations(space, rpi4, modelled=True) == ("float32", "int8")


def test_an_op_that_the_device_lacks_stays_float() -> None:
    profile = device({"CONV_2D": ((32, "float32"), (8, "float32"))})
    space = load_space("quick")
    assert allowed_activations(space, profile) == ("float32",)
    dense = allowed_choices(space, profile, name="fully_connected_0", tensor_name="x", op="FULLY_CONNECTED")
    assert dense == (LayerChoice(), LayerChoice(sparsity=0.5))
