# make demo        train and test a small model on distorted photographs, and write its report
# make test        the tests, two at a time       (PYTEST_FLAGS="-k metrics" for some of them)
# make test-torch  the tests that compare with PyTorch; installs it into .venv
# make test-browser  the tests of what has a page; needs Chromium
# make notebooks   the notebooks of colab/, executed in their short form
# make notebooks-sync  colab/*.ipynb anew from the texts beside them
# make test-slow   several processes, kills, whole benchmarks; minutes
# make test-stress the test that kills runs at random moments; minutes
# make lint        ruff, mypy, import-linter and shellcheck
# make docs        the documentation as pages: build/docs/index.html
# make screenshots the pictures in docs/screenshots, from real runs; needs Chromium
# make clean       remove .venv, caches and runs/demo
#
# Needs Python 3.11-3.13 and make; everything else goes into .venv, once.

SHELL := /bin/sh
VENV := .venv
PYTHON ?=
DEMO_DIR := runs/demo
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
PYTEST_WORKERS ?= 2
# A file to one worker, in the order of tests/conftest.py.
PARALLEL = -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder
TORCH := torch==2.13.0
# The modules that published backbones are made for; without what else they would bring.
TORCH_MODELS := timm==1.0.31 torchvision==0.29.2 pyyaml

.PHONY: demo test test-torch test-browser test-slow test-stress notebooks notebooks-sync lint docs screenshots clean
.DELETE_ON_ERROR:

# Large pages for large arrays: a fifth faster on the CPU with glibc, ignored elsewhere.
demo: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
demo: $(VENV)/.demo-installed
	$(VENV)/bin/glpi demo --workdir $(DEMO_DIR) $(DEMO_FLAGS)

test: $(VENV)/.test-installed
	$(VENV)/bin/python -m pytest $(PARALLEL) $(PYTEST_FLAGS)

test-torch: $(VENV)/.torch-installed
	$(VENV)/bin/python -m pytest -m torch $(PYTEST_FLAGS)

test-browser: $(VENV)/.browser-installed
	$(VENV)/bin/python -m pytest -m browser $(PYTEST_FLAGS)

test-slow: $(VENV)/.test-installed
	$(VENV)/bin/python -m pytest $(PARALLEL) -m slow $(PYTEST_FLAGS)

test-stress: $(VENV)/.test-installed
	$(VENV)/bin/python -m pytest -m stress $(PYTEST_FLAGS)

# 03_port_checkpoints needs PyTorch.
notebooks: $(VENV)/.torch-installed $(VENV)/.colab-installed
	$(VENV)/bin/python -m pytest -m notebooks tests/colab $(PYTEST_FLAGS)

notebooks-sync: $(VENV)/.colab-installed
	$(VENV)/bin/python colab/make_notebooks.py

lint: $(VENV)/.test-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/shellcheck .ci/run $$(find launch -name '*.sh')

# Every warning is an error, a link to a name that is not there included.
docs: $(VENV)/.docs-installed
	$(VENV)/bin/python docs/make_storeys.py
	$(VENV)/bin/python -m sphinx -W --keep-going --nitpicky --quiet --write-all -b html docs build/docs
	@echo "build/docs/index.html"

screenshots: $(VENV)/.browser-installed
	$(VENV)/bin/python docs/make_screenshots.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .test_compilations $(DEMO_DIR)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made: launch/make_venv.sh
	PYTHON="$(PYTHON)" launch/make_venv.sh $(VENV)
	touch $@

$(VENV)/.demo-installed $(VENV)/.test-installed $(VENV)/.browser-installed $(VENV)/.colab-installed $(VENV)/.docs-installed: $(VENV)/.%-installed: $(VENV)/.made pyproject.toml requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

$(VENV)/.torch-installed: $(VENV)/.test-installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(TORCH_MODELS)
	touch $@
