# ./just RECIPE works without just being installed; see docs/development.md.

set positional-arguments

export VNQUANT_VENV := env("VNQUANT_VENV", justfile_directory() / ".venv")
bin := VNQUANT_VENV / "bin"
python3 := env("VNQUANT_PYTHON", "python3")
shown := "FPT VCB HPG"

# List the recipes
default:
    @'{{ just_executable() }}' --list

# Make the virtual environment with everything pinned (seconds when nothing changed)
setup:
    @'{{ python3 }}' tools/environment.py

# Three shares for a year and a half can prove nothing and hold no spread book: the demo, which is to
# show a deployment, asks for less than the default gate.
demo_gate := "--no-significance --min-accuracy 0.5 --min-sharpe 0 --max-drawdown 0.3"

# Train 3 symbols on embedded prices, judge, deploy (with an easier gate), forecast
demo: setup
    '{{ bin }}/vnquant' train --workspace build/demo --symbols {{ shown }} --preset small --epochs 12 {{ demo_gate }}
    '{{ bin }}/vnquant' forecast --workspace build/demo --symbols {{ shown }}

# Everything that must hold: check, then the tests in two processes; words after it go to pytest
test *words: check
    @'{{ bin }}/python' -m pytest -n 2 "$@"

# Train on a target: just train cpu FPT VCB HPG (docs/targets.md)
train target *symbols: setup
    @shift; '{{ bin }}/vnquant' train --target '{{ target }}' --symbols "$@"

# Build a container image: cpu, cpu-pypi, cpu-wheels, cuda, publisher; one with -jupyter (docs/images.md)
build *words: setup
    @'{{ bin }}/vnquant' image build "$@"

# The tests that need a container engine or rclone; builds the small images first
test-containers *words: setup
    @'{{ bin }}/python' tools/containers.py "$@"

# The Colab target: the real colab command against its emulator (docs/colab.md)
test-colab *words: setup
    @'{{ bin }}/python' tools/colab.py --test "$@"

# Build both real images (7 GB each), run the main job, compare digests; writes a dated report
test-images *words: setup
    @'{{ bin }}/python' -m benchmarks.images "$@"

# Lint, types and import rules
check: lint types imports

# Style and format
lint: setup
    @'{{ bin }}/ruff' check --quiet .
    @'{{ bin }}/ruff' format --check --quiet .

# Rewrite the code in the one format, and repair what can be repaired
format: setup
    @'{{ bin }}/ruff' check --fix --quiet .
    @'{{ bin }}/ruff' format .

alias fix := format

# Static types
types: setup
    @'{{ bin }}/mypy'

# The import rules
imports: setup
    @'{{ bin }}/lint-imports'

# Regenerate the reference pages from the code
docs: setup
    @'{{ bin }}/python' -m vnquant.features.reference
    @'{{ bin }}/python' -m vnquant.cli_reference

# Measure; prints a table and writes JSON
bench *words: setup
    @'{{ bin }}/python' -m benchmarks "$@"

# Resolve the requirement files anew (requirements/README.md)
lock: setup
    @'{{ bin }}/python' -m pip install --quiet --require-hashes --no-deps -r requirements/uv.txt
    @PATH='{{ bin }}':"$PATH" '{{ bin }}/python' tools/lock.py

# Remove what recipes made, the virtual environment included
clean:
    rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache vnquant.egg-info '{{ VNQUANT_VENV }}' '{{ VNQUANT_VENV }}.lock'
