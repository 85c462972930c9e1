"""A made-up network whose sensitivity, sizes and latencies are known, and samplers and studies on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from autocompress.compression.tables import LayerTable, Tables
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.hypervolume import Reference
from autocompress.records.measurement import Measurement
from autocompress.records.study import Constraint, Evaluation
from autocompress.search.sampler.container_costs import Cost, pattern_cost
from autocompress.search.sampler.encoding import EncodedSpace
from autocompress.search.sampler.guided import GuidedSampler
from autocompress.search.sampler.stock import parameters, suggest
from tests.builders.arrays import Array
from tests.builders.optional import present

BASE_ACCURACY, BASE_MS, INT8_BYTES = 0.93, 2.0, 40_000


def rows_of(bits: Sequence[int], sparsities: Sequence[float]) -> tuple[LayerChoice, ...]:
    return tuple(LayerChoice(bits=b, sparsity=s) for b in bits for s in sparsities)


@dataclass(frozen=True, kw_only=True)
class World:
    """A made-up network: the encoded space that the sampler is told, and what evaluating really gives."""

    encoded_space: EncodedSpace
    truth: Array  # (L,): by what each layer's sensitivity differs from its table

    def evaluation(self, configuration: Configuration) -> tuple[Evaluation, float]:
        land = self.encoded_space
        kind = land.activations.index(configuration.activations)
        at = [row.index(configuration.layers[name]) for name, row in land.choices.items()]
        x = np.array([[kind, *at]])
        sensitivity = float((land.gather(np.exp(land.seen.log_sensitivity), x) * self.truth).sum()) + (1e-4, 5e-3)[kind]
        size = float(land.gather(land.bytes, x).sum()) + 2000
        latency = BASE_MS * float(land.latency.base[kind] + land.gather_kind(land.latency.extra, x).sum())
        accuracy = BASE_ACCURACY - min(0.4 * sensitivity**0.9, 0.8)
        measurement = Measurement(latency_ms=latency, latency_source="modelled", peak_memory_bytes=None)
        found = Evaluation(
            configuration=configuration,
            accuracy=accuracy,
            accuracy_ci=(0.0, 1.0),
            accuracy_delta_ci=(accuracy - BASE_ACCURACY - 0.002, accuracy - BASE_ACCURACY + 0.002),
            measurement=measurement,
            file_bytes=round(4 * size),
            download_bytes=round(size),
            sha256="0" * 64,
            artifact="",
        )
        return found, sensitivity


def world(layers: int = 5, bits: Sequence[int] = (32, 8, 4, 3), sparsities: Sequence[float] = (0.0, 0.5, 0.8)) -> World:
    rng = np.random.default_rng(7)
    row = rows_of(bits, sparsities)
    choices = {f"conv_2d_{n}": row for n in range(layers)}
    weights = np.geomspace(500, 20_000, layers)
    error = np.array([(2.0 ** (-2 * min(c.bits, 12)) * 4 + 0.3 * c.sparsity**4) * (not c.is_baseline) for c in row])
    share = np.array([c.bits / 8 * (1 - 0.9 * c.sparsity) for c in row])
    tables = tuple(
        LayerTable(
            name=name,
            choices=row,
            error=error,
            bytes=weights[n] * share,
            sensitivity=error * 10 ** rng.uniform(-1, 1),
        )
        for n, name in enumerate(choices)
    )
    container = np.array([[[32 if not c.is_integer else 8 for c in row]] * layers] * 2)

    def latency(kind: str, pattern: Array) -> float:
        return (0.98 if kind == "float32" else 0.5) + 0.03 * float((pattern == 32).sum())

    cost: Cost = pattern_cost(("float32", "int8"), container, weights / weights.sum(), latency, 0.1)
    land = EncodedSpace(
        activations=("float32", "int8"),
        choices=choices,
        tables=Tables(layers=tables, built_s=0.0),
        container=container,
        latency=cost,
        file=cost,
        around=np.zeros(2),
    )
    return World(encoded_space=land, truth=10 ** rng.uniform(-1.2, 0.2, layers))


def reference(where: World) -> Reference:
    floats = {name: LayerChoice() for name in where.encoded_space.choices}
    measurement = Measurement(latency_ms=BASE_MS, latency_source="modelled")
    base = Evaluation(
        configuration=Configuration(layers=floats),
        accuracy=BASE_ACCURACY,
        accuracy_ci=(0, 1),
        accuracy_delta_ci=None,
        measurement=measurement,
        file_bytes=4 * INT8_BYTES,
        download_bytes=4 * INT8_BYTES,
        sha256="1" * 64,
        artifact="",
    )
    return Reference(baseline=base, int8_download_bytes=INT8_BYTES, higher_is_better=True)


def guided(
    where: World,
    seed: int = 0,
    constraints: Sequence[Constraint] = (),
    objectives: Any = None,
    uniform_baselines: Sequence[Configuration] = (),
) -> GuidedSampler:
    land = where.encoded_space
    return GuidedSampler(
        seed=seed,
        encoded_space=lambda: land,
        reference=lambda: reference(where),
        objectives=objectives or ("metric", "latency", "size"),
        size="download",
        constraints=lambda: constraints,
        uniform_baselines=[
            parameters(uniform_baseline, land.activations, land.choices) for uniform_baseline in uniform_baselines
        ],
    )


def new_study(sampler: BaseSampler, storage: Any = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="s",
        sampler=sampler,
        storage=storage,
        load_if_exists=True,
        directions=["maximize", "minimize", "minimize"],
    )


def objective(where: World, broken: Callable[[Configuration], bool] = lambda _: False) -> Any:
    def evaluate(trial: optuna.Trial) -> tuple[float, ...]:
        configuration = suggest(trial, where.encoded_space.activations, where.encoded_space.choices).normalised()
        if broken(configuration):
            raise ValueError("cannot be built")
        evaluation, sensitivity = where.evaluation(configuration)
        trial.set_user_attr("divergence", sensitivity)
        trial.set_user_attr("evaluation", evaluation.to_dict())
        return evaluation.accuracy, present(evaluation.measurement.latency_ms), evaluation.download_bytes

    return evaluate
