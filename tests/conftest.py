"""Every test: 8 simulated CPU devices, quick compilation, one thread, strict promotion."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from tests.support.xla_flags import xla_flags

# Before jax is imported anywhere: it reads them at import.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {xla_flags(8)}'.strip()
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Nothing is promoted that does not say so, here and in the processes that tests start.
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
os.environ['JAX_NUMPY_DTYPE_PROMOTION'] = 'strict'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# TensorFlow then does not import Keras, which nothing here uses: a third of its start.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# There is a worker per core: more threads of scikit-learn and PyTorch wait for each other,
# and a thread that waits keeps its core busy.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(Path(__file__).resolve().parents[1] / '.cache/jax')
)

import pytest
from absl import flags

from tests.support import array_types

array_types.check()

from medm2t_jax.runs.hosts import compilation_cache  # noqa: E402 (after the hook)

compilation_cache.use()


def pytest_configure(config):
  """Marks absl flags as parsed."""
  del config
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


def pytest_collection_finish(session):
  """Python's collector leaves alone what is imported, and looks less often.

  Tracing allocates much; to look through all objects of JAX and TensorFlow at it again and
  again took a sixth of the suite's time.
  """
  del session
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 20, 100)


def pytest_unconfigure(config):
  """What was left alone is collected at the end."""
  del config
  gc.unfreeze()


# Files that take longest: started first, so that no worker is left alone with one.
_LONGEST = (
  'trained_model_test',
  'distributed_test',
  'tasks_test',
  'medm2t_test',
  'ablate_test',
  'train_test',
  'toy_kind_test',
  'refit_test',
  'reports_test',
  'explorer_test',
  'targets_test',
  'models_test',
  'explain_test',
  'explainer_test',
  'baselines_test',
  'http_test',
  'docs_test',
  'mimic_iv_bad_input_test',
  'side_by_side_test',
  'simulated_outcomes_test',
  'prepare_test',
  'model_test',
  'report_test',
  'fhir_test',
  'mimic_iv_tasks_test',
  'preemption_test',
  'model_config_test',
  'stage_training_test',
  'notes_test',
  'steps_test',
  'pack_test',
  'simulated_test',
  'export_test',
  'serve_test',
  'shards_test',
  'on_device_test',
  'sweep_test',
  'physionet2012_test',
  'meds_demo_test',
  'program_test',
  'fuzz_test',
  'optimizer_test',
  'browser_test',
  'checkpoint_test',
  'augmentation_test',
  'meds_labels_test',
  'hospitals_test',
  'evaluation_test',
  'prepare_speed_test',
  'beam_test',
  'integrated_gradients_test',
  'main_test',
  'mimic_iv_demo_test',
  'rooms_test',
  'fitted_arrays_test',
  'event_statistics_test',
  'input_pipeline_test',
  'mimic_iv_extras_test',
  'mimic_iv_tasks_oracle_test',
  'baseline_sections_test',
  'data_test',
  'unlabelled_test',
  'verdicts_test',
  'meds_ecg_test',
  'forecast_test',
  'multimodal_fusion_test',
)


def pytest_collection_modifyitems(items):
  """The order in which `--dist=loadfile --no-loadscope-reorder` hands out files."""
  rank = {name: place for place, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """The small random data set: staging files in `raw`, prepared in `out`; read only."""
  from tests.support import staging_fixture

  path = tmp_path_factory.mktemp('data')
  staging_fixture.build_dataset(path)
  return path


@pytest.fixture(scope='session')
def dataset(folder):
  """The same, opened."""
  from data_pipeline.format.dataset import open_dataset

  return open_dataset(folder / 'out')


@pytest.fixture(scope='session')
def static_directory(tmp_path_factory):
  """A small simulated data set with the static modality alone, for whole runs."""
  from tests.support import training_process

  directory = tmp_path_factory.mktemp('hospital') / 'cvd'
  training_process.static_dataset(directory)
  return directory
