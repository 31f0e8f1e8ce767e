# make lab: the lessons in JupyterLab.   make test: every test.   Both install what is missing first.
# make test-everything: as well what takes too long for each run.
PYTHON ?= python3
BIN := .venv/bin
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
PYTEST := $(BIN)/python -m pytest
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: lab test test-everything format

lab: .venv/installed
	$(BIN)/jupyter lab $(AS_ROOT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

test: .venv/installed
	$(PYTEST) $(SIDE_BY_SIDE) -m "not alone and not rare"; first=$$?; \
	$(PYTEST) -m "alone and not rare" && exit $$first

test-everything: .venv/installed
	$(PYTEST) $(SIDE_BY_SIDE) -m "not alone"; first=$$?; \
	$(PYTEST) -m alone && exit $$first

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: requirements.txt pyproject.toml jupyterlab.json nbconvert.json
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	mkdir -p .venv/share/jupyter/lab/settings .venv/etc/jupyter
	cp jupyterlab.json .venv/share/jupyter/lab/settings/overrides.json
	cp nbconvert.json .venv/etc/jupyter/jupyter_config.json
	touch $@
