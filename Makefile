# For people and for CI: each target works on a fresh Debian or Ubuntu that has
# Python 3.10 or newer and make. Without a terminal nothing is asked.
#
#   make demo    see a slow umount on four kernels
#   make test    all tests, the fast ones first
#   make bench   measure, and write docs/benchmarks.md
#   make lint    ruff, mypy, and the links in the documents
#   make clean   remove what was made here (the cache of kernels stays)
#
# PYTHON chooses the interpreter, ARGS is handed on to pytest.

PYTHON ?= python3
ARGS ?=

# What the example and the tests run on: one of each series that Debian has.
KERNELS := --kernel 5.10 --kernel 6.1 --kernel 6.12 --kernel 7.2

# Two at a time: a machine keeps one processor busy. A file stays together, because its tests may share machines.
LANES := -n 2 --dist loadfile

# A busy host may stand still in the middle of a test: one that fails has a second chance, which the table shows.
AGAIN := --reruns 1 --reruns-delay 5

VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -q
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test bench test-host lint clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/kernelfs setup --yes
	$(BIN)/pytest $(KERNELS) examples/overlay_umount $(ARGS)

test: test-host
	$(BIN)/pytest -m "not vm" $(ARGS)
	$(BIN)/pytest -m vm $(KERNELS) $(LANES) $(AGAIN) $(ARGS)

# Our speed against a plain boot and against virtme-ng; writes docs/benchmarks.md.
bench: $(VENV)/.installed-bench
	$(BIN)/kernelfs setup --yes
	$(BIN)/python -m benchmarks $(ARGS)

# What the tests need on this host.
test-host: $(VENV)/.installed
	$(BIN)/kernelfs setup --yes --for-tests
	$(MAKE) --no-print-directory $(VENV)/.installed-libvirt

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/check_links.py

clean:
	rm -rf $(VENV) .tox build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make pip run again only when the dependencies may have changed.
$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(PIP) install -e '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -e '.[dev]'
	@touch $@

# It is compiled, with what "kernelfs setup --for-tests" has brought.
$(VENV)/.installed-libvirt: $(VENV)/.installed
	$(PIP) install -e '.[libvirt]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP) install -e '.[bench]'
	@touch $@

# Debian and Ubuntu keep a part of venv in a package of its own.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "make: $(PYTHON) is missing or older than Python 3.10;" \
	         "choose another one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	    package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	    echo "make: $(PYTHON) cannot make a virtual environment yet; installing $$package"; \
	    { $(APT) install -y --no-install-recommends $$package \
	        || { $(APT) update && $(APT) install -y --no-install-recommends $$package; }; } \
	    && rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) \
	    || { echo "make: cannot make $(VENV); install $$package, then try again" >&2; exit 1; }; }
	@touch $@
