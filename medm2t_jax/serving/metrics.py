"""The counters of `GET /metrics`, in the text format of Prometheus; no patient data."""

from __future__ import annotations

import prometheus_client as prometheus

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
  """Counters of one service, in its own registry.

  Attributes:
    requests: by endpoint and status.
    seconds: by endpoint.
    refused: by reason.
    batch_rows: patients per predicted batch.
    waiting: number of waiting patients.
    patients: number of predicted patients.
  """

  def __init__(self):
    self._registry = prometheus.CollectorRegistry()
    count = lambda name, text, *labels: prometheus.Counter(
      f'medm2t_{name}', text, labels, registry=self._registry
    )
    self.requests = count('requests', 'Requests.', 'endpoint', 'status')
    self.refused = count('refused', 'Refused requests.', 'reason')
    self.patients = count('patients', 'Predicted patients.')
    self.seconds = prometheus.Histogram(
      'medm2t_request_seconds', 'Seconds per request, its body included.', ('endpoint',),
      buckets=_SECONDS, registry=self._registry,
    )  # fmt: skip
    self.batch_rows = prometheus.Histogram(
      'medm2t_batch_rows', 'Patients per batch.', buckets=_ROWS, registry=self._registry
    )
    self.waiting = prometheus.Gauge(
      'medm2t_waiting', 'Patients waiting for their prediction.', registry=self._registry
    )

  def text(self) -> bytes:
    """All counters as text."""
    return prometheus.generate_latest(self._registry)


CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
