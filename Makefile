# make lab: the lessons in JupyterLab.   make test: every test.   Both install what is missing first.
PYTHON ?= python3
BIN := .venv/bin
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test format

lab: .venv/installed
	$(BIN)/jupyter lab $(AS_ROOT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

test: .venv/installed
	$(BIN)/python -m pytest

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
