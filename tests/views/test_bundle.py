"""Browser code in one piece: nothing is left to be loaded, and no two names collide."""

import re
from pathlib import Path

import pytest

from attnviz.views import bundle
from attnviz.views.bundle import module, style

VIEWS = Path(bundle.__file__).parent
WIDGETS = sorted(f for f in VIEWS.parent.rglob("*.js") if "export default" in f.read_text("utf-8"))
TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:const|let|var|function\*?|class) (.+)", re.M)


@pytest.fixture
def put(tmp_path):
    """A function that writes files, by name and text, and returns the path of the first."""

    def put(files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return tmp_path / next(iter(files))

    return put


class TestModule:
    def test_what_is_imported_stands_in_its_place(self, put):
        main = put(
            {
                "main.js": '// Main.\nimport { a } from "./one.js";\nexport default a;\n',
                "one.js": "export const a = 1;\n",
            }
        )
        assert module(main) == "// Main.\nconst a = 1;\nexport default a;\n"

    def test_a_file_that_two_others_import_is_there_once_and_before_both(self, put):
        main = put(
            {
                "main.js": 'import { b } from "./two.js";\nimport { a } from "./one.js";\nb(a);\n',
                "two.js": 'import { a } from "./one.js";\nexport function b(x) { return a + x; }\n',
                "one.js": "export const a = 1;\n",
            }
        )
        text = module(main)
        assert text == "const a = 1;\nfunction b(x) { return a + x; }\nb(a);\n"

    def test_files_of_other_folders_and_names_over_several_lines(self, put):
        main = put(
            {
                "here/main.js": 'import {\n  a,\n  b,\n} from "../there/one.js";\na(b);\n',
                "there/one.js": "export const a = 1, b = 2;\n",
            }
        )
        assert module(main) == "const a = 1, b = 2;\na(b);\n"

    def test_backslashes_and_dollars_stay_as_they_are(self, put):
        main = put(
            {
                "main.js": 'import { a } from "./one.js";\n',
                "one.js": "export const a = `${'\\n'} \\1 \\g<0>`;\n",
            }
        )
        assert module(main) == "const a = `${'\\n'} \\1 \\g<0>`;\n"

    def test_a_missing_file_is_an_error(self, put):
        with pytest.raises(FileNotFoundError):
            module(put({"main.js": 'import { a } from "./none.js";\n'}))


def names(text):
    """The names at the top level of a module whose statements begin in the first column."""
    for statement in TOP_LEVEL.findall(text):
        if statement.startswith(("{", "[")):
            yield from re.findall(r"\w+", re.split(r"[\]}] = ", statement)[0])
            continue
        yield re.match(r"[\w$]+", statement)[0]
        flat = re.sub(r"\([^()]*\)|\{[^{}]*\}|\[[^\]]*\]|\"[^\"]*\"|//.*", "", statement)
        yield from re.findall(r", (\w+) = ", flat)


@pytest.mark.parametrize("widget", WIDGETS, ids=lambda file: file.stem)
class TestEveryWidget:
    def test_nothing_is_left_to_load(self, widget):
        text = module(widget)
        assert not re.search(r"^\s*import\b|\bimport\s*\(|\brequire\s*\(|\bfetch\s*\(", text, re.M)
        assert re.findall(r"^export .*", text, re.M) == ["export default { render };"]
        assert "http:" not in text
        assert "https:" not in text

    def test_no_name_is_there_twice_not_even_in_a_saved_page(self, widget):
        page = "const widget = 0;\n" + (VIEWS / "page.js").read_text("utf-8")
        found = list(names(module(widget) + page))
        assert {"make", "render", "model"} <= set(found)
        assert sorted(found) == sorted(set(found))


class TestStyle:
    def test_sheets_stand_one_after_the_other(self):
        text = style("view", "matrix")
        assert text.index(".attnviz-readout") < text.index(".attnviz-cells")

    @pytest.mark.parametrize(
        "sheet", sorted((VIEWS / "static").glob("*.css")), ids=lambda f: f.stem
    )
    def test_rules_are_for_views_alone_and_load_nothing(self, sheet):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text("utf-8"), flags=re.S)
        assert not re.search(r"url\(|@import|https?:", text)
        if sheet.stem == "page":  # a page has nothing else on it
            return
        for selectors in re.findall(r"^\s*([^@{}\s][^{}]*)\{", text, re.M):
            for selector in re.sub(r":(?:is|where|not)\([^()]*\)", "", selectors).split(","):
                assert re.match(r"\s*\.attnviz(?![\w-])|\s*(from|to|\d+%)\s*$", selector), selector
