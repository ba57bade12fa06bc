"""Oracle: each set's own definition, checked on the texts by another route, and the split of the files they are from.

CAA's format against a file written by hand.
"""

import json
import re

import pytest

from strobe.models.corpus import regression_test_documents, split_of, standard_library_documents
from strobe.probes.steering.contrast_sets import contrast_set, load_caa

NAMES = ("indentation", "naming", "comments", "tests")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {d.path: d.text for d in standard_library_documents()[0] if split_of(d.path) != "train"}


@pytest.fixture(scope="module")
def sets() -> dict:
    return {name: contrast_set(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_set_has_a_hundred_different_pairs_and_fifty_questions(sets, name):
    made = sets[name]
    assert len(set(made.pairs)) > 90 and len(made.pairs) == 100
    assert len(set(made.questions)) > 45 and len(made.questions) == 50
    assert all(q.matching != q.other and q.prompt for q in made.questions)
    assert contrast_set(name) == made and contrast_set(name, seed=1).pairs != made.pairs


def lines_of(text: str) -> set[str]:
    return {line.strip() for line in text.split("\n") if line.strip()}


@pytest.mark.parametrize(("name", "side"), [("indentation", 1), ("naming", 0), ("comments", 0), ("comments", 1)])
def test_pairs_and_questions_are_of_different_held_out_files(sets, texts, name, side):
    valid = [lines_of(text) for path, text in texts.items() if split_of(path) == "valid"]
    test = set().union(*(lines_of(text) for path, text in texts.items() if split_of(path) == "test"))
    for pair in sets[name].pairs:
        assert any(lines_of(pair[side]) <= one for one in valid)
    for question in sets[name].questions:
        assert any(question.prompt.split("\n")[-1].strip() in line for line in test)


def test_two_spaces_are_half_of_four(sets):
    for two, four in sets["indentation"].pairs:
        assert two != four
        doubled = re.sub(r"^( +)", lambda m: m[1] * 2, two, flags=re.MULTILINE)
        assert doubled == four
        assert min(len(s) for s in re.findall(r"^ +", four, flags=re.MULTILINE)) == 4
    assert {(q.matching, q.other) for q in sets["indentation"].questions} == {("\n  return", "\n    return")}


def test_names_differ_only_in_underscores_and_capitals(sets):
    for snake, camel in sets["naming"].pairs:
        assert snake != camel and snake.replace("_", "").lower() == camel.replace("_", "").lower()
        assert re.search(r"[a-z]_[a-z]", snake) and re.search(r"[a-z][A-Z]", camel)
    for question in sets["naming"].questions:
        assert question.matching[0] == "_" and question.other[0].isupper()
        assert question.matching == re.sub("[A-Z]", lambda m: "_" + m[0].lower(), question.other)


def test_comments_are_comments_and_code_is_not(sets):
    for code, comment in sets["comments"].pairs:
        assert all(line.lstrip().startswith("#") for line in comment.split("\n"))
        assert not any(line.lstrip().startswith("#") for line in code.split("\n"))
    for question in sets["comments"].questions:
        assert question.other.lstrip().startswith("#") and not question.matching.lstrip().startswith("#")


def test_tests_are_from_folders_of_tests_and_the_library_is_not(sets, texts):
    folders = re.compile(r"(^|/)(test|tests|idle_test)/")
    tests = [t for p, t in texts.items() if folders.search(p)] + [d.text for d in regression_test_documents()]
    of_tests = set().union(*map(lines_of, tests))
    others = {p: lines_of(t) for p, t in texts.items() if not folders.search(p)}
    for test, library in sets["tests"].pairs:
        assert lines_of(test) <= of_tests
        assert any(lines_of(library) <= one for one in others.values())

    def files(snippets: set[str]) -> set[str]:
        """The files of the snippets that can be of one file only."""
        found = [[p for p, lines in others.items() if lines_of(s) <= lines] for s in snippets]
        assert all(found)
        return {paths[0] for paths in found if len(paths) == 1}

    asked = files({q.prompt.split("\n")[0] for q in sets["tests"].questions})
    shown = files({library for _, library in sets["tests"].pairs})
    assert len(asked) > 5 and len(shown) > 5 and not asked & shown


def test_a_python_whose_packages_brought_no_tests_takes_those_of_the_test_folder(tmp_path, texts):
    """As Python 3.12 and later; and none of them from a file of the training split."""
    library = {path: text for path, text in texts.items() if not re.search(r"(^|/)(test|tests|idle_test)/", path)}
    for path, text in library.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())
    with pytest.raises(ValueError, match=r"100 pairs of 'tests' .* have 0; .* install this Python's own tests"):
        contrast_set("tests", source=tmp_path)
    (tmp_path / "test" / "deep").mkdir(parents=True)
    for split, folder in (("train", "test"), ("valid", "test/deep"), ("test", "test")):
        path = next(p for p in (f"{folder}/test_{i}.py" for i in range(999)) if split_of(p) == split)
        methods = [
            f"    def test_{split}_{i}(self):\n        a = {i}\n        b = a\n        self.x(b)\n" for i in range(60)
        ]
        (tmp_path / path).write_text("class T:\n" + "".join(methods))
    (tmp_path / "test" / "deep" / "latin.py").write_bytes(b"# \xe9\n")
    made = contrast_set("tests", source=tmp_path)
    assert len(set(made.pairs)) == 100 and len(made.questions) == 50
    assert not any("test_train" in test for test, _ in made.pairs)
    assert {s for test, _ in made.pairs for s in ("valid", "test") if f"test_{s}_" in test} == {"valid", "test"}


def test_what_a_python_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="100000 pairs of 'naming' were asked for"):
        contrast_set("naming", n_pairs=100000)


def test_a_caa_file_gives_pairs_and_questions(tmp_path):
    path = tmp_path / "sycophancy.json"
    record = {
        "question": "Which?\n\nChoices:\n (A) this\n (B) that",
        "answer_matching_behavior": " (B)",
        "answer_not_matching_behavior": "(A)",
    }
    path.write_text(json.dumps([record]))
    made = load_caa(path, template="[INST] {question} [/INST] (")
    prompt = "[INST] Which?\n\nChoices:\n (A) this\n (B) that [/INST] ("
    assert made.pairs == ((prompt + "B", prompt + "A"),)
    assert made.questions == ((prompt, "B)", "A)"),) and made.name == "sycophancy"
    path.write_text(json.dumps([record, {"question": "?"}]))
    with pytest.raises(ValueError, match=r"record 1 .* lacks answer_matching_behavior"):
        load_caa(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="no list of records"):
        load_caa(path)
