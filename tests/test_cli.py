"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from strobe import cli

TEXT = "def area(r):\n    return r * 2"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    file = folder.parent / "tokenizer.json"
    train_tokenizer([TEXT] * 3, 262).save(str(file))
    options = {"mamba2": {"heads": 2, "head_dim": 4, "state": 3}, "attention": {"n_heads": 2}}
    config = ModelConfig(d_model=8, d_vocab=262, layers=["mamba2", "attention"], mixer_options=options, mlp="none")
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name="tiny"), folder)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROBE_HOME", str(tmp_path / "home"))


def strobe(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys; from strobe import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'streamlit', 'plotly', 'numpy', 'pandas', 'transformers'}\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("[]")
    for command in ("app", "models", "info", "lens", "states", "train", "doctor"):
        assert f"\n    {command} " in done.stdout


def test_info_says_what_the_model_is(tiny, capsys):
    assert strobe("info", tiny, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == ["Mamba2", "Attention"]
    assert found["Recurrent blocks"] == "0"
    assert len(found["Weights (SHA-256)"]) == 64
    assert strobe("info", tiny) == 0
    assert "1 × Mamba2, 1 × Attention" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["html", "json", "csv", "safetensors"])
def test_states_writes_the_trace_the_library_gives(tiny, suffix, tmp_path, capsys):
    from strobe.models import load_checkpoint
    from strobe.probes.states import StateTrace, state_trace

    out = tmp_path / f"trace.{suffix}"
    assert strobe("states", tiny, "--text", TEXT, "--layer", 0, "--out", out) == 0
    kept = StateTrace.load(tmp_path / "trace.safetensors")
    expected = state_trace(load_checkpoint(tiny), TEXT, 0)
    np.testing.assert_array_equal(kept.norms, expected.norms)
    assert out.stat().st_size > 0
    said = capsys.readouterr().out
    assert expected.provenance.weights_hash in said
    assert "control: same tokens in shuffled order" in said
    assert f"wrote {out}" in said


def test_states_edits_as_asked(tiny, tmp_path, capsys):
    from strobe.probes.states import StateIntervention

    out = tmp_path / "edit.html"
    asked = (
        "--edit",
        "scale",
        "--value",
        "-2",
        "--position",
        "3",
        "--new-tokens",
        "2",
        "--controls",
        "3",
        "--seed",
        "5",
    )
    assert strobe("states", tiny, "--text", TEXT, "--layer", 0, *asked, "--out", out) == 0
    result = StateIntervention.load(tmp_path / "edit.safetensors")
    settings = result.provenance.settings
    assert (settings["kind"], settings["value"], settings["position"], result.provenance.seed) == ("scale", -2.0, 3, 5)
    assert len(result.runs) == 5
    assert [len(c) for c in result.continuations] == [2, 2, 2]
    said = capsys.readouterr().out
    assert "untouched:" in said
    assert "median" in said


def test_lens_reads_trains_and_uses_what_it_trained(tiny, tmp_path, capsys):
    from strobe.probes.lens import LensTrajectory

    out = tmp_path / "lens.json"
    assert strobe("lens", tiny, "--text", TEXT, "--out", out) == 0
    assert "no tuned lens for this model" in capsys.readouterr().out
    assert LensTrajectory.load(tmp_path / "lens.safetensors").lenses == ("logit",)
    assert strobe("lens", tiny, "--text", TEXT, "--out", out, "--train", "--steps", 3, "--statistic", "entropy") == 0
    assert "entropy" in json.loads(out.read_text())["layout"]["title"]["text"]
    capsys.readouterr()
    assert strobe("lens", tiny, "--text", TEXT, "--out", out) == 0
    assert "tuned lens: trained here" in capsys.readouterr().out
    assert LensTrajectory.load(tmp_path / "lens.safetensors").lenses == ("tuned", "logit")


def test_text_comes_from_a_file_too(tiny, tmp_path):
    (tmp_path / "t.txt").write_text(TEXT)
    assert strobe("states", tiny, "--text-file", tmp_path / "t.txt", "--layer", 0, "--out", tmp_path / "o.csv") == 0
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    assert strobe("states", tiny, "--text-file", tmp_path / "t.txt", "--layer", 0, "--out", tmp_path / "o.csv") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "no-such-model"), "there is no bundled model and no folder of that name"),
        (("states", "TINY", "--text", " ", "--layer", "0", "--out", "OUT/x.html"), "the text is empty"),
        (("states", "TINY", "--text", "a", "--layer", "1", "--out", "OUT/x.html"), "layers with one: 0"),
        (("states", "TINY", "--text", "a", "--layer", "0", "--out", "OUT/x.gif"), "suffix '.gif'"),
        (("states", "TINY", "--text", "a", "--layer", "0", "--out", "OUT/no/x.html"), "there is no folder"),
        (("states", "TINY", "--text", "a", "--layer", "0", "--value", "2", "--out", "OUT/x.html"), "does not use it"),
        (
            (
                "states",
                "TINY",
                "--text",
                "a",
                "--layer",
                "0",
                "--edit",
                "zero",
                "--position",
                "9",
                "--out",
                "OUT/x.html",
            ),
            "position 9",
        ),
        (
            ("lens", "TINY", "--text", "a", "--lens", "OUT/none.safetensors", "--out", "OUT/x.html"),
            "which is not there",
        ),
        (("lens", "TINY", "--text", "a", "--logit", "--train", "--out", "OUT/x.html"), "give one of them"),
        (("train", "no-such-recipe", "--out", "OUT/m"), "there is no recipe 'no-such-recipe'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, tiny, tmp_path, capsys):
    given = [a.replace("TINY", str(tiny)).replace("OUT", str(tmp_path)) for a in arguments]
    assert strobe(*given) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert said.startswith(f"strobe {arguments[0]}: ")
    assert not list(tmp_path.glob("x.*"))
    with pytest.raises((ValueError, IndexError)):
        strobe(*given, "--debug")


def test_a_fault_of_ours_is_told_apart(monkeypatch, capsys):
    from strobe.commands import models

    def broken(args, say):
        raise KeyError("x")

    monkeypatch.setattr(models, "run", broken)
    assert strobe("models") == 1
    assert "--debug shows where" in capsys.readouterr().err


def test_doctor_names_every_family_and_admits_what_is_missing(capsys, monkeypatch):
    from strobe.kernels import families

    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    assert strobe("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["scan backends"]) == set(families())
    assert "reference" in found["scan backends"]["gru"]
    assert found["figures"]["browser"].startswith("none")
    assert found["versions"]["strobe"]
    assert found["Hugging Face"]


def test_models_lists_the_bundled_ones(capsys):
    import strobe as package

    assert strobe("models", "--json") == 0
    assert sorted(json.loads(capsys.readouterr().out)) == package.available()
