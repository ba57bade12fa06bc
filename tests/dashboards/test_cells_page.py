"""Oracle: what a user would see, read from the app run headless, against the kept result; counting of subsets."""

from dataclasses import replace
from functools import partial
from math import comb

import numpy as np
import pytest
from page_runs import open_page, run_job
from page_words import charts, titles, words

from strobe.dashboards import cells_work, loading, store
from strobe.dashboards.jobs import Cancelled, runner
from strobe.probes.cells import CellSearch, ErrorTypes, TokenImportance, gate_saturation, token_importance

app = partial(open_page, "cells")
TEXT = "def area(r):\n    return r * 2"
VIEW = {"cells_files": 2, "cells_length": 32}
SETTINGS = {"n_files": 2, "length": 32}


def test_a_search_is_run_kept_and_shown_again_by_its_link(tiny):
    view = {"model": tiny, "text": TEXT, "cells_label": "line position", "cells_rank": 2, **VIEW}
    at = app(**view)
    assert not at.exception and not titles(at)
    key = run_job(at, "cells-run")
    assert key == cells_work.key_of(loading.find(str(tiny)), SETTINGS)
    result = store.reopen(key)
    assert isinstance(result, CellSearch) and result.length == 32 and set(result.layers) == {0, 1}
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception and "cancelled" not in words(other)
    unit = result.unit_name(int(result.best[0, result.label_index("line_position"), 1]))
    assert titles(other) == [
        "The best cell for each label",
        f"{unit} after each token",
        "Every unit and the label line position",
    ]
    assert "**Control:** the whole search again" in words(other)
    # Another number of files is another question.
    assert not titles(app(**{**view, "cells_files": 4}))


def test_a_search_cancelled_in_its_last_control_keeps_the_rest_and_says_so(tiny):
    def stop_when_permuted(done, total, what):
        if "permuted" in what:
            raise Cancelled

    source = loading.find(str(tiny))
    key = cells_work.key_of(source, SETTINGS)
    cells_work.run(key, source.name, SETTINGS, stop_when_permuted)
    at = app(model=tiny, text=TEXT, **VIEW)
    assert not at.exception and len(titles(at)) == 3
    assert "“weights permuted” was run" in words(at)

    def stop_at_once(done, total, what):
        if total > 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        cells_work.run("cells-none", source.name, SETTINGS, stop_at_once)
    assert store.reopen("cells-none") is None


def test_a_transformer_is_said_to_have_no_carry(transformer):
    assert "channels of the **residual stream**" in words(app(model=transformer, text=TEXT, **VIEW))


def test_gates_are_those_of_the_probe_on_the_pages_text(tiny):
    at = app(model=tiny, text=TEXT, cells_view="Gates")
    assert not at.exception and titles(at) == ["Gate saturation"]
    expected = gate_saturation(loading.open_model(str(tiny)).model, TEXT)
    shown = at.dataframe[0].value
    np.testing.assert_allclose(
        shown[["left", "right", "control_right"]], expected.to_frame()[["left", "right", "control_right"]]
    )
    assert "Block 2 carries nothing" in words(at) and "weight in random order" in words(at)


def test_a_model_without_gates_gets_the_probes_reason(transformer):
    at = app(model=transformer, text=TEXT, cells_view="Gates")
    assert not at.exception and not titles(at)
    assert "Gates were to be watched" in words(at) and "use a model with an LSTM" in words(at)


def test_errors_are_sorted_as_a_job_and_kept(tiny):
    asked = {"cells_files_err": 2, "cells_length_err": 32, "cells_order": 3, "cells_counted": 2000}
    view = {"model": tiny, "text": TEXT, "cells_view": "Errors", **asked}
    at = app(**view)
    assert not at.exception and not titles(at)
    key = run_job(at, "cells-run")
    settings = {"n_files": 2, "length": 32, "order": 3, "n_train": 2000}
    assert key == cells_work.key_of(loading.find(str(tiny)), settings, "cell-errors")
    result = store.reopen(key)
    assert isinstance(result, ErrorTypes) and (result.order, result.n_train, result.count[0]) == (3, 2000, 2 * 31)
    other = app(**view)
    assert not other.exception and titles(other) == ["Loss by class of token"]
    np.testing.assert_allclose(other.dataframe[0].value["loss"], result.loss)
    assert not titles(app(**{**view, "cells_order": 4}))


def test_importance_of_the_selected_block_is_kept_with_its_intervals(tiny):
    view = {"model": tiny, "text": TEXT, "cells_view": "Importance", "layer": 1, "cells_share": 0.3}
    at = app(**view)
    assert not at.exception and not titles(at)
    key = run_job(at, "cells-run")
    assert key == cells_work.key_of(loading.find(str(tiny)), {"subject": TEXT, "layer": 1}, "cell-importance")
    result = store.reopen(key)
    assert isinstance(result, TokenImportance) and result.layer == 1
    other = app(**view)
    assert titles(other) == [
        "Importance of each token to the last prediction, block 1",
        "Recurrence intervals, block 1",
    ]
    bars = charts(other)[1]["data"][0]
    assert bars["name"] == "memory put back"
    # A share that leaves one token has no interval, and the probe's reason is shown in its place.
    few = app(**{**view, "cells_share": 0.05})
    assert len(titles(few)) == 1 and "larger share" in words(few)
    attention = app(**{**view, "layer": 2})
    assert not titles(attention) and "Blocks of this model with one: 0, 1" in words(attention)


def test_intervals_of_shuffled_importances_are_those_of_tokens_drawn_at_random(tiny):
    found = token_importance(loading.open_model(str(tiny)).model, TEXT, 0)
    n = len(found.kl)
    kl = np.zeros(n)
    kl[[0, 2, 4, 6, 9]] = 1
    figure = replace(found, kl=kl).interval_figure(5 / n, shuffles=2000)
    seen, chance = figure.data
    assert dict(zip(seen.x, seen.y, strict=True)) | {2: 0.75, 3: 0.25} == dict(zip(seen.x, seen.y, strict=True))
    # Of all choices of 5 among n, the share of gaps that are d: C(n - d, 4) / C(n, 5).
    expected = [comb(n - d, 4) / comb(n, 5) for d in chance.x]
    np.testing.assert_allclose(chance.y, expected, atol=0.015)
    with pytest.raises(ValueError, match="0 shuffles"):
        found.interval_figure(shuffles=0)


def test_transitions_stand_beside_another_models_layer(tiny):
    view = {"model": "mamba2-python", "text": TEXT, "cells_view": "Transitions", "layer": 1}
    at = app(**view, cells_beside="gated-deltanet-python", cells_beside_layer=2)
    assert not at.exception and titles(at) == ["What each token does to the memory"]
    frame = at.dataframe[0].value
    assert list(dict.fromkeys(frame["model"])) == [
        "mamba2-python block 1",
        "gated-deltanet-python block 2",
        "control: mamba2-python, weights permuted",
    ]
    for said, query in {
        "no recurrent carry there; layers": {"model": "transformer-python", "layer": 0, "cells_beside": "gru-python"},
        "no recurrent carry": {"cells_beside": "gated-deltanet-python", "cells_beside_layer": 99},
        "models of one tokenizer": {"model": tiny, "layer": 0, "cells_beside": "gated-deltanet-python"},
    }.items():
        refused = app(**{**view, **query})
        assert not refused.exception and not titles(refused)
        assert said in words(refused)


def test_a_text_that_was_cut_is_not_given_to_another_tokenizer(tiny):
    first, second = loading.open_model(str(tiny)), loading.open_model("gated-deltanet-python")
    ids = tuple(first.model.tokenizer.encode(TEXT)[:5])
    alone = cells_work.transitions([(first, 0)], ids, TEXT)
    assert alone.moduli.shape[:2] == (2, 5)
    with pytest.raises(ValueError, match="gated-deltanet-python cuts the text into other tokens"):
        cells_work.transitions([(first, 0), (second, 0)], ids, TEXT)


def test_models_offered_beside_read_text_and_have_a_carry():
    offered = cells_work.beside()
    assert {"gru-python", "hybrid-python", "mamba2-python", "gated-deltanet-python"} <= set(offered)
    assert not {"transformer-python", "flipflop-gru64"} & set(offered)


def test_cancelled_errors_and_importances_keep_what_was_reached(tiny):
    source = loading.find(str(tiny))

    def stop_at(last):
        def stop(done, total, what):
            if total > 1 and done == last:
                raise Cancelled

        return stop

    settings = {"n_files": 3, "length": 32, "order": 3, "n_train": 2000}
    cells_work.run_errors("cells-some", source.name, settings, stop_at(2))
    kept = store.reopen("cells-some")
    assert isinstance(kept, ErrorTypes) and kept.cut_short == (2, 3) and kept.count[0] == 2 * 31
    cells_work.run_importance("cells-some", source.name, TEXT, 0, stop_at(4))
    kept = store.reopen("cells-some")
    assert isinstance(kept, TokenImportance) and kept.partial.startswith("cut short after 4 of")
    with pytest.raises(Cancelled):
        cells_work.run_errors("cells-none-yet", source.name, settings, stop_at(0))
    assert store.reopen("cells-none-yet") is None
