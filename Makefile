# make demo: install and search; make test: install and test. Both make everything they need on a fresh machine.
# make check: lint, format and types; make quick: the tests that need no service and no training.
#
# A .venv that is there is kept, whatever its Python; `make clean` before another one.

# The first of these that really starts and can make a virtual environment. 3.11 leads because tflite-runtime has no
# wheel for a later one. PYTHON=... takes that one instead.
PYTHONS := python3.11 python3.12 python3.13 python3.10
NAME := import ensurepip, sys, venv; print("python%d.%d" % sys.version_info[:2])
PYTHON ?= $(shell for name in $(PYTHONS); do \
	if test "$$($$name -c '$(NAME)' 2>/dev/null)" = $$name; then echo $$name; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test quick check lint clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/autocompress search --device rpi4 --trials 60 --runs runs
	@echo "To type autocompress yourself: . $(BIN)/activate"

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not service and not training and not slow"

check lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	@python="$(PYTHON)"; \
	if test -z "$$python"; then \
		echo "none of $(PYTHONS) starts and has venv and ensurepip: install Python 3.11 with both" \
			"(Debian 12: apt-get install python3.11-venv), or say PYTHON=/path/to/python" >&2; exit 1; fi; \
	name=$$($$python -c '$(NAME)') || { \
		echo "$$python does not start, or lacks venv or ensurepip: say another PYTHON=..., or none" >&2; exit 1; }; \
	echo "$(VENV) is made with $$python, which is $$name"; \
	case $$name in python3.10 | python3.11) ;; *) \
		echo "tflite-runtime has no wheel for $$name: the profile local-tflite-runtime cannot be measured" ;; esac; \
	$$python -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV): TensorFlow is large, this takes some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,benchmarks]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
