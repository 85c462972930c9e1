"""Why a layer of the recommended file is as it is: what it has, what the space offered beside that, what each choice
would save and cost. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autocompress.errors import AutocompressError, unknown_name
from autocompress.records.configuration import LayerChoice
from autocompress.records.front import evaluated, front_of
from autocompress.records.kernels import BUILT_IN
from autocompress.records.study import Importance, StudyRecord
from autocompress.report.units import score

_SHOWN = 12  # alternatives, those that save most first
_PRODUCT = re.compile("conv|dense|matmul|linear")
_NOTHING = "nothing that the space offers here is smaller"


def explain_lines(record: StudyRecord, name: str) -> list[str]:
    """The layer called `name`, ours or the user's own, in the knee of the study's front. AutocompressError for a layer
    that is not there, and where the front is empty."""
    layer = layer_of(record, name)
    knee = front_of(record).pick("knee")
    configuration = evaluated(knee).configuration
    choice = configuration.layers[layer]
    others = sorted((row for row in record.alternatives if row.layer == layer), key=lambda row: -row.saves_bytes)
    place = (record.runs_where(configuration) or {}).get(layer)
    runs = "" if place is None else f", run by {place}"
    return [
        f"{called(record, layer)} in trial {knee.number} (knee): {_words(choice)}, activations "
        f"{configuration.activations}{runs}",
        *(_row(record, row, "has") for row in record.importance if row.layer == layer and row.used),
        *(_row(record, row, "offered") for row in others[:_SHOWN]),
        *([f"and {len(others) - _SHOWN} choices that save less"] if len(others) > _SHOWN else []),
        f"why: {'; '.join(_reasons(record, layer, choice, others, place))}",
    ]


def layer_of(record: StudyRecord, name: str) -> str:
    """Our name of the layer called `name`, ours or that of its tensor in the user's network."""
    if name in record.baseline.configuration.layers:
        return name
    found = [layer for layer, tensor in record.layer_names.items() if name in _own_names(tensor)]
    if len(found) == 1:
        return found[0]
    if found:
        raise AutocompressError(f"'{name}' names several layers; use one of {', '.join(found)}")
    own = (short for tensor in record.layer_names.values() for short in _own_names(tensor))
    raise unknown_name("layer", name, (*record.baseline.configuration.layers, *own))


def called(record: StudyRecord, layer: str) -> str:
    """A layer by our name with the user's own beside it, where that is known."""
    tensor = record.layer_names.get(layer)
    if not tensor:
        return layer
    # A converter joins the names of all that it fused; the layer's own is that of its product.
    pieces = tensor.split(";")
    return f"{layer} ({next((piece for piece in pieces if _PRODUCT.search(piece.lower())), pieces[0])})"


def _own_names(tensor: str) -> tuple[str, ...]:
    """What a user may call the layer of a tensor: the tensor's name, and each part of it, as Keras puts a layer's."""
    return (tensor, *dict.fromkeys(part for part in tensor.replace(";", "/").split("/") if part))


def _words(choice: LayerChoice) -> str:
    parts = [f"{choice.bits} bits"]
    parts += [f"{100 * choice.sparsity:g} % zeros"] if choice.sparsity else []
    parts += [f"{choice.clusters} clusters"] if choice.clusters else []
    return " ".join(parts)


def _row(record: StudyRecord, row: Importance, word: str) -> str:
    value = {
        "sparsity": f"{100 * row.value:g} % zeros",
        "bits": f"{row.value:g} bits",
        "clusters": f"{row.value:g} clusters" if row.value else "all levels",
        "channels": f"{row.value:g} of {row.of} channels",
    }[row.technique]
    latency = f", {1000 * row.saves_latency_ms:+.1f} µs" if row.saves_latency_ms else ""
    tried = f", in {row.trials} trials" if row.trials is not None else ""
    costs = score(row.costs, record.metric_scale, "+")
    return (
        f"  {word:<8} {value}: saves {row.saves_bytes:,.0f} bytes{latency}, costs {costs} {record.metric_name}{tried}"
    )


def _reasons(
    record: StudyRecord, layer: str, choice: LayerChoice, others: Sequence[Importance], place: str | None
) -> list[str]:
    found = [f"all channels stay: {record.whole_channels[layer]}"] if layer in record.whole_channels else []
    op = layer.rsplit("_", 1)[0].upper()
    if record.left_out is not None and f" {op} " in f" {record.left_out} ":
        found.append(record.left_out)
    if not choice.is_integer and record.kernels is not None and all(b > 8 for b, _ in record.kernels.get(op, ())):
        found.append(f"'{record.device}' has no integer kernel for {op}")
    if place == BUILT_IN:
        found.append("its kernel is one that the delegate does not take")
    smaller = [row for row in others if row.saves_bytes > 0]
    if smaller:
        found.append(_sensitive(record, min(smaller, key=_rate)))
    elif others:
        found.append(_NOTHING)
    elif not record.alternatives:
        found.append(
            "what else the space offered is not stored (another sampler than guided, or an older version); search on"
        )
    else:
        found.append("the space offers this layer nothing else: a rule of the space, or no kernel for it")
    return found


def _rate(row: Importance) -> float:
    return row.costs / row.saves_bytes


def _sensitive(record: StudyRecord, row: Importance) -> str:
    """What is said of the smaller choice that costs least by byte, beside the dearest that the knee has elsewhere."""
    said = f"of what is smaller the cheapest by byte is {_row(record, row, '').strip()}"
    taken = [_rate(each) for each in record.importance if each.used and each.saves_bytes > 0]
    if not taken or row.costs <= 0:
        return f"{said}: within what the model leaves open, so the search may still take it"
    if _rate(row) > max(taken):
        return f"{said}: sensitive, dearer by byte than anything that the knee does elsewhere"
    return f"{said}: no dearer by byte than what the knee does elsewhere, so the search may still take it"
