"""Oracle: the probe asked directly, against what the page of dynamics shows when run headless."""

from functools import partial

import pytest
from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import subtitles, titles

from strobe.dashboards import dynamics_work, loading, store
from strobe.models.zoo.training_steps import load_steps
from strobe.probes.fixed_points import fixed_points, held_fixed_point, layer_swaps

page = partial(open_page, "dynamics")
TEXT = "def area(r):\n    return r * 2"


def test_a_network_of_real_inputs_shows_its_27_points_and_those_under_a_held_pulse():
    at = page(model="flipflop-elman16")
    assert not at.exception
    assert any("27 fixed points: 8 stable node" in c.value for c in at.caption)
    assert len(titles(at)) == 4
    at.slider(key="held-0").set_value(1.0).run()
    model = loading.open_model("flipflop-elman16").model
    expected = fixed_points(model, held=[1.0, 0.0, 0.0], n_initial=256, control=None)
    assert any(f"{len(expected.points)} fixed points" in c.value for c in at.caption)
    assert not at.exception


def test_a_linear_layer_is_solved_for_the_tokens_held(tiny):
    at = page(model=tiny, text=TEXT, layer=0, position=3)
    assert not at.exception
    assert titles(at)[0].startswith("Timescales under a held token, layer 0")
    assert "Timescales of every layer under a held token" in titles(at)
    model = loading.open_model(str(tiny)).model
    ids = model.tokenize(TEXT)[0][0].tolist()
    assert subtitles(at)[0].startswith(f"token {ids[3]} ")
    assert held_fixed_point(model, ids[3], 0).status == ["stable"] * 3
    at.number_input(key="held_turn").set_value(2).run()
    assert subtitles(at)[0].startswith(f"tokens {ids[2:4]} ")


def test_a_nonlinear_layer_is_searched_and_its_basins_are_a_job(tiny):
    at = page(model=tiny, text=TEXT, layer=1, position=3)
    assert any("fixed points:" in c.value for c in at.caption)
    source, ids = loading.find(str(tiny)), loading.open_model(str(tiny)).model.tokenize(TEXT)[0][0].tolist()
    key = dynamics_work.between_key(source, 1, (ids[3],), "basins")
    assert run_job(at, f"{key}-run") == key
    at.run()
    assert not at.exception
    kept = store.reopen(key)
    assert kept.shares.sum() + (kept.labels < 0).mean() == 1
    assert any(
        t.startswith("Where carries of layer 1") for t in titles(page(model=tiny, text=TEXT, layer=1, position=3))
    )


def test_attention_has_no_carry_and_its_depth_can_be_asked(tiny, transformer):
    at = page(model=tiny, text=TEXT, layer=2)
    assert "no recurrent carry" in at.info[0].value
    assert not at.exception
    at = page(model=tiny, text=TEXT, layer=2, depth_ask="Exchange")
    model = loading.open_model(str(tiny)).model
    ids = tuple(model.tokenize(TEXT)[0][0].tolist())[: dynamics_work.MAX_DEPTH_TOKENS]
    key = dynamics_work.depth_key(loading.find(str(tiny)), ids, 2, "exchange")
    assert run_job(at, f"{key}-run") == key
    at.run()
    assert store.reopen(key).swapped.tolist() == layer_swaps(model, list(ids)).swapped.tolist()
    assert any(
        t.startswith("Exchanging the blocks")
        for t in titles(page(model=tiny, text=TEXT, layer=2, depth_ask="Exchange"))
    )
    assert "depth can be its time" in page(model=transformer, text=TEXT).info[0].value


def at_the(step):
    """Whether this is the `step`-th that the search tells of what lies between, after it has its points."""
    seen = []

    def when(done, message):
        if not message.startswith(("loading", "searching")):
            seen.append(done)
        return len(seen) == step

    return when


@pytest.mark.parametrize(
    ("what", "step", "said"),
    [
        ("basins", 3, "cut short after 512 of 2048 carries"),
        ("directions", 2, "cut short after 4 of 12 saddles"),
        ("cycles", 3, "cut short after 1 of 4 lengths"),
        ("curves", 6, "cut short after 5 of 27 points to follow curves from"),
    ],
)
def test_what_lies_between_is_kept_as_far_as_it_came_when_cancelled(monkeypatch, what, step, said):
    key = dynamics_work.between_key(loading.find("flipflop-elman16"), 0, (0.0, 0.0, 0.0), what)
    at = page(model="flipflop-elman16", between=what.capitalize())
    cancelled_at(monkeypatch, dynamics_work, "between", at_the(step))
    assert run_job(at, f"{key}-run") == key
    at.run()
    assert not at.exception
    assert any(f"The run was {said}: they are kept" in w.value for w in at.warning)
    # In the figure too, which may leave the page.
    assert any(text.startswith(said) for text in subtitles(at))
    assert store.reopen(key).partial == said
    assert at.button(key=f"{key}-run").label == "Run again"
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("ask", "step", "said"),
    [("block", 60, "cut short after 60 of 300 steps"), ("exchange", 11, "cut short after 1 of 3 pairs of blocks")],
)
def test_depth_as_time_is_kept_as_far_as_it_came_when_cancelled(monkeypatch, tiny, ask, step, said):
    ids = tuple(loading.open_model(str(tiny)).model.tokenize(TEXT)[0][0].tolist())[: dynamics_work.MAX_DEPTH_TOKENS]
    key = dynamics_work.depth_key(loading.find(str(tiny)), ids, 1, ask)
    at = page(model=tiny, text=TEXT, layer=1, depth_ask=ask.capitalize())
    cancelled_at(monkeypatch, dynamics_work, "depth", lambda done, message: done == step)
    assert run_job(at, f"{key}-run") == key
    at.run()
    assert not at.exception
    assert any(f"The run was {said}: they are kept" in w.value for w in at.warning)
    assert any(text.startswith(said) for text in subtitles(at))
    assert store.reopen(key).partial == said
    monkeypatch.undo()


def test_a_cancelled_search_over_training_keeps_the_steps_it_reached(monkeypatch):
    from strobe.dashboards.jobs import Cancelled

    monkeypatch.setattr(dynamics_work, "N_INITIAL", 16)
    source = loading.find("flipflop-on-its-way")

    def stop_at(reached):
        def tick(done, total, message):
            if done >= reached:
                raise Cancelled

        return tick

    key = dynamics_work.training_key(source)
    with pytest.raises(Cancelled):
        dynamics_work.training(key, str(source.folder), stop_at(0))
    assert store.reopen(key) is None
    result = store.reopen(dynamics_work.training(key, str(source.folder), stop_at(2)).stem)
    steps = [step for step, _ in load_steps(source.folder)]
    assert result.steps.tolist() == steps[:2]
    assert f"cut short after 2 of {len(steps)} checkpoints" in result.summary()
    at = page(model="flipflop-on-its-way")
    assert not at.exception and "Fixed points by saddle index while it learned" in titles(at)
    # All of it can still be asked for.
    assert at.button(key=f"{key}-run").label == "Run again"
