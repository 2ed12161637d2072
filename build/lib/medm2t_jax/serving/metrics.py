"""What `GET /metrics` counts, in the text format of Prometheus; nothing of patients."""

from __future__ import annotations

import prometheus_client as prometheus

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
  """Counters of one service, in a registry of their own.

  Attributes:
    requests: by endpoint and status.
    seconds: by endpoint.
    refused: by reason.
    batch_rows: patients of each batch that was predicted.
    waiting: patients who wait.
    patients: who were predicted.
  """

  def __init__(self):
    self._registry = prometheus.CollectorRegistry()
    count = lambda name, text, *labels: prometheus.Counter(
      f'medm2t_{name}', text, labels, registry=self._registry
    )
    self.requests = count('requests', 'Requests.', 'endpoint', 'status')
    self.refused = count('refused', 'Requests that were refused.', 'reason')
    self.patients = count('patients', 'Patients who were predicted.')
    self.seconds = prometheus.Histogram(
      'medm2t_request_seconds', 'Seconds of a request, its body included.', ('endpoint',),
      buckets=_SECONDS, registry=self._registry,
    )  # fmt: skip
    self.batch_rows = prometheus.Histogram(
      'medm2t_batch_rows', 'Patients of a batch.', buckets=_ROWS, registry=self._registry
    )
    self.waiting = prometheus.Gauge(
      'medm2t_waiting', 'Patients who wait for their prediction.', registry=self._registry
    )

  def text(self) -> bytes:
    """All of them."""
    return prometheus.generate_latest(self._registry)


CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
