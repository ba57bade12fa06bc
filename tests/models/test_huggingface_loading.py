"""Oracle: the files themselves, broken one way at a time; what loads is held against transformers' full forward."""

import json
import os
import pickle
import re
import shutil

import pytest
import torch
import transformers as tf

from strobe.core.errors import CheckpointError, SeamError
from strobe.core.tolerances import assert_close
from strobe.models.huggingface import load_huggingface, seam_status
from strobe.models.huggingface.loading import families, wrap

CONFIG = {"vocab_size": 23, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
TEXT = "the cat sat on the mat"
tf.logging.disable_progress_bar()


def small():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_heads": 4, "head_dim": 8, "state_size": 4, "n_groups": 2}
    return tf.Mamba2ForCausalLM(tf.Mamba2Config(**sizes, tie_word_embeddings=False, **CONFIG)).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    small().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def refused(folder, *words):
    with pytest.raises(CheckpointError, match=".*".join(map(re.escape, words))):
        load_huggingface(folder)


def rewrite(folder, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_no_configuration(folder):
    (folder / "config.json").unlink()
    refused(folder, "no config.json", "give the folder")


def test_no_such_folder(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights", "model.safetensors")


@pytest.mark.parametrize("kept", [100, 2000])
def test_truncated_weights(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(folder, "not a whole safetensors file", "copy it again")


def test_a_pointer_and_a_web_page(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(folder, "Git LFS pointer", "git lfs pull")
    (folder / "model.safetensors").write_text("<!doctype html><html>log in</html>")
    refused(folder, "web page")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"hidden_size": 3}', "no model_type"),
        ('{"format": "strobe-model"}', "native strobe checkpoint"),
        ("<html>", "web page"),
    ],
)
def test_a_configuration_of_another_kind(folder, text, words):
    (folder / "config.json").write_text(text)
    refused(folder, words)


def test_an_architecture_without_an_adoption_is_told_which_ones_have(folder):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "model_type": "bloom"}))
    refused(folder, "model_type is 'bloom'", "mamba2, bamba")
    (folder / "config.json").write_text(json.dumps({**raw, "model_type": "unheard_of"}))
    refused(folder, "no configuration", "mamba2, bamba")


def test_weights_that_are_not_finite_are_named(folder):
    rewrite(folder, lambda tensors: tensors["backbone.layers.1.mixer.D"].fill_(torch.nan))
    refused(folder, "NaN or infinite", "backbone.layers.1.mixer.D")


def test_tensors_missing_left_over_or_misshapen_are_named(folder, saved):
    rewrite(folder, lambda tensors: tensors.pop("backbone.layers.1.mixer.A_log"))
    refused(folder, "missing: backbone.layers.1.mixer.A_log")
    rewrite(folder, lambda t: t.update({"backbone.layers.1.mixer.A_log": torch.ones(4), "extra": torch.ones(1)}))
    refused(folder, "left over: extra")
    shutil.copy(saved / "model.safetensors", folder)
    rewrite(folder, lambda tensors: tensors.update({"backbone.layers.0.mixer.D": torch.ones(3)}))
    refused(folder, "backbone.layers.0.mixer.D")


def test_an_index_that_lists_an_absent_shard(folder):
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model-00001-of-00002.safetensors", "did not finish")


@torch.no_grad()
def test_shards_load(tmp_path):
    theirs = small()
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    rows = torch.randint(3, 23, (1, 9))
    assert_close(load_huggingface(tmp_path)(rows), theirs(rows, use_cache=False).logits, kind="logits")


@torch.no_grad()
def test_pickled_weights_load_as_tensors_only(folder):
    (folder / "model.safetensors").unlink()
    torch.save(small().state_dict(), folder / "pytorch_model.bin")
    rows = torch.randint(3, 23, (1, 9))
    assert_close(load_huggingface(folder)(rows), small()(rows, use_cache=False).logits, kind="logits")


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")  # torch says so before it refuses
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(folder, tmp_path, protocol):
    (folder / "model.safetensors").unlink()
    harmful = {"lm_head.weight": _Touch(tmp_path / "ran")}
    if protocol == 2:
        torch.save(harmful, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(harmful, protocol=protocol))
    refused(folder, "more than tensors", "safetensors")
    assert not (tmp_path / "ran").exists()
    # The file does run its code for anyone who lets it.
    with (folder / "pytorch_model.bin").open("rb") as file:
        torch.load(file, weights_only=False) if protocol == 2 else pickle.load(file)
    assert (tmp_path / "ran").exists()


@torch.no_grad()
def test_a_folder_with_a_tokenizer_takes_text(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(TEXT.split())])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tf.PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    model = load_huggingface(folder)
    ids = torch.tensor([[words[word] for word in TEXT.split()]])
    assert torch.equal(model.to_tokens(TEXT), ids)
    assert_close(model(TEXT), small()(ids, use_cache=False).logits, kind="logits")
    both = model([TEXT, "the mat"])
    assert_close(both[1, :2], small()(ids[:, [0, 5]], use_cache=False).logits[0], kind="logits")
    made = model.generate(TEXT, 2, temperature=0.0)
    assert made.startswith(TEXT)


def test_a_folder_without_a_tokenizer_takes_token_ids_only(saved):
    with pytest.raises(ValueError, match="without a tokenizer"):
        load_huggingface(saved)("text")


def test_what_was_asked_for_is_what_is_loaded(saved):
    model = load_huggingface(saved, dtype=torch.bfloat16, backend="reference")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert load_huggingface(saved).W_E.dtype == torch.float32
    assert not model.training
    model(torch.tensor([[3, 4, 5]]))
    assert set(model.ran.values()) == {"reference"}


def seam(model, *words):
    with pytest.raises(SeamError, match=".*".join(map(re.escape, words))):
        wrap(model, families.get("mamba2"))


def test_a_tensor_that_their_mixer_lacks():
    model = small()
    del model.backbone.layers[1].mixer.A_log
    seam(model, "backbone.layers.1.mixer", "missing: A_log", "Releases known to work: 5.23.0")


def test_a_tensor_that_nobody_knows():
    model = small()
    model.backbone.layers[0].mixer.gain = torch.nn.Parameter(torch.ones(3))
    seam(model, "backbone.layers.0.mixer", "left over: gain", "5.23.0")


def test_a_tensor_of_another_shape():
    model = small()
    model.backbone.layers[0].mixer.dt_bias = torch.nn.Parameter(torch.ones(5))
    seam(model, "backbone.layers.0.mixer.dt_bias has shape (5,)", "(4,)")


def test_a_mixer_called_otherwise():
    model = small()
    for block in model.backbone.layers:
        block.mixer.__class__ = type("Mamba2Core", (type(block.mixer),), {})
    seam(model, "no block has a Mamba2Mixer", "Mamba2Core", "5.23.0")


def test_a_mixer_with_another_signature(monkeypatch):
    kind = tf.models.mamba2.modeling_mamba2.Mamba2Mixer
    monkeypatch.setattr(kind, "forward", lambda self, hidden_states, positions, attention_mask=None: hidden_states)
    seam(small(), "no argument cache_params")
    assert "cache_params" in seam_status()["mamba2"].problem
    monkeypatch.setattr(kind, "forward", lambda self, hidden_states, cache_params, attention_mask, new: hidden_states)
    seam(small(), "needs new")


def test_a_setting_that_our_mixer_does_not_compute():
    model = small()
    model.backbone.layers[0].mixer.activation = "relu"
    seam(model, "hidden_act is 'relu'", "'silu'")


def test_rwkv_that_was_rescaled_already():
    model = tf.RwkvForCausalLM(tf.RwkvConfig(hidden_size=16, rescale_every=1, **CONFIG)).eval()
    model(torch.tensor([[3]]))
    with pytest.raises(SeamError, match="divided its weights"):
        wrap(model, families.get("rwkv"))


def test_the_status_names_every_family_and_what_replaces_what(monkeypatch):
    status = seam_status()
    assert set(status) == set(families.names())
    assert all(one.works and one.releases for one in status.values())
    assert status["rwkv"].replaces == ("RwkvSelfAttention", "RwkvFeedForward")
    assert status["rwkv"].mixers == ("RWKV4", "ChannelMix")
    monkeypatch.delattr(tf.models.mamba2.modeling_mamba2, "Mamba2Mixer")
    assert "no Mamba2Mixer" in seam_status()["mamba2"].problem
