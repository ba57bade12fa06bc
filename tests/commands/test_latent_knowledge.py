"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json

import pytest

from strobe import cli
from strobe.probes.latent_knowledge import LatentKnowledge


@pytest.fixture
def problems(tmp_path):
    def told(name, n, seed):
        return [{"prompt": [name, 7 + (i * seed) % 9, 5 + i % 2], "true": i % 2 == 0} for i in range(n)]

    file = tmp_path / "mine.json"
    parts = {"train": {"Alice": told(1, 24, 5)}, "test": {"Alice": told(1, 20, 7), "Bob": told(2, 20, 7)}}
    file.write_text(json.dumps({"answers": [[4], [3]], **parts}))
    return file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from strobe.models import HookedLM, ModelConfig, save_checkpoint

    folder = tmp_path_factory.mktemp("models") / "tiny"
    options = {"gru": {"hidden": 8}, "attention": {"n_heads": 2}}
    config = ModelConfig(d_model=8, d_vocab=23, layers=["gru", "attention"], mixer_options=options, mlp="none")
    save_checkpoint(HookedLM(config, name="tiny"), folder)
    return folder


def strobe(*arguments):
    return cli.main([str(a) for a in arguments])


def test_it_writes_what_the_library_finds(tiny, problems, tmp_path, capsys):
    from strobe.models import load_checkpoint
    from strobe.probes.latent_knowledge import latent_knowledge, load_problems

    out = tmp_path / "know.json"
    options = ("--problems", problems, "--probes", "mean", "crc", "--test-in", "Alice", "--seed", 3)
    assert strobe("latent-knowledge", tiny, *options, "--out", out) == 0
    kept = LatentKnowledge.load(tmp_path / "know.safetensors")
    expected = latent_knowledge(load_checkpoint(tiny), load_problems(problems), probes=["mean", "crc"], seed=3)
    assert (kept.scores == expected.scores).all() and (kept.untrained == expected.untrained).all()
    assert kept.auroc()[0, 0, :, 1].min() > 0.7, "the last token says it"
    figure = json.loads(out.read_text())
    assert figure["layout"]["title"]["text"] == "Probes at resid_post, fitted in Alice, tested in Alice"
    said = capsys.readouterr().out
    assert "the model's own answer is true for" in said and f"wrote {out}" in said


def test_the_carry_and_the_tables_of_one_layer(tiny, problems, tmp_path):
    out = tmp_path / "know.json"
    options = ("--problems", problems, "--probes", "mean", "--point", "carry", "--layers", 0, "--transfer")
    assert strobe("latent-knowledge", tiny, *options, "--out", out) == 0
    assert json.loads(out.read_text())["layout"]["title"]["text"] == "Transfer between contexts at carry of layer 0"


def test_a_model_without_problems_is_told_so(tiny, tmp_path, capsys):
    assert strobe("latent-knowledge", tiny, "--out", tmp_path / "k.json") != 0
    assert "was not trained on quirky_sums" in capsys.readouterr().err
