"""Oracle: the page read by a parser and by Chromium, and the results kept beside it against the probes asked alone."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from strobe import cli
from strobe.core.result import load_result

NAMES = ["lens", "steering", "features", "geometry", "collapse", "fixed-points"]
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a page asks others for, its headings, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.sections: list[str] = []
        self.scripts = 0
        self.policy = ""
        self.words: list[str] = []
        self._skip = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.outside += [
            v for k, v in attrs if k in ("src", "href", "data", "action") and not (v or "").startswith("#")
        ]
        self.scripts += tag == "script"
        self._skip = tag in ("script", "style")
        if tag == "section":
            self.sections.append(given["id"])
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.words.append(data)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny recurrent and a tiny attention model of bytes; their names are hostile."""
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    root = tmp_path_factory.mktemp("models")
    file = root / "tokenizer.json"
    train_tokenizer(["def area(radius):\n    return radius\n" * 40], 260).save(str(file))
    mamba2 = {"heads": 2, "head_dim": 4, "state": 4, "groups": 1}
    made = {}
    for kind, options in (("mamba2", mamba2), ("attention", {"n_heads": 2})):
        sizes = {"d_model": 8, "d_vocab": 260, "layers": [kind] * 2, "mixer_options": {kind: options}, "n_ctx": 32}
        made[kind] = root / f"{kind} & co"
        save_checkpoint(HookedLM(ModelConfig(**sizes, mlp="none"), tokenizer=load_tokenizer(file)), made[kind])
    return made


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The same analyses at sizes that a test can wait for."""
    monkeypatch.setenv("STROBE_HOME", str(tmp_path / "home"))
    from strobe.dashboards.report import collapse, features, fixed_points, geometry, lens, steering

    for module, sizes in (
        (lens, {"_JUDGED": 256}),
        (steering, {"_PAIRS": 4, "_QUESTIONS": 2, "_RANDOM": 1}),
        (features, {"_JUDGED": 256, "_CONTINUED": 12}),
        (geometry, {"_BANK": 256, "_JUDGED": 16}),
        (collapse, {"_MOST": 128}),
        (fixed_points, {"_INITIAL": 16, "_TOKENS": 4, "_TIMES": 40}),
    ):
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)


def report(model, out, *more):
    return cli.main(["report", str(model), "--out", str(out), *map(str, more)])


@pytest.mark.slow  # six analyses
@pytest.mark.parametrize(("kind", "names"), [("mamba2", NAMES), ("attention", [NAMES[0], *NAMES[3:]])])
def test_one_page_holds_all_that_is_asked_and_asks_nobody(kind, names, models, small, tmp_path, capsys):
    out, kept = tmp_path / "report.html", tmp_path / "results"
    asked = ("--results", kept, "--text", f"def f():\n    {HOSTILE}", "--seed", 3)
    if names != NAMES:
        asked = (*asked, "--only", *names)
    assert report(models[kind], out, *asked) == 0
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert page.sections == names
    assert page.outside == [] and "default-src 'none'" in page.policy
    assert text.count("plotly.js v") == 1
    said = "".join(page.words)
    # What the model was shown is there to read, and nowhere as markup.
    assert f"    {HOSTILE}" in said and HOSTILE not in text
    results = {file.stem: load_result(file) for file in kept.glob("*.safetensors")}
    recurrent = kind == "mamba2"
    apart = (
        {"steering-sweep", "head-scores", "greedy-loop", "carry-diagnostics", "mitigations", "held-stack"}
        if recurrent
        else {"position-loss", "depth-dynamics", "layer-exponents", "depth-orbit"}
    )
    assert set(results) == {"lens-trajectory", "lens-evaluation", "layer-geometry"} | apart
    for result in results.values():
        assert result.provenance.control and result.provenance.control in said
        assert result.provenance.seed in (3, None)
    check_against_the_probes(models[kind], results, recurrent)
    # A second run makes nothing again, and ends in the same page but for its time.
    stamps = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    capsys.readouterr()
    assert report(models[kind], out, *asked) == 0
    assert capsys.readouterr().out.count("kept from an earlier run") == len(results)
    assert {file: file.stat().st_mtime_ns for file in kept.iterdir()} == stamps
    timeless = [re.sub(r"Made \S+ by", "", t) for t in (text, out.read_text(encoding="utf-8"))]
    assert timeless[0] == timeless[1]


def check_against_the_probes(folder, results, recurrent):
    import strobe
    from strobe.probes.fixed_points import held_stack, layer_exponents
    from strobe.probes.lens import LogitLens

    model = strobe.load(folder)
    ids = model.tokenize(f"def f():\n    {HOSTILE}")[0][0].tolist()
    np.testing.assert_array_equal(results["lens-trajectory"].kl, LogitLens().trajectory(model, ids, seed=3).kl)
    if recurrent:
        held = held_stack(model, [ids[-1]], seed=3)
        np.testing.assert_array_equal(results["held-stack"].eigenvalues, held.eigenvalues)
        assert results["carry-diagnostics"].train_length == 32 and results["carry-diagnostics"].time == 128
    else:
        alone = layer_exponents(model, ids[:4], seed=3)
        np.testing.assert_array_equal(results["layer-exponents"].exponents, alone.exponents)


def test_what_does_not_apply_says_why(small, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert report("flipflop-elman16", out, "--only", "lens", "steering", "features", "geometry") == 0
    page = Page(out.read_text(encoding="utf-8"))
    said = " ".join(page.words)
    assert said.count("This does not apply.") == 4
    assert "reads 3 real numbers a step and predicts no token" in said
    assert "came without a tokenizer to read them" in said
    assert page.sections == NAMES[:4]


def test_a_layer_that_never_rests_is_an_answer(small, tmp_path, capsys, monkeypatch):
    from strobe.probes.fixed_points import settling

    # Under a held 1 it goes round for ever; enough steps to tell.
    monkeypatch.setattr(settling, "_SETTLING_STEPS", 100)
    out = tmp_path / "report.html"
    assert report("parity-gru", out, "--only", "fixed-points", "--seed", 0) == 0
    said = "".join(Page(out.read_text(encoding="utf-8")).words)
    assert "Not every layer comes to rest" in said and "Points of one layer" in said


def test_an_analysis_that_fails_loses_none_of_the_others(small, models, tmp_path, capsys, monkeypatch):
    import strobe.probes.fixed_points as probe

    def broken(*_, **__):
        raise ZeroDivisionError("a <bug> of ours")

    monkeypatch.setattr(probe, "held_stack", broken)
    out, kept = tmp_path / "report.html", tmp_path / "results"
    asked = ("--only", "lens", "fixed-points", "--results", kept)
    assert report(models["mamba2"], out, *asked) == 2
    assert "1 of 2 analyses failed, in whole or in part: fixed-points" in capsys.readouterr().err
    text = out.read_text(encoding="utf-8")
    said = "".join(Page(text).words)
    assert "ZeroDivisionError: a <bug> of ours" in said and "<bug>" not in text
    assert "Lens trajectory of" in said
    assert {f.stem for f in kept.glob("*.safetensors")} == {"lens-trajectory", "lens-evaluation"}
    # Mended, the same command makes what is missing, and only that; a damaged file is made again.
    monkeypatch.undo()
    (kept / "lens-evaluation.safetensors").write_bytes(b"half")
    assert report(models["mamba2"], out, *asked) == 0
    told = capsys.readouterr().out
    assert told.count("kept from an earlier run") == 1 and "made again" in told and "held-stack: " in told


def test_results_of_another_report_are_not_mixed_in(small, models, tmp_path, capsys):
    kept, out = tmp_path / "results", tmp_path / "report.html"
    assert report(models["mamba2"], out, "--only", "fixed-points", "--results", kept) == 0
    assert json.loads((kept / "report.json").read_text())["seed"] == 0
    for other, differs in (((models["mamba2"], "--seed", 1), "seed"), ((models["attention"],), "weights"),
                           ((models["mamba2"], "--text", "x = 1"), "ids")):  # fmt: skip
        assert report(other[0], out, *other[1:], "--only", "fixed-points", "--results", kept) == 2
        said = capsys.readouterr().err
        assert differs in said.split("differs in")[1] and "give another folder" in said
    (kept / "report.json").unlink()
    assert report(models["mamba2"], out, "--only", "fixed-points", "--results", kept) == 2
    assert "give an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "extra", "said"),
    [
        ("parity-gru", ["--out", "{}/x.pdf"], "a report is a page: .html"),
        ("parity-gru", ["--out", "{}/no/x.html"], "there is no folder"),
        ("parity-gru", ["--out", "{}/x.html", "--text", "abc"], "came without a tokenizer"),
        ("no-such-model", ["--out", "{}/x.html"], "there is no bundled model"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(model, extra, said, tmp_path, capsys):
    assert cli.main(["report", model, *(e.format(tmp_path) for e in extra)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.browser
def test_a_browser_draws_every_figure_and_asks_nobody(small, models, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from strobe.core.export import browser_path

    if browser_path() is None:
        pytest.skip("no Chrome or Chromium on this machine")
    out = tmp_path / "report.html"
    assert report(models["mamba2"], out, "--only", "lens", "fixed-points", "--text", f"x = '{HOSTILE}'") == 0
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        page = browser.new_page()
        asked, wrong = [], []
        page.on("request", lambda r: asked.append(r.url))
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda d: (wrong.append("a dialog"), d.dismiss()))
        page.goto(out.as_uri())
        page.wait_for_function("document.querySelectorAll('figure .main-svg').length > 0", timeout=90_000)
        page.wait_for_function(
            "[...document.querySelectorAll('figure')].every(f => f.querySelector('.main-svg'))", timeout=90_000
        )
        assert page.locator("figure").count() == 4
        assert asked == [out.as_uri()] and wrong == []
        browser.close()
