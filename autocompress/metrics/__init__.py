"""The metrics of a task, as functions of the exported file's outputs: the registry is `METRICS`."""

from autocompress.metrics.metric import Metric, over_outputs
from autocompress.metrics.reading import Reading, anomaly_scores, predicted_classes
from autocompress.metrics.registry import METRICS, get_metric, is_built_in, register_metric

__all__ = [
    "METRICS",
    "Metric",
    "Reading",
    "anomaly_scores",
    "get_metric",
    "is_built_in",
    "over_outputs",
    "predicted_classes",
    "register_metric",
]
