"""Of a network as it was given what is meant: one signature, and the output that the metric judges."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autocompress.errors import AutocompressError, CandidateError
from autocompress.metrics import Metric, Reading
from autocompress.network.tflite.interpreter import Runner, TensorSpec
from autocompress.network.tflite.isolated import in_child
from autocompress.network.tflite.outputs import FIRST, Output, Signature
from autocompress.records.output import JudgedOutput
from autocompress.tasks.task import SignatureChoice


@dataclass(frozen=True, kw_only=True)
class ChosenNetwork:
    """The `original` without what is not meant, the normalised `network`, its `inputs`, the `signature` with what the
    metric judges, and notes for people."""

    original: bytes
    network: bytes
    inputs: tuple[TensorSpec, ...]
    signature: Signature
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What goes into a network and comes out of it, in the order of the file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def ports_of(model: bytes) -> Ports:
    """The inputs and outputs of a `.tflite`, which is opened in a child process. CandidateError where the runtime
    refuses it or is ended by it."""

    def opened() -> Ports:
        runner = Runner(model, 1)
        return Ports(inputs=runner.inputs, outputs=runner.outputs)

    return in_child(opened)


def network_of(original: bytes, name: str, metric: Metric, asked: SignatureChoice) -> ChosenNetwork:
    """What is `asked` of a float `.tflite`. AutocompressError, with the network's `name` in front, where it is no
    network to work with, or where it is not clear what is meant."""
    from autocompress.network.tflite.flatbuffer import normalise, read
    from autocompress.network.tflite.state import refuse_state

    try:
        original, other_keys = (original, ()) if asked.as_before else one_signature(original, asked.signature)
        refuse_state(read(original))
        network = normalise(original)
        ports = ports_of(network)
        signature = _first(ports) if asked.as_before else _signature(network, ports, metric, asked.output)
    except (AutocompressError, CandidateError) as fault:
        raise AutocompressError(f"{name}: {fault}") from fault
    signature = replace(signature, other_keys=other_keys)
    return ChosenNetwork(
        original=original, network=network, inputs=ports.inputs, signature=signature, notes=tuple(_notes(signature))
    )


def one_signature(model: bytes, asked: str | None) -> tuple[bytes, tuple[str, ...]]:
    """The network of the signature that is meant, and the keys of the others, which are left out."""
    from autocompress.network.tflite.signature import chosen_key, keys_of, only

    keys = keys_of(model)
    key = chosen_key(keys, asked)
    return model if key is None else only(model, key), tuple(other for other in keys if other != key)


def judged_signature(model: bytes, metric: Metric, output: str | None) -> Signature:
    """The signature of any `.tflite` of one signature, quantized or not, with what the metric judges.
    AutocompressError where that is not clear or samples depend on each other, CandidateError where the runtime refuses
    the file."""
    from autocompress.network.tflite.flatbuffer import read
    from autocompress.network.tflite.state import refuse_state

    refuse_state(read(model))
    return _signature(model, ports_of(model), metric, output)


def judged_output(signature: Signature, metric: Metric) -> JudgedOutput:
    """What the metric judges and how it reads that, for the record."""
    at = range(len(signature.outputs)) if signature.judged is None else [signature.judged]
    words, before = (
        [metric.words((1, *each.shape[1:]), Reading(kind=kind)) for each, kind in pairs]
        for pairs in (
            [(signature.outputs[n], signature.outputs[n].kind) for n in at],
            [(signature.outputs[n], None) for n in at],
        )
    )
    told = words[0] if len(set(words)) == 1 else "; ".join(words)
    return replace(signature.record(), read_as=told, reads_anew=words != before)


def _signature(network: bytes, ports: Ports, metric: Metric, output: str | None) -> Signature:
    from autocompress.network.tflite.signature import judging, signature_of

    found = signature_of(network, ports.inputs, ports.outputs)
    return judging(found, output, one=metric.needs_labels, metric=metric.name)


def _first(ports: Ports) -> Signature:
    first = ports.outputs[0]
    return replace(FIRST, outputs=(Output(name=first.name, position=0, shape=first.shape, dtype=first.dtype),))


def _notes(signature: Signature) -> list[str]:
    notes = []
    if signature.left_out:
        notes.append(f"not compared, as no row a sample or the same for all inputs: {', '.join(signature.left_out)}")
    if signature.other_keys:
        notes.append(
            f"signature {signature.key} is searched, files hold nothing else; left out: "
            + ", ".join(signature.other_keys)
        )
    return notes
