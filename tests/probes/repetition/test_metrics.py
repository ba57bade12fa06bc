"""Oracle: values by hand (methods' goldens), and rep-n and runs found by another, slower way."""

import itertools
import math
import random

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.repetition import metrics, structural_repetition, text_repetition
from strobe.probes.repetition.period import Loop, tail_loop
from strobe.probes.repetition.rules import rules_of
from strobe.probes.repetition.tandem import Run, lcp_array, suffix_array, tandem_repeats


def test_rep_n_of_known_texts():
    assert metrics.rep_score("repeat " * 7) == pytest.approx(6 / 7)
    assert metrics.rep_score("all of these differ") == 0
    assert metrics.rep_n("abab", 2) == pytest.approx(1 / 3)
    assert metrics.repeat_in_window("abcabc", 2) == 0 and metrics.repeat_in_window("abcabc", 3) == 0.5
    with pytest.raises(ValueError, match="3-grams of 2 items"):
        metrics.rep_n("ab", 3)


def test_entropy_is_zero_for_one_word_and_one_for_different_ones():
    assert metrics.information_entropy("aaaa") == 0
    assert metrics.information_entropy("abcd") == pytest.approx(1)
    assert metrics.information_entropy("aabb") == pytest.approx(0.5)
    assert math.isnan(metrics.information_entropy("a"))


def test_sentences_repeat_anywhere_or_right_behind():
    parts = metrics.sentences("It rains. It rains. It shines!\nIt rains.")
    assert parts == ["It rains.", "It rains.", "It shines!", "It rains."]
    assert metrics.sentence_repetition(parts) == (0.5, 0.25)


def test_a_text_is_measured_beside_its_shuffle(tmp_path):
    result = text_repetition("the cat sat and " * 6)
    assert result.rep_score == pytest.approx(20 / 24) and result.repetitive
    assert result.rep[3] == pytest.approx(1 - 4 / 21)
    assert result.rep[0] == pytest.approx(result.control_rep[:, 0])
    # Order is what makes 4-grams repeat.
    assert result.control_rep[:, 3].max() < 0.5
    assert load_result(result.save(tmp_path / "text.safetensors")) == result
    bars = result.figure().data
    assert [float(y) for y in bars[0].y] == pytest.approx(result.rep) and bars[1].name == "shuffled"
    with pytest.raises(ValueError, match="needs its control"):
        text_repetition("a b c d", n_shuffled=0)


def by_comparison(items):
    """Every maximal run, found by comparing the sequence with itself shifted by each period."""
    found = {}
    for period in range(1, len(items) // 2 + 1):
        i = 0
        while i + period < len(items):
            if items[i] != items[i + period]:
                i += 1
                continue
            start = i
            while i + period < len(items) and items[i] == items[i + period]:
                i += 1
            if i + period - start >= 2 * period:
                found.setdefault((start, i + period), period)
    return sorted(Run(a, b, p) for (a, b), p in found.items())


def test_runs_are_those_found_by_comparing_every_shift():
    rng = random.Random(0)
    for _ in range(300):
        items = [rng.randrange(rng.choice([2, 3])) for _ in range(rng.randrange(0, 23))]
        assert tandem_repeats(items) == by_comparison(items)


def test_a_planted_unit_is_found_with_its_period_and_count():
    run = max(tandem_repeats("xy" + "ABC" * 5 + "z"), key=lambda r: r.stop - r.start)
    assert run == Run(2, 17, 3) and run.copies == 5


def test_suffixes_are_sorted_and_their_common_prefixes_counted():
    text = "mississippi"
    order = sorted(set(text), key=text.index)
    suffixes = suffix_array(text).tolist()
    assert suffixes == sorted(range(len(text)), key=lambda i: [order.index(c) for c in text[i:]])
    common = [0] + [
        next((k for k, (x, y) in enumerate(zip(text[a:], text[b:], strict=False)) if x != y), min(11 - a, 11 - b))
        for a, b in itertools.pairwise(suffixes)
    ]
    assert lcp_array(text, np.array(suffixes)).tolist() == common


SOURCE = "import os\n" + "".join(f"a{i} = {i}\nprint(a{i})\nif a{i}:\n    b = {i} + 1\n" for i in range(5))


@pytest.mark.parametrize("kind", ["ast", "tokenize"])
def test_statements_of_the_same_shape_are_one_planted_unit(kind, tmp_path):
    result = structural_repetition(SOURCE, kind=kind)
    run = result.longest
    assert (run.period, run.copies, result.lines[run.start]) == (4, 5, 2)
    assert len(result.rules) == 21 and result.covered == pytest.approx(20 / 21)
    assert result.control_covered.mean() < result.covered
    assert load_result(result.save(tmp_path / "code.safetensors")) == result
    assert list(result.figure().data[0].x) == [2, 21]


def test_source_that_breaks_off_is_read_as_far_as_it_goes():
    broken = SOURCE + "x = (1,"
    rules, stopped = rules_of(broken, "tokenize")
    assert len(rules) == 21 and "after 21 statements" in stopped
    with pytest.raises(ValueError, match="does not parse at line 22"):
        rules_of(broken, "ast")
    with pytest.raises(ValueError, match="without a whole statement"):
        structural_repetition("# nothing", kind="ast")


def test_rules_keep_structure_and_drop_names():
    (one, two), _ = rules_of("total = price * 2\nsum_ = cost * 3\n")
    assert one.rule == two.rule == "Assign(Name, BinOp)"
    (one, two), _ = rules_of("total = price * 2\ntotal = price + 2\n", "tokenize")
    assert one.rule == "NAME = NAME * NUMBER" and two.rule == "NAME = NAME + NUMBER"


def test_a_loop_has_the_shortest_period_and_the_earliest_onset():
    assert tail_loop("xyz" + "ABC" * 4) == Loop(3, 3)
    assert tail_loop("q" + "A" * 9) == Loop(1, 1)
    # The turn before the first whole copy belongs to it.
    assert tail_loop("xyzBC" + "ABC" * 4) == Loop(3, 3)
    assert tail_loop("ABC" * 4 + "x") is None
    assert tail_loop("xABCABC") is None
    assert tail_loop("AAA") is None and tail_loop("AAA", min_items=3) == Loop(1, 0)
    rng = random.Random(1)
    found = []
    for _ in range(200):
        items = [rng.randrange(3) for _ in range(7)] + [rng.randrange(3) for _ in range(rng.randrange(1, 4))] * 4
        found.append(tail_loop(items))
        assert found[-1] == by_definition(items)
    assert 20 < found.count(None) < 180


def by_definition(items, copies=3, at_least=8):
    n = len(items)
    for period in range(1, n):
        for onset in range(n):
            long_enough = n - onset >= max(copies * period, at_least)
            if long_enough and all(items[i] == items[i - period] for i in range(onset + period, n)):
                return Loop(period, onset)
    return None
