"""The whole model as a function of one path: networks, simple models, blend, members.

The path of `integrated_gradients` changes everything that a prediction depends on together:

- the gates of a sample's values, from closed to open, in the network of every member;
- the scores of every simple model, in a straight line from their expectation over the
  training samples to those of the sample: the expected scores plus the sum of the
  attributions of the columns (`additive`).

The blend and the mean over members are differentiated too, so the attributions sum to the
output of the model itself. The attribution of a column is its attribution within its simple
model (for trees, TreeSHAP) times the mean slope of the output with respect to the scores on
the path. With one member and one class against the first, that slope is the weight of the
simple model in the blend: TreeSHAP values are added on log odds. With several members the
slope also contains the member's share of the mean probability, and with several classes
that of the class; the path then shares out the output as in Aumann-Shapley. The baseline is
the output at the start: closed gates for the networks (a sample observed equally often, and
unremarkable), the expectation for the simple models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medm2t_jax.inference.attribution.integrated_gradients import Nodes, Part, integrate
from medm2t_jax.models.blend.simple_models import of_scores
from medm2t_jax.models.blend.weighted_sum import OURS, summed
from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.gates import Gates, open_gates, with_gates
from medm2t_jax.models.link import Link, ensemble_mean, explained, normalized
from medm2t_jax.models.medm2t import MULTIMODAL, MedM2T

STAGE = MULTIMODAL

Scores = Mapping[str, Float[Array, 'b ...']]


class Blend(NamedTuple):
  """A member's blend.

  Attributes:
    weights: of the network and of the simple models, by name.
    prior: of the outputs, float32 (c).
    expected: name of a simple model -> its scores at the start of the path, float32 (c), or
      (l 2) for labels.
  """

  weights: Mapping[str, Any]
  prior: Any
  expected: Mapping[str, Any]


class Member(NamedTuple):
  """A trained network with its blend, if it has one.

  Attributes:
    variables: of the multimodal stage.
    blend: None if the network predicts alone.
  """

  variables: Mapping[str, Any]
  blend: Blend | None = None


class Path(NamedTuple):
  """The numbers that change along the path, or values per such number: its end, its slopes.

  Attributes:
    gates: modality -> gates, 1 at the end.
    scores: for each member, name of a simple model -> scores above the expected ones.
  """

  gates: Gates
  scores: tuple[Scores, ...]


def end_of(slopes: Path, scores: tuple[Scores, ...]) -> Path:
  """The end of the path of one row: 1 for all gates, and the scores."""
  return Path(jax.tree.map(lambda _: np.float32(1), slopes.gates), scores)


def explain_step(
  model: MedM2T,
) -> Callable[
  [
    Sequence[Member], Mapping[str, Any], Sequence[Scores], Any, Nodes,
  ],
  Part,
]:  # fmt: skip
  """Returns the compiled `(members, batch, scores, chosen, nodes) -> Part`.

  `batch` has no device axis, `chosen` is bool (b c); `scores` are those of the simple
  models above the expected ones, for each member. The explained quantity of a row is
  `link.explained` of the outputs of the members' mean prediction and of `chosen`. The
  slopes are a `Path`.

  Args:
    model: whose parameters are passed to the step; it runs in float32.
  """
  model, config = in_float32(model), model.config

  @jax.jit
  def step(
    members: Sequence[Member],
    batch: Mapping[str, Any],
    scores: Sequence[Scores],
    chosen: Bool[Array, 'b c'],
    nodes: Nodes,
  ) -> Part:
    def output(path: Path) -> Float[Array, ' b']:
      gated = with_gates(batch, path.gates)
      found = []
      for member, above in zip(members, path.scores, strict=True):
        predictions = model.apply(member.variables, gated, stage=STAGE, train=False)
        assert isinstance(predictions, Predictions)  # no collection is mutable here
        outputs = predictions.logits
        if member.blend is not None:
          outputs = _blended(member.blend, outputs, above, config.link)
        found.append(outputs)
      mean = found[0] if len(found) == 1 else ensemble_mean(jnp.stack(found), config.link)
      return explained(mean, chosen, config.link)

    shaped_like = {each.name: each.gates for each in config.modalities}
    end = Path(open_gates(batch, shaped_like), tuple(dict(each) for each in scores))
    return integrate(output, end, nodes)

  return step


def in_float32(model: MedM2T) -> MedM2T:
  """The model on one device, computing in float32 regardless of its training dtype."""
  return MedM2T(dataclasses.replace(model.config, dtype='float32'))


def _blended(
  member: Blend, logits: Float[Array, 'b c'], above: Scores, link: Link
) -> Float[Array, 'b c']:
  """Normalised outputs of a network in its blend."""
  said = {
    name: of_scores(expected[jnp.newaxis] + above[name])
    for name, expected in member.expected.items()
  }
  predictors = {OURS: normalized(logits, link), **said}
  # Does not use `blend`, whose maximum may lose the gradient when compiled.
  return normalized(summed(predictors, member.weights, member.prior), link)
