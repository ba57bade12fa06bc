"""Oracle: stopping, changing the state by hand and going on; the plain forward pass; autograd; finite differences."""

import pytest
import torch
import torch.nn.functional as F
from transformer_lens import HookedRootModule

import strobe.core.memory
from strobe.core.errors import CaptureTooLarge, HookError
from strobe.core.tolerances import assert_close, relative_error
from strobe.models.config import ModelConfig
from strobe.models.hooked import StateEdit
from strobe.models.native import HookedLM

LAYERS = ["gru", "attention", "mamba2", "rwkv4"]
OPTIONS = {
    "gru": {"hidden": 7},
    "attention": {"n_heads": 2},
    "mamba2": {"heads": 2, "head_dim": 3, "state": 4},
    "rwkv4": {"hidden": 6},
}
TEXTS = ["abcd", "a", "dcbabcdab"]


def tokenizer():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({c: i for i, c in enumerate("?abcdefghi^")}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="?", bos_token="^")


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(d_model=8, d_vocab=11, layers=LAYERS, mixer_options=OPTIONS, d_mlp=10)
    made = HookedLM(config, tokenizer=tokenizer(), name="small").double()
    # Untrained embeddings are small, and so would be every difference.
    with torch.no_grad():
        made.embed.weight.mul_(30)
    return made.eval()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(11, (2, 13), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def logits(model, tokens):
    return model(tokens).detach()


# Looking --------------------------------------------------------------------------------------------------------------


def test_a_cached_run_computes_the_same_and_leaves_nothing_behind(model, tokens, logits):
    out, cache = model.run_with_cache(tokens, states="all")
    assert_close(out, logits, kind="scan")
    assert not any(point.has_hooks() for point in model.hook_dict.values())
    assert all(carrier.run is None for carrier in model.carriers.values())
    assert {n for n in model.hook_dict if n not in cache} == {f"blocks.{i}.mixer.hook_carry" for i in (0, 2, 3)}


@pytest.mark.parametrize("remove", ["ours", "TransformerLens's"])
@pytest.mark.parametrize("direction", ["fwd", "bwd", "both"])
def test_removing_hooks_is_transformer_lens_s(model, monkeypatch, remove, direction):
    """Both orders: what theirs leaves is written down here, and ours has to leave the same."""
    if remove != "ours":
        monkeypatch.setattr(HookedLM, "remove_all_hook_fns", HookedRootModule.remove_all_hook_fns)
    read, carry = (model.hook_dict[f"blocks.0.mixer.hook_{name}"] for name in ("read", "carry"))

    def counts():
        return [len(hooks) for point in (read, carry) for hooks in (point.fwd_hooks, point.bwd_hooks)]

    def nothing(value, hook):
        pass

    read.add_perma_hook(nothing)
    try:
        both = {"fwd_hooks": [(read.name, nothing), (carry.name, nothing)], "bwd_hooks": [(read.name, nothing)]}
        with model.hooks(**both):
            with model.hooks(**both):
                assert counts() == [3, 2, 2, 0]
            assert counts() == [2, 1, 1, 0]
            model.remove_all_hook_fns(direction)
            left = {"fwd": [1, 1, 0, 0], "bwd": [2, 0, 1, 0], "both": [1, 0, 0, 0]}[direction]
            assert counts() == left
        assert counts() == [1, 0, 0, 0]
    finally:
        read.remove_hooks("both", including_permanent=True)
    assert not any(point.has_hooks() for point in model.hook_dict.values())


@pytest.mark.parametrize(
    ("states", "positions"),
    [
        ([3, -1], [3, 12]),
        ([7, 0, 7], [7, 0, 7]),
        (slice(2, None, 5), [2, 7, 12]),
        (slice(-3, None), [10, 11, 12]),
        ("all", list(range(13))),
    ],
)
def test_states_at_positions_are_the_states_after_so_many_tokens(model, tokens, states, positions):
    _, cache = model.run_with_cache(tokens, states=states)
    for n, position in enumerate(positions):
        state = model.state_after(tokens[:, : position + 1])
        for layer in (0, 2, 3):
            carry = state.layers[layer].carry
            for field in carry._fields:
                assert_close(
                    cache[f"blocks.{layer}.mixer.hook_state_{field}"][:, n], getattr(carry, field), kind="scan"
                )
        assert_close(cache["state", 2][:, n], state.layers[2].carry.S, kind="scan")


@pytest.mark.parametrize("position", [13, -14])
def test_positions_outside_are_refused(model, tokens, position):
    with pytest.raises(IndexError, match=f"position {position} was asked for, but there are 13 tokens"):
        model.run_with_cache(tokens, states=[position])


def test_names_filter_device_batch_and_slice(model, tokens):
    name = "blocks.2.hook_resid_pre"
    _, whole = model.run_with_cache(tokens)
    for names in (name, [name], lambda n: n == name):
        _, cache = model.run_with_cache(tokens, names_filter=names)
        assert list(cache.keys()) == [name]
        assert_close(cache[name], whole[name], kind="scan")
    _, cache = model.run_with_cache(tokens[:1], names_filter=name, remove_batch_dim=True)
    assert_close(cache[name], whole[name][0], kind="scan")
    names = [name, "blocks.1.mixer.hook_pattern", "blocks.2.mixer.hook_state"]
    _, cache = model.run_with_cache(tokens, names_filter=names, pos_slice=slice(4, 7), states=[1, 2])
    assert_close(cache[name], whole[name][:, 4:7], kind="scan")
    assert_close(cache[names[1]], whole[names[1]][:, :, 4:7], kind="scan")
    assert cache[names[2]].shape[1] == 2
    plain = model.run_with_cache(tokens, names_filter=name, return_cache_object=False)[1]
    assert type(plain) is dict
    assert_close(plain[name], whole[name], kind="scan")


def test_gradients_in_the_cache_are_those_of_autograd(model, tokens):
    """Also with hooks on gates, which only show and would be told from an edit by a copy."""
    loss, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)
    kept = {}

    def keep(name):
        def hook(tensor, hook):
            tensor.retain_grad()
            kept[name] = tensor

        return name, hook

    names = ["blocks.2.hook_resid_pre", "blocks.2.mixer.hook_B", "blocks.0.mixer.hook_read"]
    again = model.run_with_hooks(tokens, fwd_hooks=[keep(n) for n in names], return_type="loss")
    again.backward()
    assert_close(again, loss, kind="scan")
    for name in names:
        assert kept[name].grad.abs().max() > 0
        assert_close(cache[f"{name}_grad"], kept[name].grad, kind="scan")


def test_hook_carry_at_absolute_positions_while_continuing(model, tokens):
    seen = []
    state = model.state_after(tokens[:, :5])
    hooks = [("blocks.2.mixer.hook_carry", lambda carry, hook: seen.append(hook.position))]
    model.run_with_hooks(tokens[:, 5:], fwd_hooks=hooks, state=state, states=[0, -1])
    model.run_with_hooks(tokens, fwd_hooks=hooks, states=[0, -1])
    assert seen == [5, 12, 0, 12]


# Editing --------------------------------------------------------------------------------------------------------------


def by_hand(model, tokens, position, change):
    """Stop after `position`, change the carries, go on."""
    state = model.state_after(tokens[:, : position + 1])
    first = model(tokens[:, : position + 1])
    change(state)
    return torch.cat([first, model(tokens[:, position + 1 :], state)], 1)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_an_edit_is_stopping_changing_the_state_and_going_on(model, tokens, logits, layer):
    for field in model.blocks[layer].mixer.Carry._fields:

        def double(state, field=field):
            carry = state.layers[layer].carry
            state.layers[layer].carry = carry._replace(**{field: getattr(carry, field) * 2})

        expected = by_hand(model, tokens, 5, double)
        edit = StateEdit(layer=layer, position=5, kind="scale", value=2.0, field=field)
        assert_close(model.run_with_edits(tokens, [edit]), expected, kind="scan")
        negative = StateEdit(layer=layer, position=-8, kind="scale", value=2.0, field=field)
        assert_close(model(tokens, edits=[negative]), expected, kind="scan")

        def twice(carry, hook, field=field):
            return carry._replace(**{field: getattr(carry, field) * 2})

        hooked = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.mixer.hook_carry", twice)], states=[5])
        assert_close(hooked, expected, kind="scan")
        assert_close(expected[:, :6], logits[:, :6], kind="scan")
        assert relative_error(expected[:, 6:], logits[:, 6:]) > 1e-6, field


def test_edits_of_several_layers_at_once(model, tokens):
    edits = [StateEdit(layer=i, position=5, kind="scale", value=0.5) for i in (0, 2)]

    def halve(state):
        for layer in (0, 2):
            carry = state.layers[layer].carry
            state.layers[layer].carry = carry._replace(**{carry._fields[0]: carry[0] * 0.5})

    assert_close(model(tokens, edits=edits), by_hand(model, tokens, 5, halve), kind="scan")


def test_edits_that_cannot_be_made_are_refused(model, tokens):
    with pytest.raises(ValueError, match="layer 1, which has no recurrent carry; layers with one: 0, 2, 3"):
        model(tokens, edits=[StateEdit(layer=1, position=2, kind="scale", value=0.0)])
    with pytest.raises(IndexError, match=r"blocks\.2\.mixer at position 13: this run has 13 tokens"):
        model(tokens, edits=[StateEdit(layer=2, position=13, kind="scale", value=0.0)])
    with pytest.raises(ValueError, match="'h'; it has S, conv"):
        model(tokens, edits=[StateEdit(layer=2, position=2, kind="scale", value=0.0, field="h")])
    assert all(carrier.run is None for carrier in model.carriers.values())


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_hook_that_does_not_exist_names_the_nearest(model, tokens):
    calls = [
        lambda: model.run_with_cache(tokens, names_filter="blocks.2.mixer.hook_stat"),
        lambda: model.run_with_hooks(tokens, fwd_hooks=[("blocks.2.mixer.hook_stat", lambda t, hook: t)]),
        lambda: model.run_with_hooks(tokens, bwd_hooks=[("blocks.2.mixer.hook_stat", lambda t, hook: None)]),
        lambda: model.run_with_cache(tokens, fwd_hooks=[("blocks.2.mixer.hook_stat", lambda t, hook: t)]),
    ]
    for call in calls:
        with pytest.raises(HookError, match=r"does not exist in small; did you mean 'blocks\.2\.mixer\.hook_state'"):
            call()


def test_a_hook_that_never_fired_is_an_error(model, tokens):
    def nothing(tensor, hook):
        return None

    with pytest.raises(HookError, match=r"captured carries need positions; give states="):
        model.run_with_cache(tokens, names_filter="blocks.2.mixer.hook_state")
    with pytest.raises(HookError, match=r"captured carries need positions; give states="):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.2.mixer.hook_state", nothing)])
    with pytest.raises(HookError, match=r"called at looked positions only; give states="):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.2.mixer.hook_carry", nothing)])
    with pytest.raises(HookError, match="never fired"):
        model.run_with_hooks(tokens, fwd_hooks=[(lambda name: name == "hook_pos_embed", nothing)])
    with pytest.raises(HookError, match=r"is the live carry and is not cached; cache 'blocks\.2\.mixer\.hook_state'"):
        model.run_with_cache(tokens, names_filter="blocks.2.mixer.hook_carry", states=[0])


def test_returning_a_tensor_from_a_captured_state_is_an_error(model, tokens):
    with pytest.raises(RuntimeError, match=r"blocks\.2\.mixer\.hook_state.*Edit 'hook_carry'"):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.2.mixer.hook_state", lambda s, hook: s * 0)], states=[3])
    assert not any(point.has_hooks() for point in model.hook_dict.values())


def test_a_capture_that_does_not_fit_is_refused_before_running(model, tokens, monkeypatch):
    # 13 positions, batch 2: gru 7, mamba2 2*4*3 + 3*(6+8), rwkv4 3*6 + 8 numbers of 8 bytes.
    need = 13 * 2 * (7 + 24 + 42 + 26) * 8
    monkeypatch.setattr(strobe.core.memory, "_SMALL_BYTES", 0)
    monkeypatch.setattr(strobe.core.memory, "available_bytes", lambda device="cpu": need)
    ran = []
    hooks = [("hook_embed", lambda t, hook: ran.append(1))]
    with pytest.raises(CaptureTooLarge, match=r"13 positions in 3 layers, batch 2 needs 20\.6 kB.*fewer positions"):
        model.run_with_cache(tokens, states="all", fwd_hooks=hooks)
    assert ran == []
    # Nine tenths of what is left are allowed.
    monkeypatch.setattr(strobe.core.memory, "available_bytes", lambda device="cpu": int(need / 0.9) + 2)
    model.run_with_cache(tokens, states="all")
    # One layer of three, asked for by name, is less.
    monkeypatch.setattr(strobe.core.memory, "available_bytes", lambda device="cpu": need // 2)
    model.run_with_cache(tokens, states="all", names_filter="blocks.0.mixer.hook_state")
    # A memory is float32 at least; windows are what the weights are.
    sizes = {dtype: model.mixers["blocks.2.mixer"].carry_bytes(dtype) for dtype in (torch.float64, torch.bfloat16)}
    assert sizes == {torch.float64: 24 * 8 + 42 * 8, torch.bfloat16: 24 * 4 + 42 * 2}


def test_a_backend_is_recorded_and_never_replaced(model, tokens, logits):
    model(tokens)
    assert model.ran == {f"blocks.{i}.mixer": "chunked" for i in (0, 2, 3)}
    model.backend = "reference"
    try:
        assert_close(model(tokens), logits, kind="scan")
        assert set(model.ran.values()) == {"reference"}
        model.backend = "cuneiform"
        with pytest.raises(ValueError, match="no backend 'cuneiform'; it has reference, chunked"):
            model(tokens)
    finally:
        model.backend = "auto"


# Inputs ---------------------------------------------------------------------------------------------------------------


def test_texts_of_different_length_are_each_the_text_alone(model):
    out = model(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = model(text)
        assert alone.shape == (1, len(text), 11)
        assert_close(out[row, : len(text)], alone[0], kind="scan")
        # What goes on from there has seen the text and no padding.
        for layer in (0, 2, 3):
            padded, own = (model.state_after(t).layers[layer].carry for t in (TEXTS, text))
            for a, b in zip(padded, own, strict=True):
                assert_close(a[row], b[0], kind="scan")
    assert_close(model("abcd"), model(torch.tensor([1, 2, 3, 4])), kind="scan")


def test_padding_side(model):
    tokens, mask = model.tokenize(TEXTS, padding_side="left")
    assert tokens[1].tolist() == [0] * 8 + [1] and mask.sum(1).tolist() == [4, 1, 9]
    out, right = model(tokens, mask=mask), model(TEXTS)
    for row, text in enumerate(TEXTS):
        assert_close(out[row, -len(text) :], right[row, : len(text)], kind="scan")
    assert model.tokenize(["ab", "cd"])[1] is None


def test_text_protocol(model):
    assert model.to_str_tokens("abz") == ["a", "b", "?"]
    assert model.to_tokens(["ab"], prepend_bos=True).tolist() == [[10, 1, 2]]
    assert model.to_single_token("c") == 3 and model.to_single_str_token(3) == "c"
    with pytest.raises(ValueError, match="'ab' is 2 tokens in small, not one"):
        model.to_single_token("ab")


@pytest.mark.parametrize(
    ("inputs", "kwargs", "message"),
    [
        ("", {}, "the text is empty"),
        (["ab", ""], {}, "the text is empty"),
        (torch.tensor([[1, 11]]), {}, r"token id 11 is outside the vocabulary of small \(0 to 10\)"),
        (torch.tensor([[1, -1]]), {}, "token id -1 is outside"),
        (torch.zeros(2, 0, dtype=torch.long), {}, "at least one token"),
        (torch.tensor([[1, 2]]), {"mask": torch.ones(1, 3)}, r"mask of shape \(1, 3\) for inputs of shape \(1, 2\)"),
        (
            torch.tensor([[1, 2]]),
            {"return_type": "logit"},
            "'logit'; it can be 'logits', 'loss', 'both', 'state' or None",
        ),
    ],
)
def test_inputs_that_mean_nothing_are_refused(model, inputs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        model(inputs, **kwargs)


def test_loss(model, tokens, logits):
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss = model(tokens, return_type="loss")
    assert_close(loss, expected, kind="logits", dtype=torch.float32)
    out, again = model(tokens, return_type="both")
    assert torch.equal(out, logits) and torch.equal(again, loss)
    assert model(tokens, return_type=None) is None
    padded = model(TEXTS, return_type="loss")
    sums = [(len(t) - 1) * model(t, return_type="loss") for t in TEXTS if len(t) > 1]
    assert_close(padded, sum(sums) / sum(len(t) - 1 for t in TEXTS), kind="logits", dtype=torch.float32)


@pytest.mark.parametrize("cuts", [[1], [12], [4, 5, 9], list(range(1, 13))])
def test_stopping_and_continuing_changes_nothing(model, tokens, logits, cuts):
    state, out = None, []
    for piece in tokens.tensor_split(cuts, 1):
        piece_logits, state = model(piece, state, return_type="state")
        out.append(piece_logits)
    assert_close(torch.cat(out, 1), logits, kind="scan")
    assert state.seen == 13


def test_the_first_state_is_no_state(model, tokens, logits):
    state = model.init_state(2)
    assert state.seen == 0
    assert_close(model(tokens, state), logits, kind="scan")
    assert not any(x.requires_grad for c in model.state_after(tokens).carries.values() for x in c)


def test_gradients_reach_through_an_edit_and_a_state(model, tokens):
    """Against finite differences."""
    value = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def loss(v):
        edit = StateEdit(layer=0, position=4, kind="add", value=v)
        _, state = model(tokens[:, :8], edits=[edit], return_type="state")
        return (model(tokens[:, 8:], state) ** 2).sum()

    loss(value).backward()
    with torch.no_grad():
        slope = (loss(value + 1e-5) - loss(value - 1e-5)) / 2e-5
    assert slope.abs() > 1e-3
    assert relative_error(value.grad, slope) < 1e-6


def test_a_state_that_lacks_a_carry_is_refused_instead_of_starting_it_empty():
    options = {"gru": {"hidden": 4}}
    model = HookedLM(ModelConfig(d_model=4, d_vocab=7, layers=["gru", "gru"], mixer_options=options, mlp="none"))
    state = model.state_after(torch.tensor([[1, 2]]))
    del state.carries["blocks.1.mixer"]
    with pytest.raises(ValueError, match=r"lacks the carry of blocks\.1\.mixer"):
        model(torch.tensor([[3]]), state=state)
