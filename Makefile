# Everyday commands, in an environment with `pip install -e '.[test]'`.
.PHONY: test lint types check bench format

check: lint types test

test:
	python -m pytest -n auto --dist loadfile

lint:
	ruff check .
	ruff format --check .

types:
	mypy

format:
	ruff check --fix .
	ruff format .

bench:
	vaefit-cli bench kernels
	vaefit-cli bench histogram
	vaefit-cli bench step
	python -m vaefit.benchmarks.recipe
