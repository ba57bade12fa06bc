"""Oracle: the format itself, written here with plain torch modules as the tuned-lens package does, and numpy's
printout.

``params.pt`` is the state dict of a list of ``nn.Linear``; a translator is ``h + linear_i(h)``.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from strobe.core import CheckpointError
from strobe.probes.lens import TunedLens, load_tuned_lens_format, model_readout, save_tuned_lens_format
from strobe.probes.lens.tuned_lens_format import unembed_hash


def write(folder: Path, model: Any, *, bias: bool = True, **changes: Any) -> nn.ModuleList:
    translators = nn.ModuleList(nn.Linear(8, 8, bias=bias) for _ in range(2))
    torch.save(translators.state_dict(), folder / "params.pt")
    config = {
        "base_model_name_or_path": "small",
        "d_model": 8,
        "num_hidden_layers": 2,
        "bias": bias,
        "base_model_revision": None,
        "unembed_hash": unembed_hash(model_readout(model)),
        "lens_type": "linear_tuned_lens",
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    return translators


@pytest.mark.parametrize("bias", [True, False])
def test_a_directory_of_the_package_is_read(small: Any, tmp_path: Path, bias: bool) -> None:
    theirs = write(tmp_path, small, bias=bias)
    lens = load_tuned_lens_format(tmp_path, small)
    h = torch.randn(5, 8)
    for layer in range(2):
        assert torch.allclose(lens.transform(h, layer), h + theirs[layer](h), atol=1e-6)
    assert lens.trajectory(small, torch.arange(9)).kl.shape == (2, 3, 9)


def test_what_is_written_is_what_the_package_reads(small: Any, tmp_path: Path) -> None:
    lens = TunedLens.untrained(small)
    lens.translators.weight.normal_()
    lens.translators.bias.normal_()
    save_tuned_lens_format(lens, tmp_path / "lens", small)
    theirs = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
    theirs.load_state_dict(torch.load(tmp_path / "lens" / "params.pt", weights_only=True))
    h = torch.randn(5, 8)
    assert torch.allclose(lens.transform(h, 1), h + theirs[1](h), atol=1e-6)
    config = json.loads((tmp_path / "lens" / "config.json").read_text())
    keys = "base_model_name_or_path d_model num_hidden_layers bias base_model_revision unembed_hash lens_type"
    assert set(config) == set(keys.split())
    again = load_tuned_lens_format(tmp_path / "lens", small)
    assert torch.equal(again.translators.weight, lens.translators.weight)


def test_the_hash_is_of_numpys_printout(toy: Any) -> None:
    model = toy(torch.randn(2, 2), [lambda x: x], torch.tensor([[0.0, 1.0], [2.0, 3.04]]))
    assert unembed_hash(model_readout(model)) == hashlib.sha256(b"[[0. 1.]\n [2. 3.]]").hexdigest()


class _Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_with_code_is_refused_and_its_code_not_run(small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, small)
    torch.save({"0.weight": _Bomb()}, tmp_path / "params.pt")
    with pytest.raises(CheckpointError, match=r"without running code in it; torch refused it \(UnpicklingError"):
        load_tuned_lens_format(tmp_path, small)
    assert not (tmp_path / "exploded").exists()
    # And it is a bomb.
    torch.load(tmp_path / "params.pt", weights_only=False)
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"unembed_hash": "0" * 64}, ValueError, "made for the unembedding 000000000000 of small; that of small is"),
        (
            {"unembed_hash": None, "base_model_name_or_path": "gpt2"},
            ValueError,
            "no hash to compare; the model is small",
        ),
        ({"num_hidden_layers": 3}, ValueError, "it has 3 layers of width 8, the model 2 of 8; load it with small"),
        ({"lens_type": "mlp"}, CheckpointError, "it is a 'mlp', not supported"),
        ({"bias": False}, CheckpointError, "0.bias is .*, wanted nothing of that name"),
    ],
)
def test_a_lens_that_does_not_fit_is_refused(
    small: Any, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    write(tmp_path, small, **({} if changes == {"bias": False} else changes))
    if changes == {"bias": False}:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(error, match=message):
        load_tuned_lens_format(tmp_path, small)
    if "unembed_hash" in changes:
        assert load_tuned_lens_format(tmp_path, small, verify=False).n_layers == 2


def test_a_directory_that_is_not_whole_is_refused(small: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_tuned_lens_format(tmp_path, small)
    write(tmp_path, small)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_tuned_lens_format(tmp_path, small)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks"):
        load_tuned_lens_format(tmp_path, small)
    write(tmp_path, small)
    (tmp_path / "params.pt").unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        load_tuned_lens_format(tmp_path, small)
