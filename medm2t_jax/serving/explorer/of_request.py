"""The form of the service, and notes on a patient from a request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.report.text import source_name, task_name
from medm2t_jax.serving.explorer import page


def form_page(model: TrainedModel, example: Mapping[str, Any]) -> str:
  """HTML of the form, filled with a request that the model can answer."""
  schema, target = model.schema, model.schema.target
  title = task_name(schema.task, target.description)
  predicted = target.description or title
  return page.form(
    title,
    f'{predicted}, {target.horizon}' if target.horizon else predicted,
    model.version,
    source_name(schema.source),
    json.dumps(example, indent=1),
  )


def notes_of_request(coverage: Mapping[str, Any]) -> list[str]:
  """How much of the request was read, without any of its values.

  Args:
    coverage: from `PatientReader.read`.
  """
  reasons: Counter[str] = Counter()
  for each in coverage['entries']:
    reasons[each['reason']] += each['events']
  told = [f'{reason} ({count})' for reason, count in sorted(reasons.items())]
  read = f'{coverage["used"]} of the {coverage["events"]} events of the request are used.'
  return [read, f'{"; ".join(told)}.'] if told else [read]
