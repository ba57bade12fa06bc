"""Oracle: models whose blocks are of a known kind, planted; the same numbers from another order of the work.

A planted block goes through the whole analysis: streaming, neighbours, maps, replacement, correlation.
"""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped
from live_bytes import LiveBytes
from torch import nn

from strobe.core import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.geometry import LayerGeometry, Sequences, functional, layer_geometry
from strobe.probes.geometry import probe as module
from strobe.probes.geometry.sequences import library_sequences
from strobe.probes.lens.readout import residuals

VOCAB, D = 61, 12
COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"n_bank": 220, "n_judged": 40, "k": 24, "rank": 2, "n_bootstrap": 60}
# Before the first block there are 61 vectors in all: many neighbours are needed to have enough different ones.
PLANTED = {**SMALL, "k": 120}
TOKENS = np.random.default_rng(0).integers(3, VOCAB, (40, 12))
tf.logging.disable_progress_bar()


def build(*layers, seed=0, mlp="plain"):
    options = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "attention": {"n_heads": 2}, "gru": {"hidden": 9}}
    options = {name: options[name] for name in set(layers)}
    config = ModelConfig(
        d_model=D, d_vocab=VOCAB, layers=layers, mixer_options=options, mlp=mlp, d_mlp=24 if mlp != "none" else 0,
        seed=seed,
    )  # fmt: skip
    model = HookedLM(config)
    with torch.no_grad():
        model.embed.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def silent(block):
    """The block's mixer writes nothing."""
    for name, parameter in block.mixer.named_parameters():
        if "W_O" in name or "out_proj" in name:
            parameter.data.zero_()


def huggingface(kind, folder, n_layers=2):
    torch.manual_seed(2)
    theirs = {
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(n_embd=D, n_layer=n_layers, n_head=2, n_positions=64, **COMMON)
        ),
        "mamba": lambda: tf.MambaForCausalLM(
            tf.MambaConfig(hidden_size=D, state_size=4, time_step_rank=3, num_hidden_layers=n_layers, **COMMON)
        ),
        "llama": lambda: tf.LlamaForCausalLM(
            tf.LlamaConfig(
                hidden_size=D,
                num_attention_heads=2,
                num_key_value_heads=1,
                intermediate_size=24,
                num_hidden_layers=n_layers,
                **COMMON,
            )
        ),
    }[kind]()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    theirs.eval().save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


def planted():
    """Block 0 writes x W with W of rank 2, block 1 writes nothing, block 2 is an ordinary one."""
    model = build("attention", "attention", "attention")
    silent(model.blocks[0]), silent(model.blocks[1])
    first = nn.Linear(D, D, bias=False)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(D, 2, generator=generator) @ torch.randn(2, D, generator=generator) / 6
    first.weight.data.copy_(weight.T)
    nothing = nn.Linear(D, D, bias=False)
    nothing.weight.data.zero_()
    model.blocks[0].ln2, model.blocks[0].mlp, model.blocks[1].mlp = nn.Identity(), first, nothing
    return model


@pytest.fixture(scope="module")
def found():
    return layer_geometry(planted(), TOKENS, **PLANTED)


def test_a_planted_class_is_found_and_replacing_it_changes_nothing(found):
    low_rank, linear, constant = (found.map_index(n) for n in ("low_rank", "linear", "constant"))
    assert found.error_state[0, low_rank].max() < 1e-5 and found.error_state[0, linear].max() < 1e-5
    assert found.cos_update[0, low_rank].min() > 1 - 1e-6
    assert found.kl[0, 0, low_rank].max() < 1e-8
    assert found.map_index() == found.maps.index("low_rank")
    # The same update put wrong does change it.
    assert found.kl[0, 0, constant].mean() > 1e-4
    assert found.error_update[0, constant].mean() > 0.5
    assert found.ridge[0, low_rank] == min(module.RIDGES)


def test_a_block_that_does_nothing_is_nan_and_not_one(found):
    assert (found.update_norm[1] == 0).all()
    for name in ("cos_update", "error_update", "energy_update"):
        assert np.isnan(getattr(found, name)[1]).all()
    identity = found.maps.index("identity")
    np.testing.assert_allclose(found.cos_state[1, identity], 1.0)
    assert (found.kl[1, 0, identity] < 1e-12).all()
    assert np.isnan(found.rank_correlation[1, :, 0, identity]).all()
    assert "nan of the update" in found.summary()
    assert found.cos_update[2, 0].size and np.isfinite(found.cos_update[2, 0]).all()


def test_identity_and_mean_update_are_what_their_names_say(found):
    model = planted()
    rows = found.token_ids.size // 8
    judged = np.repeat(np.arange(rows), 8)
    _, resid = residuals(model, torch.as_tensor(TOKENS[-rows:]))
    for at in range(3):
        x, y = (r[judged, found.position].double().numpy() for r in resid[at : at + 2])
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        np.testing.assert_allclose(found.cos_state[at, found.maps.index("identity")], cosine, atol=1e-6)
        np.testing.assert_allclose(found.state_norm[at], np.linalg.norm(y, axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.update_norm[at], np.linalg.norm(y - x, axis=1), rtol=1e-4, atol=1e-6)
    assert (TOKENS[-rows:][judged, found.position] == found.token_ids).all()
    assert (found.position > 0).all()


def test_the_bank_holds_the_tokens_it_says_and_no_first_ones():
    model = planted()
    fit, judge = Sequences(TOKENS, np.arange(40) // 2).split(6)
    source = module.Source(model, fit, judge, 100, 40, 0)
    (layer, bank, _), *_ = source.blocks([1])
    _, resid = residuals(model, torch.as_tensor(fit.rows))
    rows, at = source.bank_at
    assert layer == 1 and (at > 0).all() and len(set(zip(rows.tolist(), at.tolist(), strict=True))) == 100
    torch.testing.assert_close(bank.x, resid[1][rows, at].double())
    torch.testing.assert_close(bank.y, resid[2][rows, at].double())
    assert bank.sequence.tolist() == fit.sequence[rows].tolist()


def test_layers_asked_for_are_those_of_the_whole_run(found):
    some = layer_geometry(planted(), TOKENS, layers=[2, 0], **PLANTED)
    assert some.layers == (0, 2) and some.n_layers == 3
    np.testing.assert_allclose(some.cos_update[1], found.cos_update[2], rtol=1e-6)
    np.testing.assert_array_equal(some.kl[0], found.kl[0])


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "mamba2-gru"])
def test_every_kind_of_model(kind, tmp_path):
    model = build("mamba2", "gru") if kind == "mamba2-gru" else huggingface(kind, tmp_path / kind)
    ticks = []
    result = layer_geometry(model, TOKENS, progress=lambda *t: ticks.append(t), horizon=2, metric="euclidean", **SMALL)
    assert all(done <= total for done, total, _ in ticks) and [t[0] for t in ticks] == sorted(t[0] for t in ticks)
    assert np.isfinite(result.kl).all() and (result.kl.mean(-1) > 0).all()
    # Of 61 random embeddings little generalises but the mean; attention and recurrence no tokenwise map can know.
    own = [result.map_index(name) for name in ("diagonal", "low_rank", "orthogonal", "linear", "mlp")]
    assert (result.error_state[:, own].mean(-1) > 1e-3).all()
    assert (result.cos_update[:, own].mean(-1) > 0.1).all()


def test_where_it_is_stopped_the_blocks_that_were_done_are_given(found):
    def ask(**how):
        return layer_geometry(planted(), TOKENS, **PLANTED, **how)

    nothing, cut = (stopped(ask, lambda done, said, of=of: said.startswith(f"block {of}:")) for of in (0, 2))
    assert nothing is None and cut.layers == (0, 1) and found.layers == (0, 1, 2)
    for name in ("cos_update", "error_state", "kl", "rank_correlation", "ridge"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(found, name)[:2])
    assert cut.provenance.settings == found.provenance.settings
    assert cut.partial == "cut short after 2 of 3 blocks" and cut.partial in cut.summary() and not found.partial
    assert cut.figure().layout.title.subtitle.text.startswith(cut.partial)


def test_of_one_text_no_token_is_judged_by_its_own_sequence():
    rows = Sequences(TOKENS, np.arange(40) // 4)
    fit, judge = rows.split(6)
    assert len(judge) == 8 and not set(fit.sequence) & set(judge.sequence)
    assert len(fit) + len(judge) == 40
    with pytest.raises(ValueError, match=r"41 rows .* found 40 rows of 10 sequences"):
        rows.split(41)
    with pytest.raises(ValueError, match="found 40 rows of 1 sequences; give more sequences"):
        Sequences(TOKENS, np.zeros(40, dtype=int)).split(3)


def test_memory_is_that_of_two_layers_however_many_there_are(monkeypatch):
    """Counted where it is held: the bank's vectors that are still referenced when a block's maps are fitted."""
    most = {}
    for n_layers in (2, 7):
        made, alive = [], []
        at, update = module.Source._at, module._updates

        def keep(self, name, at=at, made=made):
            out = at(self, name)
            made.append(weakref.ref(out[0]))
            return out

        def count(*args, update=update, made=made, alive=alive):
            gc.collect()
            alive.append(sum(reference() is not None for reference in made))
            return update(*args)

        monkeypatch.setattr(module.Source, "_at", keep)
        monkeypatch.setattr(module, "_updates", count)
        layer_geometry(build(*["attention"] * n_layers), TOKENS, maps=("constant",), **SMALL)
        monkeypatch.undo()
        assert len(made) == n_layers + 1
        most[n_layers] = max(alive)
    assert most == {2: 2, 7: 2}


@pytest.mark.parametrize("kind", ["attention", "mamba2", "gpt2", "llama"])
def test_the_bytes_alive_at_once_are_the_same_for_twice_as_many_layers(kind, tmp_path, monkeypatch):
    """Whatever holds them: passes, states, copies. The two budgets are made as small as the models are."""
    monkeypatch.setattr(functional, "_HELD", 2**13)
    monkeypatch.setattr(functional, "_COPIED", 2**15)

    def peak(n_layers):
        if kind in ("attention", "mamba2"):
            model = build(*[kind] * n_layers, mlp="none")
        else:
            model = huggingface(kind, tmp_path / str(n_layers), n_layers)
        # What a first run makes and keeps (a weights hash, tables) is no part of the second one's need.
        layer_geometry(model, TOKENS, maps=("constant",), layers=[0], **SMALL)
        with LiveBytes() as live:
            layer_geometry(model, TOKENS, maps=("constant",), layers=[0, 1], **SMALL)
        assert live.now == 0
        return live.peak

    # transformers keeps a number or two of each layer; a carry of the rows that run together would be 10 % and more.
    assert 100_000 < peak(8) < 1.01 * peak(4)


def test_figures_tables_and_files(found, tmp_path):
    for measure in ("cosine", "angle", "error", "energy", "energy_residual", "cosine_residual"):
        figure = found.figure(measure)
        assert figure.layout.title.text and "(" in figure.layout.yaxis.title.text
        assert any("control" in t.name for t in figure.data)
    left = [t for t in found.figure().data if t.name == "low-rank"]
    np.testing.assert_allclose(left[0].y, found.cos_state[:, found.map_index("low_rank")].mean(1))
    assert math.isnan(left[1].y[1])
    correlation = found.correlation_figure("diagonal")
    np.testing.assert_array_equal(correlation.data[1].y, found.rank_correlation[:, 0, 1, found.map_index("diagonal")])
    assert "given the norm" in found.scatter_figure(2, "diagonal").layout.title.subtitle.text
    assert found.spectrum_figure(2).data[0].y[-1] == pytest.approx(1.0)
    frame = found.to_frame()
    assert len(frame) == 3 * len(found.maps) * found.token_ids.size
    row = frame[(frame.layer == 2) & (frame["map"] == "diagonal")].iloc[5]
    assert row.kl == found.kl[2, 0, found.map_index("diagonal"), 5]
    assert row.angle_update == pytest.approx(math.degrees(math.acos(row.cos_update)))
    again = load_result(found.save(tmp_path / "g.safetensors"))
    assert isinstance(again, LayerGeometry) and again == found
    for asked in (lambda: found.figure("nothing"), lambda: found.map_index("x"), lambda: found.layer_index(9)):
        with pytest.raises(ValueError, match="was asked for"):
            asked()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": [5]}, "has 0 to 1"),
        ({"maps": ("cubic",)}, "map 'cubic' was asked for"),
        ({"n_bank": 4000}, "a bank of 4000 tokens was asked for"),
        ({"k": 0}, "give 1 or more"),
        ({"n_judged": 1}, "4 judged tokens at least"),
        ({"k": 219}, "neighbours outside the token's own sequence"),
    ],
)
def test_what_cannot_be_done_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        layer_geometry(build("attention", "attention"), TOKENS, **{**SMALL, **change})


def test_models_without_text_or_tokens_are_refused():
    with pytest.raises(ValueError, match="came without a tokenizer; give token ids"):
        layer_geometry(build("gru"))
    config = ModelConfig(
        d_model=4,
        d_vocab=3,
        layers=("gru",),
        mixer_options={"gru": {"hidden": 5}},
        mlp="none",
        tie_embeddings=False,
        d_input=2,
    )
    with pytest.raises(ValueError, match="real-valued inputs"):
        layer_geometry(HookedLM(config))


def test_library_rows_know_their_file():
    from strobe.models import zoo
    from strobe.models.corpus import load_tokenizer, split_of, standard_library_documents

    model = build("gru")
    model.tokenizer = load_tokenizer(zoo.folder("transformer-python") / "tokenizer.json")
    rows = library_sequences(model, 120, 24, seed=1)
    assert rows.rows.shape == (120, 24) and len(np.unique(rows.sequence)) > 60
    texts = [d.text for d in standard_library_documents()[0] if split_of(d.path) != "train"]
    texts = [texts[i] for i in np.random.default_rng(1).permutation(len(texts))]
    for row, sequence in zip(rows.rows[:40], rows.sequence[:40], strict=True):
        assert model.tokenizer.decode(row.tolist()) in texts[sequence]
    assert (np.diff(rows.sequence) >= 0).all()
