"""Text files and JSON lines in whatever form systems write them; what is wrong names its place."""

import json

import pytest

from attnviz.data import (
    SentencePairs,
    encode_texts,
    load_entities,
    load_questions,
    load_translation,
    next_sentence_pairs,
    pack,
    split_sentences,
    train_wordpiece,
    wordpiece_tokenizer,
)
from attnviz.data.reading import MissingKey, read_lines, read_rows
from attnviz.data.streams import apart, stream_texts, streamed_batches
from attnviz.data.wordpiece import SPECIAL

TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])
NO_ENDS = [*"\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", "\u2028\x85", "\ufeff"]
ROW = {"text": "Née", "en": "Ada sang.", "de": "Née", "split": "train"}
ROW |= {"words": ["Née", "sang"], "tags": ["B-PER", "O"]}
ROW |= {"context": "Née sang.", "question": "Who?", "answer": "Née", "start": 0}
READERS = {  # what reads JSON lines, and what it makes of each: its texts
    "entities": lambda f: [one.words[0] for one in load_entities(f)],
    "questions": lambda f: [one.context for one in load_questions(f)],
    "translation": lambda f: [de for _, de in load_translation(f)],
    "stream": lambda f: list(stream_texts(f)()),
}
FIELD = {"entities": "words", "questions": "context", "translation": "de", "stream": "text"}
each_reader = pytest.mark.parametrize("reader", READERS)


def row_with(reader, text):
    """A row in which a text stands where this reader finds it."""
    start = {"start": (text + ROW["answer"]).index(ROW["answer"])}
    context = text if ROW["answer"] in text else text + ROW["answer"]
    values = {"words": [text, "sang"], "context": context}
    return ROW | start | {FIELD[reader]: values.get(FIELD[reader], text)}


def write(path, *rows, end="\n", encoding="utf-8"):
    lines = [json.dumps(row, ensure_ascii=False) + end for row in rows]
    path.write_bytes("".join(lines).encode(encoding))
    return path


class TestLines:
    @pytest.mark.parametrize("inside", NO_ENDS)
    def test_a_line_ends_at_a_newline_alone(self, tmp_path, inside):
        file = tmp_path / "some.txt"
        file.write_text(f"a{inside}b\n{inside[:-1]}c", encoding="utf-8")
        assert [line for _, line in read_lines(file)] == [f"a{inside}b", f"{inside[:-1]}c"]
        assert list(stream_texts(file)()) == [f"a{inside}b", f"{inside[:-1]}c"]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_newlines_of_every_system(self, tmp_path, end):
        (tmp_path / "some.txt").write_bytes(f"née{end}{end} b {end}c".encode())
        lines = [line for _, line in read_lines(tmp_path / "some.txt")]
        assert lines == ["née", "", " b ", "c"]

    def test_a_byte_order_mark_is_no_text_also_where_files_were_joined(self, tmp_path):
        (tmp_path / "some.txt").write_bytes(2 * "née\n".encode("utf-8-sig"))
        assert list(stream_texts(tmp_path / "some.txt")()) == ["née", "née"]

    def test_places(self, tmp_path):
        (tmp_path / "some.txt").write_text("a\n\nb")
        places = [place for place, _ in read_lines(tmp_path / "some.txt")]
        assert places == [f"{tmp_path / 'some.txt'}, line {i}" for i in (1, 2, 3)]


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("name", ["some.txt", "some.jsonl"])
    def test_another_is_refused_with_a_remedy_that_works(self, tmp_path, encoding, name):
        old, new = tmp_path / name, tmp_path / f"new.{name}"
        lines = (
            ["plain", "née"]
            if name.endswith("txt")
            else [json.dumps({"text": "plain"}), json.dumps({"text": "née"}, ensure_ascii=False)]
        )
        old.write_bytes("\r\n".join(lines).encode(encoding))
        with pytest.raises(
            ValueError, match=r"line \d: must be text in UTF-8, got the byte 0x"
        ) as e:
            list(stream_texts(old)())
        assert f"{old}, line {2 if encoding == 'cp1252' else 1}" in str(e.value)
        assert ("utf-16" if "16" in encoding else "cp1252") in str(e.value)
        if encoding in ("cp1252", "utf-16"):  # the others have no mark, by which Python knows them
            exec(str(e.value).split("anew: ")[1].replace("Path('new')", f"Path({str(new)!r})"))
            assert list(stream_texts(new)()) == ["plain", "née"]

    @each_reader
    def test_every_reader_names_the_line(self, tmp_path, reader):
        file = write(tmp_path / "some.jsonl", ROW, encoding="cp1252")
        with pytest.raises(ValueError, match=r"some\.jsonl, line 1: must be text in UTF-8"):
            READERS[reader](file)

    def test_a_single_byte_late_in_a_file(self, tmp_path):
        (tmp_path / "some.txt").write_bytes(b"a\n" * 5000 + b"n\xe9e\n")
        texts = stream_texts(tmp_path / "some.txt")()
        with pytest.raises(ValueError, match=r"line 5001: .* byte 0xe9 at place 1 of the line"):
            list(texts)


class TestRows:
    @each_reader
    @pytest.mark.parametrize("inside", NO_ENDS)
    def test_a_text_may_hold_any_sign(self, tmp_path, reader, inside):
        file = write(tmp_path / "some.jsonl", row_with(reader, f"Née{inside}sang."))
        assert READERS[reader](file) == [f"Née{inside}sang."]

    @each_reader
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n \r\n"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_newlines_blank_lines_and_marks(self, tmp_path, reader, end, encoding):
        file = write(tmp_path / "some.jsonl", ROW, ROW, end=end, encoding=encoding)
        assert len(READERS[reader](file)) == 2

    @each_reader
    @pytest.mark.parametrize(
        ("line", "got"),
        [
            ("{", "must be JSON, got '{'"),
            ("Ada sang.", "must be JSON, got 'Ada sang.'"),
            ('{"text": "a"} {}', "must be JSON"),
            ("[" * 100_000, "must be JSON"),
            ("[1, 2]", r"must be a JSON object, got \[1, 2\]"),
            ("3", "must be a JSON object, got 3"),
            ("null", "must be a JSON object, got None"),
        ],
    )
    def test_what_is_no_object_names_its_line(self, tmp_path, reader, line, got):
        file = write(tmp_path / "some.jsonl", ROW)
        file.write_text(file.read_text(encoding="utf-8") + "\n" + line, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"some\.jsonl, line 3: {got}"):
            READERS[reader](file)

    @each_reader
    def test_a_missing_key_names_line_and_key(self, tmp_path, reader):
        lacking = {key: value for key, value in ROW.items() if key != FIELD[reader]}
        file = write(tmp_path / "some.jsonl", ROW, lacking)
        message = rf"^.*some\.jsonl, line 2: there is no \w+ '{FIELD[reader]}', only \["
        with pytest.raises(MissingKey, match=message):
            READERS[reader](file)

    @each_reader
    @pytest.mark.parametrize("value", [None, 3, 1.5, True, {}, [[]], [1], ["a", None]])
    def test_a_value_of_another_kind_names_line_and_key(self, tmp_path, reader, value):
        file = write(tmp_path / "some.jsonl", ROW, ROW | {FIELD[reader]: value})
        with pytest.raises(ValueError, match=rf"line 2: '{FIELD[reader]}' must be a \w+.*, got "):
            READERS[reader](file)

    @each_reader
    def test_half_a_character_names_line_and_key(self, tmp_path, reader):
        line = json.dumps(row_with(reader, "half \ud83d"))
        (tmp_path / "some.jsonl").write_text(f"{json.dumps(ROW)}\n{line}")
        with pytest.raises(ValueError, match=rf"line 2: '{FIELD[reader]}' must be a text of whole"):
            READERS[reader](tmp_path / "some.jsonl")

    @each_reader
    def test_a_folder_or_nothing(self, tmp_path, reader):
        for file in (tmp_path, tmp_path / "none.jsonl"):
            if reader != "stream" or file != tmp_path:
                with pytest.raises(FileNotFoundError, match="there is no file"):
                    READERS[reader](file)

    def test_a_json_file_may_be_one_list(self, tmp_path):
        file = tmp_path / "some.json"
        for indent in (None, 1):
            file.write_text(json.dumps([{"text": "a"}, {"text": "b"}], indent=indent))
            assert list(stream_texts(file)()) == ["a", "b"]
        file.write_text('[{"text": "a"}, {"text": 3}]')
        with pytest.raises(ValueError, match=r"some\.json, row 2: 'text' must be a text, got 3"):
            list(stream_texts(file)())
        file.write_text('[{"text": "a"}')
        with pytest.raises(ValueError, match=r"some\.json: must be JSON"):
            list(read_rows(file))

    @pytest.mark.parametrize("key", ["split", "tags", "start", "answer", "question"])
    def test_the_other_keys_are_checked_too(self, tmp_path, key):
        load = load_entities if key == "tags" else load_questions
        for value in ("3" if key in ("tags", "start") else 3, None, True, -1.0):
            file = write(tmp_path / "some.jsonl", ROW | {key: value})
            with pytest.raises(ValueError, match=rf"line 1: '{key}' must be"):
                load(file)

    def test_words_as_one_text(self, tmp_path):
        file = write(tmp_path / "some.jsonl", ROW | {"words": "Ada", "tags": ["O", "O", "O"]})
        with pytest.raises(ValueError, match="'words' must be a list of texts, got 'Ada'"):
            load_entities(file)

    @pytest.mark.parametrize(("start", "answer"), [(-1, "."), (-9, "Née"), (1, "Née"), (9, "Née")])
    def test_a_start_at_which_the_answer_is_not(self, tmp_path, start, answer):
        file = write(tmp_path / "some.jsonl", ROW | {"start": start, "answer": answer})
        with pytest.raises(ValueError, match=f"line 1: the answer must stand at place {start}"):
            load_questions(file)

    @pytest.mark.parametrize("load", [lambda f, s: stream_texts(f, s), load_translation])
    def test_a_file_has_no_other_split(self, tmp_path, load):
        file = write(tmp_path / "some.jsonl", ROW)
        with pytest.raises(ValueError, match=r"split must be 'train' for a file, .* got 'test'"):
            load(file, "test")

    def test_a_translation_that_is_no_object(self, tmp_path):
        file = write(tmp_path / "some.jsonl", {"translation": "a"})
        with pytest.raises(ValueError, match="line 1: 'translation' must be an object, got 'a'"):
            load_translation(file)

    @pytest.mark.parametrize("text", ["", "\n\n"])
    def test_files_without_a_line(self, tmp_path, text):
        (tmp_path / "some.jsonl").write_text(text)
        with pytest.raises(ValueError, match=r"some\.jsonl must hold at least one pair"):
            load_translation(tmp_path / "some.jsonl")
        with pytest.raises(ValueError, match=r"split must be one of \[\] in .*some\.jsonl"):
            load_entities(tmp_path / "some.jsonl")

    def test_a_file_of_another_kind(self, tmp_path):
        (tmp_path / "some.csv").write_text("text\na")
        with pytest.raises(ValueError, match=r"must be a .txt, .json or .jsonl file, got .*csv"):
            stream_texts(tmp_path / "some.csv")

    def test_the_end_of_a_name_in_capitals(self, tmp_path):
        (tmp_path / "SOME.TXT").write_text("a\nb")
        assert list(stream_texts(tmp_path / "SOME.TXT")()) == ["a", "b"]

    @pytest.mark.slow
    def test_rows_of_the_hub_are_checked_alike(self, monkeypatch):
        rows = [{"text": "a"}, {"text": None}]
        monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: iter(rows))
        with pytest.raises(ValueError, match="someone/corpus, row 2: 'text' must be a text, got N"):
            list(stream_texts("someone/corpus")())
        monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"en": "a", "de": 3}])
        with pytest.raises(ValueError, match="someone/pairs, row 1: 'de' must be a text, got 3"):
            load_translation("someone/pairs")


TAKERS = {  # what takes several texts
    "train_wordpiece": lambda texts: train_wordpiece(texts, 30),
    "wordpiece_tokenizer": wordpiece_tokenizer,
    "pack": lambda texts: pack(texts, TOKENIZER, 4),
    "encode_texts": lambda texts: encode_texts(texts, TOKENIZER, 4),
    "next_sentence_pairs": lambda texts: next_sentence_pairs(texts, TOKENIZER, 8, None),
    "streamed_batches": lambda texts: streamed_batches(lambda: texts, TOKENIZER, 4, 2)(0),
    "apart": lambda texts: [list(some()) for some in apart(lambda: texts)],
    "split_sentences": lambda texts: [split_sentences(text) for text in texts],
    "SentencePairs": lambda texts: SentencePairs([(text, "b") for text in texts]),
    "batch": lambda texts: SentencePairs([("a", "b")]).batch([("b", text) for text in texts]),
}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("own_cache")
class TestTexts:
    @pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
    @pytest.mark.parametrize("other", [None, 3, float("nan"), b"a", ["a"]])
    def test_what_is_no_text_among_texts(self, take, other):
        with pytest.raises(TypeError, match=r"text\w*\b.* must be a text, got|pairs.* a text, got|"
                           r"pieces.* must be a text, got"):  # fmt: skip
            take(["a b", "b c", other])

    @pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
    def test_half_a_character_among_texts(self, take):
        with pytest.raises(
            ValueError, match=r"must be a text of whole characters, got half of one"
        ):
            take(["a b", "b c", "\ud83d"])

    def test_a_stream_names_the_number_of_its_text(self, monkeypatch):
        monkeypatch.setattr("attnviz.data.streams._AT_ONCE", 2)
        batch_of = streamed_batches(lambda: iter([*["a b c"] * 5, None]), TOKENIZER, 4, 1)
        with pytest.raises(TypeError, match="text 5 of the stream must be a text, got None"):
            [batch_of(step) for step in range(9)]

    @pytest.mark.parametrize("pairs", [["ab"], [("a",)], [("a", "b", "c")], [3], [None]])
    def test_what_are_no_pairs(self, pairs):
        with pytest.raises(TypeError, match=r"pairs\[0\] must be two texts, got"):
            SentencePairs(pairs)
