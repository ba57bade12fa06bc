"""Oracle: the model itself at each step, before its weights were written and read again."""

import pytest
import torch

from strobe.core.errors import CheckpointError
from strobe.models import HookedLM, ModelConfig, save_checkpoint, zoo
from strobe.models.zoo.training_steps import has_steps, load_steps, save_steps


def build():
    options = {"elman": {"hidden": 5, "project_out": False}}
    return HookedLM(
        ModelConfig(
            d_model=5,
            d_vocab=3,
            d_input=3,
            layers=["elman"],
            mixer_options=options,
            mlp="none",
            norm="none",
            residual=False,
            tie_embeddings=False,
            seed=2,
        )
    ).eval()


def test_each_step_answers_as_it_did(tmp_path):
    model, inputs = build(), torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    kept, said = {}, {}
    for step in (0, 3, 20):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * step)
            said[step] = model(inputs)
        kept[step] = {name: p.detach().clone() for name, p in model.named_parameters()}
    save_checkpoint(model, tmp_path)
    assert not has_steps(tmp_path)
    save_steps(tmp_path, kept)
    assert has_steps(tmp_path)
    found = load_steps(tmp_path)
    assert [step for step, _ in found] == [0, 3, 20]
    with torch.no_grad():
        for step, again in found:
            # Torch runs a frozen cell by another kernel, which rounds otherwise.
            torch.testing.assert_close(again(inputs), said[step], rtol=1e-5, atol=1e-6)
            assert all(torch.equal(p, kept[step][name]) for name, p in again.named_parameters())
            assert f"after {step} steps" in again.model_name
            assert not any(p.requires_grad for p in again.parameters())


def test_a_model_without_its_steps_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="came without them"):
        load_steps(tmp_path)


def test_the_bundled_one_learns_on_the_way():
    folder = zoo.folder("flipflop-on-its-way")
    inputs = torch.zeros(1, 12, 3)
    inputs[0, 0] = torch.tensor([1.0, -1.0, 1.0])
    with torch.no_grad():
        kept = {step: model(inputs)[0, -1].sign().tolist() for step, model in load_steps(folder)}
    assert kept[600] == [1.0, -1.0, 1.0]
    assert min(kept) == 0
