"""A lesson as others get it, exported and read without a network: no picture is missing."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LESSON = ROOT / "notebooks" / "01_self_attention.ipynb"
VISIBLE = """[...document.images].filter((image) =>
    image.complete && image.naturalWidth > 1 && image.checkVisibility()
    && image.getBoundingClientRect().width > 50).map((image) => image.alt)"""
HEIGHTS = """[...document.querySelectorAll('section section')].map((slide) =>
    slide.getBoundingClientRect().height)"""


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A function that exports the lesson with the settings that `make` installs."""
    home = tmp_path_factory.mktemp("export")
    settings = (ROOT / "nbconvert.json").read_text(encoding="utf-8")
    (home / "jupyter_config.json").write_text(settings, encoding="utf-8")
    folders = {"JUPYTER_CONFIG_PATH": home, "JUPYTER_CONFIG_DIR": home / "none"}

    @cache
    def export(kind):
        command = [sys.executable, "-m", "nbconvert", "--to", kind, "--output-dir", home, LESSON]
        environment = {**os.environ, **{name: str(place) for name, place in folders.items()}}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (written,) = home.glob("*.slides.html" if kind == "slides" else "01_self_attention.html")
        return written

    return export


def pictures():
    """How many PNGs stand in the lesson's file: of views, and of figures."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    shown = [o["data"] for cell in cells for o in cell.get("outputs", []) if "data" in o]
    inside = ["".join(data.get("text/html", "")).count("data:image/png;base64") for data in shown]
    return sum("image/png" in data for data in shown), sum(inside)


def test_a_page_shows_every_picture_and_the_descriptions_of_figures(export, open_page):
    shown = open_page(export("html")).evaluate(VISIBLE)
    assert len(shown) == sum(pictures()) > 5
    described = [alt for alt in shown if len(alt) > 10 and "No description" not in alt]
    assert len(described) == pictures()[1] >= 4


def test_a_page_has_what_widgets_say_in_words(export, open_page):
    said = open_page(export("html")).inner_text("body")
    assert said.count("not yet:") >= 3  # the exercises
    assert "passed:" not in said  # their solutions
    assert len(re.findall(r"Predict: .*\n +\( \) ", said)) >= 3
    assert "VBox(" not in said


def test_slides_are_many_and_none_is_endless(export, open_page):
    page = open_page(export("slides"))
    heights = page.evaluate(HEIGHTS)
    assert len(heights) > 10
    assert min(heights) > 0
    assert max(heights) < 3000  # CSS pixels; such a long one scrolls
    assert len(page.evaluate(VISIBLE)) == sum(pictures())
