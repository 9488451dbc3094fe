# Every target works from a bare checkout: scripts/setup.sh makes what is missing and costs nothing when warm.
.PHONY: quickstart check test lint format setup clean
export PYTHONUNBUFFERED := 1
# Without bytecode every process of a run or of the tests would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# The whole method in miniature on a CPU; SEED=7 for another seed. Killed, the same command goes on where it stopped.
quickstart:
	@scripts/setup.sh train,report bwrap git
	@.venv/bin/turnwise quickstart $(if $(SEED),--seed $(SEED))

# A process per core, file by file, and one thread per process: two OpenMP pools that fight for the same cores lose far
# more than half.
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

# For every change; `test` is for what is to land.
check: lint
	@$(PYTEST) -m "not slow and not corpus and not containers"

test: lint
	@$(PYTEST)

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

setup:
	@scripts/setup.sh dev bwrap git 'chromedriver?' 'dockerd?'

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
