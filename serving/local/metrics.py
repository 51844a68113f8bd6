"""Prometheus metrics of the local server: counts, latencies and batch sizes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PREFIX = "keras_vae_serving"


class Metrics:
    """Counters of one server. Labels hold only names that are served, never a caller's text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}_requests",
            "Requests by status.",
            ["model", "transport", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            f"{_PREFIX}_request_seconds",
            "Time from the first byte of a request to the last byte of its answer.",
            ["model", "transport"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Histogram(
            f"{_PREFIX}_batch_rows",
            "Rows per batch.",
            ["model", "version", "signature"],
            buckets=_ROWS,
            registry=self.registry,
        )
        self.in_hand = Gauge(
            f"{_PREFIX}_requests_in_hand", "Requests not yet answered.", registry=self.registry
        )

    def request(self, model: str, transport: str, status: str, seconds: float) -> None:
        """Counts a request: its model (or ""), transport ("rest" or "grpc"), status and time."""
        self._requests.labels(model, transport, status).inc()
        self._latency.labels(model, transport).observe(seconds)

    def batch(self, model: str, version: int, signature: str, rows: int) -> None:
        """Counts a batch."""
        self._rows.labels(model, str(version), signature).observe(rows)

    def text(self) -> bytes:
        """Renders all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
