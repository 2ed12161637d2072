#!/usr/bin/env bash
# Sets up .venv and runs the main job, the tests, or any command in that environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'EOF'
usage: ./run.sh [COMMAND]

  (none)      simulate a small hospital, prepare shards from its raw tables and ECGs, train
              every stage, restore the best checkpoint, evaluate, and write
              runs/first/eval/report.html: five to eight minutes on two cores. Run again, it
              continues from what exists.
  smoke       the same at its smallest: does everything run?
  test [...]  the whole test suite; further arguments go to pytest, as -k NAME or PATH
  check       ruff and pyright
  docs        the documentation as a site: docs/_build/index.html
  setup       only make .venv; `setup beam` makes .venv-beam (docs/beam.md)
  exec CMD... any command inside the environment, for example
              ./run.sh exec python -m medm2t_jax.main --config=configs/mortality.py:small
  --help      this text

PYTHON names the interpreter to make .venv with (3.11 to 3.13; default: python3).
EOF
}

# Makes or updates an environment: folder, requirement, its constraints.
install() {
  local python=${PYTHON:-python3} folder=$1 requirement=$2 constraints=$3 stamp wanted
  stamp=$folder/installed-$requirement
  wanted=$(cat setup.cfg "$constraints" | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
      echo "error: $("$python" --version 2>&1) is not supported: set PYTHON to 3.11, 3.12 or 3.13" >&2
      exit 1
    }
    echo "setting up $folder (once, a few minutes)" >&2
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
      --constraint "$constraints" --editable "$requirement" >&2
    echo "$wanted" > "$stamp"
  fi
}

# .venv; `setup '.[dev]'` also installs what tests and checks need.
setup() {
  install .venv "${1:-.}" constraints.txt
  # shellcheck disable=SC1091
  source .venv/bin/activate
  unset PYTHONDONTWRITEBYTECODE  # every process, test and worker would compile all sources
  export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
  export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}
  # glibc keeps freed memory: otherwise every step maps its buffer anew (docs/performance.md).
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.mmap_threshold=8000000000:glibc.malloc.trim_threshold=16000000000}
}

# For jobs of minutes: programs compile in three quarters of the time, and steps take up to
# a seventh longer (docs/performance.md).
quickly() {
  export XLA_FLAGS="${XLA_FLAGS:---xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false}"
}

case "${1:-}" in
  '')
    setup
    quickly
    echo 'the first job: five to eight minutes on two cores, the second time seconds' >&2
    python -m medm2t_jax.main --config=configs/first.py
    ;;
  smoke) setup; quickly; python -m medm2t_jax.main --config=configs/cvd.py:smoke ;;
  # A worker per core and one more, for some tests only wait; a file's tests stay together,
  # for they share fixtures. Chosen tests start at once, in one process.
  test)
    shift
    setup '.[dev]'
    workers=$(python -c 'from data_pipeline.processors import available; print(available() + 1)')
    for argument in "$@"; do
      case $argument in -k* | tests* | *.py*) workers=0 ;; esac
    done
    python -m pytest --numprocesses="$workers" --dist=loadfile --no-loadscope-reorder "$@"
    ;;
  check) setup '.[dev]'; ruff format --check .; ruff check .; pyright ;;
  docs)
    setup '.[dev]'
    sphinx-build --fresh-env --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build
    echo "$PWD/docs/_build/index.html"
    ;;
  setup)
    if [ "${2:-}" = beam ]; then
      install .venv-beam '.[beam]' constraints-beam.txt
    else
      setup
    fi
    ;;
  exec) shift; setup; exec "$@" ;;
  -h | --help | help) usage ;;
  *) echo "error: unknown command '$1'" >&2; usage >&2; exit 2 ;;
esac
