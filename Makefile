# Everything runs in .venv, which `make env` builds; nothing else has to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env browser demo docs test lint bench zoo golden native clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: env
	$(BIN)/vogcore demo --output demo-output --overwrite

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, into site/. mkdocs-material would advertise its successor in every build.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html, or for the search: $(BIN)/python -m http.server -d site"

# The tests of the report want a browser, and a clean Debian has none. Where it cannot be installed (another system, no
# root, no network) they are skipped; where it is there they must run.
APT := -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20
HAS_BROWSER := command -v chromium >/dev/null && command -v chromedriver >/dev/null

browser:
	@$(HAS_BROWSER) || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  (timeout 120 apt-get $(APT) update && timeout 600 apt-get $(APT) install -y --no-install-recommends chromium chromium-driver) \
	  >/dev/null 2>&1 || echo "Chromium could not be installed; the tests that need it are skipped."; fi

# The adapters' tests train in every framework: those that do not live in .venv have environments of their own. With
# the variable, a framework that is missing is a failure.
test: env lint browser .venv-zoo-jax/.installed .venv-zoo-keras/.installed
	if $(HAS_BROWSER); then export VOGCORE_REQUIRE_BROWSER=1; fi; VOGCORE_REQUIRE_FRAMEWORKS=1 $(BIN)/python -m pytest
	$(MAKE) native

# SUITE=speed times gradients and kernels and needs no data; without it the whole job runs on Fashion-MNIST, in the folder DATA.
bench: env
ifeq ($(SUITE),speed)
	$(BIN)/python -m benchmarks.gradients $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.checkpoints $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.kernels $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.storage $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.pipeline $(if $(QUICK),--quick)
else
	$(BIN)/python -m benchmarks.fashion_mnist --data-dir $(DATA)
endif

# Frameworks that do not live beside ONNX Runtime's GPU build, or are too large to be installed for every test run,
# have environments of their own. They export; what they exported is measured in .venv.
ZOO := jax keras transformers
ZOO_WORK := benchmarks/work/zoo

.venv-zoo-%/.installed: benchmarks/zoo/requirements/%.txt
	$(PYTHON) -m venv .venv-zoo-$*
	.venv-zoo-$*/bin/python -m pip install --quiet --upgrade pip
	.venv-zoo-$*/bin/python -m pip install --quiet --requirement $<
	touch $@

zoo: env $(ZOO:%=.venv-zoo-%/.installed)
	rm -rf $(ZOO_WORK)
	-for name in $(ZOO); do .venv-zoo-$$name/bin/python -m benchmarks.zoo --framework $$name --export $(ZOO_WORK)/$$name; done
	$(BIN)/python -m benchmarks.zoo $(ZOO:%=--exported $(ZOO_WORK)/%) --table docs/autodiff.md

# The small exports in tests/data/zoo, with which the tests check the graphs of JAX and Keras without installing them.
golden: .venv-zoo-jax/.installed .venv-zoo-keras/.installed
	for name in jax keras; do .venv-zoo-$$name/bin/python -m benchmarks.zoo --framework $$name --short --export tests/data/zoo; done

# The tests of input gradients by JAX and Keras. The frameworks are borrowed from the environments of the zoo, whose ONNX
# Runtime is then seen beside ours.
BORROWED = $$(echo .venv-zoo-$(1)/lib/python*/site-packages)
BOTH_RUNTIMES := ignore:Both onnxruntime

native: env .venv-zoo-jax/.installed .venv-zoo-keras/.installed
	PYTHONPATH=$(call BORROWED,jax) $(BIN)/python -m pytest -W '$(BOTH_RUNTIMES)' tests/adapters/test_native_jax.py
	for backend in tensorflow jax torch; do \
	  KERAS_BACKEND=$$backend PYTHONPATH=$(call BORROWED,keras):$(call BORROWED,jax) \
	  $(BIN)/python -m pytest -W '$(BOTH_RUNTIMES)' tests/adapters/test_native_keras.py || exit 1; done

clean:
	rm -rf $(VENV) .venv-zoo-* demo-output site
