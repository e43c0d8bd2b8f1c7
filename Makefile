# Everyday commands, in an environment with `pip install -c constraints.txt -e '.[test]'`; `slow` needs the extra `peers`.
.PHONY: test slow lint types check bench format

check: lint types test

test:
	python -m pytest -n auto --dist worksteal

slow:
	python -m pytest -n auto --dist worksteal -m slow

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
