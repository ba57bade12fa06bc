"""Oracle: the result file a command writes, opened again, against the analysis asked for in Python."""

import numpy as np
import pytest

import strobe
from strobe.cli import main
from strobe.core.result import load_result
from strobe.probes.dynamics import driven_lyapunov_spectrum
from strobe.probes.dynamics.case_studies import CASES, bundled

TEXT = "def area(r):\n    return 3.14159 * r * r\n\n\nclass Circle:\n    pass\n"


def test_exponents_are_those_of_the_probe(tmp_path, capsys):
    out = tmp_path / "exponents.html"
    assert main(["dynamics", "exponents", "mamba2-python", "--text", TEXT[:30], "--layer", "1", "--out", str(out)]) == 0
    expected = driven_lyapunov_spectrum(strobe.load("mamba2-python"), TEXT[:30], layer=1)
    np.testing.assert_allclose(load_result(out.with_suffix(".safetensors")).exponents, expected.exponents)
    assert "control: largest" in capsys.readouterr().out


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
