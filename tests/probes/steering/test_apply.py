"""Oracle: theorems: a linear head moves by m v W_U, a linear recurrence by C A^k v in float64, and nothing by 0.

Further: the same experiment by another route: whole passes with hand-written hooks and edits as data, against steering
while decoding token by token; and plain algebra of projections.
"""

import pytest
import torch

from strobe.models import HookedLM, ModelConfig, StateEdit
from strobe.probes.steering.apply import Steering, Where
from strobe.probes.steering.vector import SteeringVector

TEXT = [3, 17, 5, 29, 11, 2]
OPTIONS = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}


@pytest.fixture(scope="module")
def hybrid() -> HookedLM:
    torch.manual_seed(4)
    config = ModelConfig(
        d_model=16,
        d_vocab=31,
        layers=("mamba2", "gru", "attention"),
        mixer_options=OPTIONS,
        mlp="plain",
        d_mlp=24,
        tie_embeddings=False,
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    for parameter in model.parameters():
        # An untrained model hardly listens to its state; larger weights make every effect visible above rounding.
        parameter.mul_(3.0)
    return model


def vector_of(model: HookedLM, directions: dict[str, torch.Tensor], point: str, **kwargs) -> SteeringVector:
    return SteeringVector(directions=directions, point=point, model="m", weights_hash=model.weights_hash(), **kwargs)


@pytest.fixture(scope="module")
def residual(hybrid) -> SteeringVector:
    generator = torch.Generator().manual_seed(1)
    return vector_of(hybrid, {"blocks.0.hook_resid_post": torch.randn(16, generator=generator)}, "resid_post")


@pytest.fixture(scope="module")
def carried(hybrid) -> SteeringVector:
    generator = torch.Generator().manual_seed(2)
    directions = {
        "blocks.0.mixer.hook_state_S": torch.randn(3, 5, 4, generator=generator),
        "blocks.0.mixer.hook_state_conv": torch.randn(3, 22, generator=generator),
        "blocks.1.mixer.hook_state_h": torch.randn(12, generator=generator),
    }
    return vector_of(hybrid, directions, "carry")


def linear_model(layer: str = "mingru", **kwargs) -> HookedLM:
    config = ModelConfig(
        d_model=8,
        d_vocab=13,
        layers=(layer,),
        mixer_options={layer: {"hidden": 6}},
        mlp="none",
        norm="none",
        tie_embeddings=False,
        **kwargs,
    )
    return HookedLM(config, name="linear").double().eval().requires_grad_(False)


def test_a_linear_head_moves_by_the_vector_read_by_the_unembedding():
    model = linear_model().float()
    direction = torch.randn(8)
    vector = vector_of(model, {"blocks.0.hook_resid_post": direction}, "resid_post")
    tokens = torch.tensor([[1, 5, 2, 7]])
    moved = Steering(model, vector, 2.5, where=Where("from", start=-2)).forward(tokens) - model(tokens)
    expected = 2.5 * direction @ model.W_U
    torch.testing.assert_close(moved[0, 2:], expected.expand(2, -1), atol=1e-5, rtol=0)
    assert moved[0, :2].abs().max() == 0


@pytest.mark.parametrize("where", [Where("at", positions=(2,)), Where("from", start=2)])
def test_a_linear_recurrence_moves_by_c_a_to_the_k_v(where):
    model = linear_model(residual=False)
    mixer = model.blocks[0].mixer
    mixer.W_z.weight.zero_()
    a = 1 - mixer.W_z.bias.sigmoid()
    v = torch.randn(6, dtype=torch.float64)
    vector = vector_of(model, {"blocks.0.mixer.hook_state_h": v}, "carry")
    tokens = torch.tensor([[1, 5, 2, 7, 7, 3, 0]])
    moved = (Steering(model, vector, 1.5, where=where).forward(tokens) - model(tokens))[0]
    readout = model.unembed.weight @ mixer.out_proj.weight
    shift, expected = torch.zeros(6, dtype=torch.float64), []
    for t in range(7):
        shift = a * shift
        expected.append(readout @ shift)
        if where.selects(t, 7):
            shift = shift + 1.5 * v
    assert moved[3].abs().max() > 1e-3
    torch.testing.assert_close(moved, torch.stack(expected), atol=1e-10, rtol=0)


def test_multiplier_zero_is_the_unsteered_model_to_the_bit(hybrid, residual, carried):
    tokens = torch.tensor([TEXT])
    plain = hybrid(tokens)
    for vectors in (residual, carried, [residual, carried]):
        for operation in ("add", "project_out"):
            assert torch.equal(Steering(hybrid, vectors, 0.0, operation=operation).forward(tokens), plain)
            assert not torch.equal(Steering(hybrid, vectors, 0.5, operation=operation).forward(tokens), plain)


WHERES = {
    "all": (Where(), range(20)),
    "prompt": (Where("prompt"), range(6)),
    "generated": (Where("generated"), range(6, 20)),
    "from the last prompt token": (Where("from", start=-1), range(5, 20)),
    "from 8": (Where("from", start=8), range(8, 20)),
    "at": (Where("at", positions=(1, 7)), (1, 7)),
    "mask": (Where("mask", mask=(True,) * 2 + (False,) * 5 + (True,)), (0, 1, 7)),
}


@pytest.mark.parametrize("name", WHERES)
def test_while_decoding_the_same_positions_are_steered_as_in_one_pass(hybrid, residual, carried, name):
    where, chosen = WHERES[name]
    seen: list[torch.Tensor] = []
    last = "blocks.2.hook_resid_post"
    steering = Steering(hybrid, [residual, carried], 0.7, where=where)
    watch = [(last, lambda x, hook: seen.append(x[0]))]
    text = steering.generate(torch.tensor([TEXT]), 6, temperature=0.0, fwd_hooks=watch, stop_at_eos=False)
    time = text.shape[1] - 1
    chosen = [p for p in chosen if p < time]

    def add(x, hook):
        x[:, chosen] += 0.7 * residual.directions["blocks.0.hook_resid_post"]
        return x

    edits = [
        StateEdit(layer=int(n.split(".")[1]), position=p, kind="add", value=0.7 * d, field=n.rsplit("_", 1)[1])
        for p in chosen
        for n, d in carried.directions.items()
    ]
    whole: list[torch.Tensor] = []
    hooks = [("blocks.0.hook_resid_post", add), (last, lambda x, hook: whole.append(x[0]))]
    hybrid.run_with_hooks(text[:, :-1], fwd_hooks=hooks, edits=edits)
    torch.testing.assert_close(torch.cat(seen), whole[0], atol=2e-4, rtol=2e-4)


def test_what_is_handed_to_the_scan_is_what_a_callback_does(hybrid, carried):
    tokens = torch.tensor([TEXT, TEXT[::-1]])
    steering = Steering(hybrid, carried, 1.3, where=Where("from", start=1))
    called = hybrid.run_with_hooks(tokens, fwd_hooks=steering.hooks(6), states=[1, 2, 3, 4, 5])
    assert (called - hybrid(tokens)).abs().max() > 0.1
    torch.testing.assert_close(steering.forward(tokens), called, atol=1e-4, rtol=1e-4)
    # As data it leaves the looks to the caller, and shows the carry that was steered.
    seen = []
    hooks = [("blocks.1.mixer.hook_state_h", lambda x, hook: seen.append(x))]
    steering.forward(tokens, states=[0, 2], fwd_hooks=hooks)
    _, plain = hybrid.run_with_cache(tokens[:, :1], names_filter="blocks.1.mixer.hook_state_h", states=[0])
    torch.testing.assert_close(seen[0][:, :1], plain["blocks.1.mixer.hook_state_h"])


def test_edits_of_the_caller_are_kept(hybrid, residual):
    tokens = torch.tensor([TEXT])
    edit = StateEdit(layer=1, position=2, kind="scale", value=0.0)
    steering = Steering(hybrid, residual, 0.5)
    whole = hybrid.run_with_hooks(tokens, fwd_hooks=steering.hooks(6), edits=[edit])
    assert torch.equal(steering.forward(tokens, edits=[edit]), whole)
    assert not torch.equal(whole, steering.forward(tokens))


def test_an_edited_carry_goes_on_from_a_kept_state(hybrid, carried):
    tokens = torch.tensor([TEXT])
    whole = Steering(hybrid, carried, 1.0, where=Where("at", positions=(4,))).forward(tokens)
    state = hybrid.state_after(tokens[:, :3])
    rest = Steering(hybrid, carried, 1.0, where=Where("at", positions=(4,))).forward(tokens[:, 3:], state=state)
    torch.testing.assert_close(rest, whole[:, 3:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("operation", ["project_out", "replace"])
def test_the_component_along_the_vector_is_taken_out_or_becomes_m_v(hybrid, residual, operation):
    name = "blocks.0.hook_resid_post"
    v = residual.directions[name]
    kept: list[torch.Tensor] = []
    steering = Steering(hybrid, residual, 1.0 if operation == "project_out" else -2.0, operation=operation)
    hooks = [*steering.hooks(6), (name, lambda x, hook: kept.append(x))]
    hybrid.run_with_hooks(torch.tensor([TEXT]), fwd_hooks=[(name, lambda x, hook: kept.append(x)), *hooks])
    before, after = kept
    wanted = 0.0 if operation == "project_out" else -2.0
    torch.testing.assert_close(after @ v / (v @ v), torch.full((1, 6), wanted), atol=1e-5, rtol=0)
    across = torch.eye(16) - torch.outer(v, v) / (v @ v)
    torch.testing.assert_close(after @ across, before @ across, atol=1e-5, rtol=1e-5)


def test_only_the_layers_asked_for_are_steered(hybrid, carried):
    tokens = torch.tensor([TEXT])
    second = Steering(hybrid, carried, 1.0, layers=1).forward(tokens)
    alone = vector_of(
        hybrid, {"blocks.1.mixer.hook_state_h": carried.directions["blocks.1.mixer.hook_state_h"]}, "carry"
    )
    assert torch.equal(second, Steering(hybrid, alone, 1.0).forward(tokens))
    assert not torch.equal(second, Steering(hybrid, carried, 1.0).forward(tokens))
    with pytest.raises(ValueError, match="layers \\[2\\]"):
        Steering(hybrid, carried, layers=[1, 2])


def test_what_cannot_be_steered_is_refused_with_the_reason(hybrid, residual, carried):
    tokens = torch.tensor([TEXT])
    with pytest.raises(ValueError, match="finite"):
        Steering(hybrid, residual, float("nan"))
    with pytest.raises(ValueError, match="no token"):
        Steering(hybrid, residual, where="generated").forward(tokens)
    with pytest.raises(ValueError, match="states were asked for"):
        Steering(hybrid, carried, operation="replace").forward(tokens, states=[1])
    with pytest.raises(ValueError, match="needs `start`"):
        Where("from")
    with pytest.raises(ValueError, match="padded on the left"):
        Where("from", start=3).check_padding("left")
    with pytest.raises(ValueError, match="padded on the right"):
        Where("at", positions=(-1,)).check_padding("right")
    with pytest.raises(ValueError, match="Fit one at 'mixer_out'"):
        residual.check(hybrid, "mixer_out")
    with pytest.raises(ValueError, match="belongs to m with weights"):
        Steering(linear_model(), residual)
