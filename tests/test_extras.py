"""What an extra brings is named where it is missing."""

import sys

import pytest

from attnviz.data import load_reviews, load_translation
from attnviz.data.streams import stream_texts
from attnviz.extras import needed


def test_what_is_there_is_imported():
    assert needed("json.decoder", "sentences").JSONDecoder


@pytest.mark.parametrize("module", ["nowhere", "nowhere.deeper"])
def test_what_is_missing_is_named_with_the_extra(module):
    message = r'^nowhere is not installed; get it with `pip install "attnviz\[onnx\]"`$'
    with pytest.raises(ModuleNotFoundError, match=message):
        needed(module, "onnx")


def test_what_a_module_itself_lacks_is_not_mistaken_for_it(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"):
        needed("half_there", "onnx")


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [
        ("datasets", lambda: stream_texts("someone/corpus"), "pretraining"),
        ("datasets", lambda: load_translation("someone/pairs"), "sentences"),
    ],
)
def test_without_its_package(monkeypatch, package, use, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf'pip install "attnviz\[{extra}\]"'):
        use()


def test_without_the_reviews(monkeypatch):
    monkeypatch.setattr("attnviz.data.reviews.find_spec", lambda name: None)
    load_reviews.__globals__["_read"].cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r'pip install "attnviz\[pretraining\]"'):
        load_reviews()


def test_files_need_no_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": "a", "en": "a", "de": "b"}\n')
    assert list(stream_texts(file)()) == ["a"]
    assert load_translation(file) == [("a", "b")]
