"""Counters for Prometheus, in a registry of their own: two servers in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edgekit_requests", "Requests by model and how they ended", ("model", "code"), registry=self.registry
        )
        self.residence = Histogram(
            "edgekit_residence_seconds", "From the last byte read to the answer", ("model",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.waited = Histogram(
            "edgekit_queue_seconds", "Wait for a worker", ("model",), buckets=_SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "edgekit_batch_samples", "Samples run together", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )  # fmt: skip
        self.queue = Gauge("edgekit_queue_length", "Requests that wait", ("model",), registry=self.registry)
        self._counts: dict[str, ModelMetrics] = {}

    def of(self, model: str) -> ModelMetrics:
        """The counters of one model; looked up by labels once, not with every request."""
        found = self._counts.get(model)
        if found is None:
            found = self._counts[model] = ModelMetrics(self, model)
        return found


class ModelMetrics:
    """What is counted of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._fine = metrics.requests.labels(model, "OK")
        self._residence = metrics.residence.labels(model)
        self._waited = metrics.waited.labels(model)
        self._batch = metrics.batch.labels(model)
        self._queue = metrics.queue.labels(model)

    def answered(self, residence_ms: float, queue_ms: float, batch: int, waiting: int) -> None:
        """One request that was answered.

        Args:
            residence_ms: From the last byte read to the answer.
            queue_ms: Of it, waiting for a worker.
            batch: Samples that ran with it, its own among them.
            waiting: Requests in the queue now.
        """
        self._fine.inc()
        self._residence.observe(residence_ms / 1e3)
        self._waited.observe(queue_ms / 1e3)
        self._batch.observe(batch)
        self._queue.set(waiting)
