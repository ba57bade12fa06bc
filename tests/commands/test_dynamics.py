"""Oracle: the result file a command writes, opened again, against the analysis asked for in Python."""

import numpy as np
import pytest
from cutting import ctrl_c_at

import strobe
from strobe.cli import main
from strobe.core.result import load_result
from strobe.probes.dynamics import case_studies, driven_lyapunov_spectrum
from strobe.probes.dynamics.case_studies import CASES, bundled
from strobe.probes.dynamics.kept_run import KeptRun

TEXT = "def area(r):\n    return 3.14159 * r * r\n\n\nclass Circle:\n    pass\n"


def test_exponents_are_those_of_the_probe(tmp_path, capsys):
    out = tmp_path / "exponents.html"
    assert main(["dynamics", "exponents", "mamba2-python", "--text", TEXT[:30], "--layer", "1", "--out", str(out)]) == 0
    expected = driven_lyapunov_spectrum(strobe.load("mamba2-python"), TEXT[:30], layer=1)
    np.testing.assert_allclose(load_result(out.with_suffix(".safetensors")).exponents, expected.exponents)
    assert "control: largest" in capsys.readouterr().out


def test_on_ctrl_c_the_exponents_over_the_positions_counted_are_written(tmp_path, capsys, monkeypatch):
    from tiny_text import save_tiny_gru

    tiny, out = save_tiny_gru(tmp_path / "tiny", TEXT * 9, 258), tmp_path / "e.html"
    ctrl_c_at(monkeypatch, 1)
    # It ends at the step after.
    assert main(["dynamics", "exponents", str(tiny), "--text", TEXT * 10, "--out", str(out)]) == 130
    kept = load_result(out.with_suffix(".safetensors"))
    assert kept.partial.startswith("cut short after 512 of ") and len(kept.control) and out.is_file()
    assert "stopped; what was found by then" in capsys.readouterr().out


def test_on_ctrl_c_it_is_written_how_far_the_trainings_of_a_case_study_came(tmp_path, capsys, monkeypatch):
    def make(name, progress, keep):
        # A study whose one training does nothing: what is kept of it does not depend on that.
        loop = KeptRun(keep, progress, total=50).loop("a", 50, {"study": name})
        for _ in loop:
            loop.did(1.0, "training")

    monkeypatch.setattr(case_studies, "make", make)
    out, kept = tmp_path / "c.html", tmp_path / "kept"
    ctrl_c_at(monkeypatch, 3)
    asked = ["dynamics", "case", "lorenz", "--train", "--out", str(out)]
    assert main([*asked, "--keep", str(kept)]) == 130
    made = load_result(out.with_suffix(".safetensors"))
    assert type(made).__name__ == "UnfinishedStudy" and made.name == "lorenz" and made.made == {"a": 4}
    assert "stopped; what was found by then" in capsys.readouterr().out
    # Not kept anywhere, there is nothing to write.
    for file in (out, out.with_suffix(".safetensors")):
        file.unlink()
    ctrl_c_at(monkeypatch, 3)
    assert main(asked) == 130 and sorted(p.name for p in tmp_path.iterdir()) == ["kept"]


@pytest.mark.parametrize("what", ["timescales", "modes", "waves"])
def test_on_ctrl_c_while_the_text_is_read_nothing_is_left(what, tmp_path, monkeypatch):
    from tiny_text import save_tiny_gru

    tiny = save_tiny_gru(tmp_path / "tiny", TEXT * 9, 258)
    ctrl_c_at(monkeypatch, 1)
    assert main(["dynamics", what, str(tiny), "--text", TEXT, "--out", str(tmp_path / "r.html")]) == 130
    assert not list(tmp_path.glob("r.*"))


@pytest.mark.parametrize(
    ("what", "kind"), [("timescales", "Autocorrelation"), ("modes", "DynamicModes"), ("waves", "Waves")]
)
def test_the_carry_of_a_layer_is_analysed(what, kind, tmp_path, capsys):
    out = tmp_path / "result.safetensors"
    extra = ["--rank", "3"] if what == "modes" else []
    text = TEXT * 3
    assert main(["dynamics", what, "gru-python", "--text", text, "--layer", "0", "--out", str(out), *extra]) == 0
    result = load_result(out)
    assert type(result).__name__ == kind
    assert result.provenance.model == "gru-python"
    assert "the carry of layer 0 of gru-python" in capsys.readouterr().out


def test_a_case_study_is_opened_and_the_list_is_the_package_s(tmp_path, capsys):
    out = tmp_path / "onion.csv"
    assert main(["dynamics", "case", "onion", "--out", str(out)]) == 0
    assert load_result(out.with_suffix(".safetensors")) == bundled("onion")
    assert bundled("onion").found in capsys.readouterr().out
    for name in CASES:
        assert main(["dynamics", "case", name, "--out", str(tmp_path / "x.json")]) == 0


def test_what_cannot_be_is_said(tmp_path, capsys):
    asked = ["dynamics", "waves", "transformer-python", "--text", TEXT, "--out", str(tmp_path / "x.json")]
    assert main(asked) != 0
    assert "no recurrent layer" in capsys.readouterr().err
    kept = ["dynamics", "case", "onion", "--keep", str(tmp_path / "kept"), "--out", str(tmp_path / "x.json")]
    assert main(kept) != 0
    assert "without --train" in capsys.readouterr().err
