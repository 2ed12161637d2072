"""The content of the explorer's page about one patient, as one JSON-able object.

Times are hours relative to the prediction time. Only observed values appear: none is
carried forward or imputed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.time_units import unit_of
from data_pipeline.reading.arranging import Example, arrange, bucket_of
from medm2t_jax import targets
from medm2t_jax.inference.attribution.explainer import Explained, Explainer
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.report.text import source_name, task_name
from medm2t_jax.serving.explorer import words
from medm2t_jax.serving.explorer.among_tests import among_tests
from medm2t_jax.serving.explorer.moments import BAND, RiskOverTime, RiskPrograms
from medm2t_jax.serving.explorer.observed import (
  Observed,
  Variable,
  observed,
  of_entries,
  row_arrays,
)

_SECONDS = 0.1  # length of a cell of the ECG's attribution
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Identity:
  """The identifiers on the page; none unless requested.

  Attributes:
    lines: for example ('Sample', '123').
  """

  lines: Sequence[tuple[str, str]] = ()


class StoryTeller:
  """Writes the stories of one model's patients; compiles programs at their first use."""

  def __init__(self, model: TrainedModel, explainer: Explainer):
    self._model, self._explainer = model, explainer
    self._risk = RiskPrograms(model)

  def tell(
    self, example: Example, identity: Identity = Identity(), notes: Sequence[str] = ()
  ) -> Json:
    """The story of one patient.

    Args:
      example: modality -> arrays of the model's variables, as a record stores them.
      identity: identifiers to show.
      notes: sentences that a reader must know about this data.
    """
    model, schema = self._model, self._model.schema
    risk = self._risk(example)
    batch = self._batch(example)
    (explained,) = self._explainer.explain(batch)
    attributions = {
      each.name: of_entries(
        each,
        row_arrays(schema, each, example),
        explained.arrays[each.name],
        explained.attributions[each.name],
      )
      for each in model.model_config.modalities
      if each.name in example
    }
    seen = observed(model, example, risk.hours, attributions)
    outputs = self._outputs(risk)
    begin = float(min([risk.hours[0], *(h for each in seen.variables for h in each.hours)]))
    unit = unit_of(-begin)
    without = self._explainer.without(batch)
    return {
      'title': task_name(schema.task, schema.target.description),
      'predicted': schema.target.description,
      'horizon': schema.target.horizon,
      'condition': schema.condition,
      'source': source_name(schema.source),
      'version': model.version,
      'numeric': schema.target.numeric,
      'identity': [list(line) for line in identity.lines],
      'axis': {'unit': unit.name, 'hours': unit.hours, 'begin': begin},
      'moments': [
        {'hours': hours, 'text': words.moment(hours, unit)} for hours in risk.hours.tolist()
      ],
      'outputs': outputs,
      'headline': self._headline(risk),
      'band': _band(risk),
      'variables': _variables(seen.variables),
      'constant': _constant(seen),
      'contributions': _contributions(explained, seen, risk.hours),
      'ecg': _ecg(seen),
      'without': self._without(without, outputs, seen, example),
      'notes': [*notes, *self._notes(example)],
    }

  def _batch(self, example: Example) -> Json:
    """A batch of one row with the example as the model reads it."""
    schema, batching = self._model.schema, self._model.batching
    bucket = bucket_of(schema, batching, example)
    return arrange(
      schema, batching, [example], bucket=bucket, rows=1, capacity=batching.max_recordings
    )

  def _shown(self) -> tuple[int, ...]:
    """Outputs that the page shows: of two classes only the second."""
    return targets.of(self._model.schema.target).scored or (0,)

  def _headline(self, risk: RiskOverTime) -> int:
    """Index, among the shown outputs, of the one that the page begins with."""
    favourite = targets.of(self._model.schema.target).favourite(risk.prediction[-1])
    return 0 if favourite is None else self._shown().index(favourite)

  def _outputs(self, risk: RiskOverTime) -> list[Json]:
    target = self._model.schema.target
    found = []
    for index in self._shown():
      of = lambda array, index=index: array if target.numeric else array[:, index]
      values, low, high = (of(each) for each in (risk.prediction, risk.low, risk.high))
      found.append(
        {
          'name': target.classes[index] if target.classes else target.description,
          'values': _floats(values),
          'low': _floats(low),
          'high': _floats(high),
          'texts': [words.value(each, target) for each in values.tolist()],
          'bands': [
            f'{words.value(a, target)} to {words.value(b, target)}'
            for a, b in zip(low.tolist(), high.tolist(), strict=True)
          ],
          'among_tests': among_tests(self._model, index, float(values[-1])),
        }
      )
    return found

  def _without(
    self,
    found: Mapping[str, np.ndarray],
    outputs: Sequence[Json],
    seen: Observed,
    example: Example,
  ) -> list[Json]:
    """Predictions without each modality that the patient has."""
    target = self._model.schema.target
    there = {each.modality for each in seen.variables} | {each[0] for each in seen.constant}
    there |= {name for name, (hours, _) in seen.entries.items() if len(hours)}
    result = []
    for name, prediction in found.items():
      if name in there:
        values = np.atleast_1d(prediction[0])
        shown = [float(values[index]) for index in self._shown()]
        texts = [words.value(each, target) for each in shown]
        result.append({'modality': name, 'values': shown, 'texts': texts})
    return result

  def _notes(self, example: Example) -> list[str]:
    schema = self._model.schema
    absent = [
      name
      for name, each in schema.modalities.items()
      if name not in example
      or (each.layout != 'fixed' and not len(next(iter(example[name].values()))))
    ]
    notes = []
    if absent:
      notes.append(f'No data for {", ".join(absent)}: predicted without.')
    if schema.observation_hours is not None:
      notes.append(
        f'The model reads the {schema.observation_hours:g} hours before a prediction. At '
        'an earlier moment only part of these hours has passed, so earlier predictions '
        'rest on less data than the model was trained on.'
      )
    notes.append('Columns without a time, such as age, count as known throughout.')
    return notes


def _band(risk: RiskOverTime) -> str:
  """A description of the band; '' if there is none."""
  if risk.members == 1:
    return ''
  return (
    f'The band holds the predictions of the middle {BAND[1] - BAND[0]:.0%} of the '
    f'{risk.members} ensemble members. A wide band means that members disagree. It is not '
    'a confidence interval: it does not show errors that all members share.'
  ).replace('%', f'{words.NARROW}%')


def _variables(variables: Sequence[Variable]) -> list[Json]:
  """Variables for the page, the largest contributions first."""
  weight = lambda each: -float(np.abs(each.attributions).sum())
  return [
    {
      'modality': each.modality,
      'name': each.item.name,
      'unit': each.item.unit,
      'low': each.item.low,
      'high': each.item.high,
      'categories': [c for c in each.item.categories if c in each.values],
      'hours': _floats(each.hours),
      'values': [v if isinstance(v, str) else float(f'{v:.5g}') for v in each.values],
      'attributions': _floats(each.attributions),
      'known': each.known,
    }
    for each in sorted(variables, key=weight)
  ]


def _constant(seen: Observed) -> list[Json]:
  """Variables without times; the name includes a category, for example 'Sex: F'."""
  return [
    {
      'modality': modality,
      'name': name,
      'value': None if value is None else float(f'{value:.5g}'),
      'unit': unit,
    }
    for modality, name, value, unit in seen.constant
  ]


def _contributions(explained: Explained, seen: Observed, moments: np.ndarray) -> Json:
  """Contributions by modality, by variable and by the moment when they became known."""
  by_modality: dict[str, float] = {}
  for each in explained.items:
    before = by_modality.get(each.modality, 0.0)
    by_modality[each.modality] = before + each.attribution
  by_moment: list[Json] = []
  for name, (hours, attribution) in seen.entries.items():
    place = np.searchsorted(moments, hours, side='left').clip(0, len(moments) - 1)
    total = np.bincount(place, attribution, minlength=len(moments))
    if len(hours):
      by_moment.append({'modality': name, 'values': _floats(total)})
  items = sorted(explained.items, key=lambda each: -abs(each.attribution))
  found = explained.completeness
  return {
    'explained': explained.explained,
    'output': found.output,
    'baseline': found.baseline,
    'residual': found.residual,
    'complete': found.holds,
    'by_modality': [
      {'name': name, 'attribution': value}
      for name, value in sorted(by_modality.items(), key=lambda each: -abs(each[1]))
    ],
    'by_variable': [
      {
        'modality': each.modality,
        'name': each.name,
        'unit': each.unit,
        'value': None if each.value is None else float(f'{each.value:.4g}'),
        'observed': each.observed,
        'attribution': each.attribution,
      }
      for each in items
    ],
    'by_moment': by_moment,
  }


def _ecg(seen: Observed) -> Json | None:
  """The most recent recording, in mV, with its attribution in cells of 0.1 s."""
  if (of := seen.recording) is None:
    return None
  width = round(_SECONDS * of.rate)
  starts = np.arange(0, len(of.attributions), width)
  cells = np.add.reduceat(np.asarray(of.attributions, np.float64), starts, axis=0)
  hours, known = seen.recordings
  return {
    'hours': of.hours,
    'all_hours': _floats(hours),
    'known': list(known),
    'rate': of.rate,
    'leads': list(of.leads),
    'signal': [np.round(lead, 3).tolist() for lead in np.asarray(of.signal, float).T],
    'cell_seconds': width / of.rate,
    'cells': [_floats(lead) for lead in cells.T],
    'total': float(np.asarray(of.attributions).sum(dtype=np.float64)),
    'findings': [list(each) for each in of.findings],
  }


def _floats(values: Any) -> list[float]:
  """Numbers with the digits that a page shows."""
  return [float(f'{each:.6g}') for each in np.asarray(values, np.float64).tolist()]
