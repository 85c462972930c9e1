"""Searches as tests ask for them: settings of any kind, sorted into specification, resources and budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from autocompress.latency.source import latency_on
from autocompress.records.study import StudyRecord
from autocompress.search.specification import Budget, Resources, Specification
from autocompress.search.study import Search


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a test searches."""

    specification: Specification
    resources: Resources
    budget: Budget

    def search(self, latency: Callable[..., Any], **options: Any) -> Search:
        """The search, not entered yet."""
        return Search(self.specification, self.resources, latency, budget=self.budget, **options)

    def run(self, on_trial: Callable[[StudyRecord], None] = lambda _: None) -> StudyRecord:
        """Search with the device's own latencies, to the end."""
        specification = self.specification
        with (
            latency_on(specification.profile) as latency,
            self.search(latency.bind(specification.task.original)) as search,
        ):
            return search.run(on_trial)


def asked_for(**settings: Any) -> Asked:
    """The search with these settings, each a field of one of the three."""

    def of(kind: Any) -> Any:
        return kind(**{f.name: settings.pop(f.name) for f in fields(kind) if f.name in settings})

    made = Asked(specification=of(Specification), resources=of(Resources), budget=of(Budget))
    assert not settings, f"no setting of a search: {', '.join(settings)}"
    return made
