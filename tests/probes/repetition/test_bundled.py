"""Oracle: the autoencoder and the model bundled now, against what the bundled features say they were found with."""

import numpy as np
import pytest

from strobe.models import zoo
from strobe.models.checkpoint import load_checkpoint
from strobe.probes.repetition import RepetitionFeatures
from strobe.probes.sae import SparseAutoencoder

NAMES = [n for n in zoo.available() if (zoo.folder(n) / "repetition.safetensors").is_file()]


def test_a_transformer_and_a_recurrent_model_have_theirs():
    assert {"mamba2-python", "transformer-python"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bundled_features_belong_to_the_bundled_autoencoder_and_model(name):
    path = zoo.folder(name) / "repetition.safetensors"
    found, sae = RepetitionFeatures.load(path), SparseAutoencoder.bundled(name)
    assert path.stat().st_size < 200_000
    assert found.provenance.settings["autoencoder"] == sae.weights_hash()
    assert found.provenance.weights_hash == load_checkpoint(zoo.folder(name)).weights_hash()
    assert found.hook_name == sae.hook_name and found.delta.shape == (sae.d_sae,)
    assert np.isfinite(found.loop_scores).all() and np.isfinite(found.held_out_loss).all()
    # Claimed only where it is above every ordinary feature.
    for scores, ordinary, said in zip(found.scores, found.ordinary_scores, found.confirmed_by, strict=True):
        assert (scores.mean(1)[said] > ordinary.mean(1).max()).all() and (scores.mean(1)[said] >= 0.4).all()
