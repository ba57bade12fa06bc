"""Oracle: whole passes with hand-written hooks and edits as data, on tiny random models of transformers' real classes.

Steering knows hook points and carries, so it has to mean the same in a pure transformer and behind the seam.
"""

import pytest
import torch
import transformers as tf

from strobe.models.hooked import StateEdit
from strobe.models.huggingface import load_huggingface
from strobe.probes.steering.apply import Steering, Where
from strobe.probes.steering.contrast import contrast_vector
from strobe.probes.steering.vector import SteeringVector

COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
MODELS = {
    "llama": (
        tf.LlamaForCausalLM,
        tf.LlamaConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **COMMON),
    ),
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, **COMMON)),
}
PROMPT = [5, 9, 44, 3, 17]
PAIRS = [((5, 9, 44), (5, 9, 43)), ((7, 8, 3, 44), (7, 8, 43)), ((30, 44), (31, 43))]
tf.logging.disable_progress_bar()


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    kind, config = MODELS[request.param]
    torch.manual_seed(1)
    theirs = kind(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


def test_while_decoding_the_same_positions_are_steered_as_in_one_pass(model):
    name, last = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
    vectors = [contrast_vector(model, PAIRS, layers=[0])]
    if model.mixers:
        vectors.append(contrast_vector(model, PAIRS, point="carry", layers=[1]))
    seen, whole = [], []
    steering = Steering(model, vectors, 2.0, where=Where("from", start=-2))
    watch = [(last, lambda x, hook: seen.append(x[0].clone()))]
    text = steering.generate(torch.tensor([PROMPT]), 5, temperature=0.0, fwd_hooks=watch, stop_at_eos=False)
    time = text.shape[1] - 1

    def add(x, hook):
        return torch.cat([x[:, :3], x[:, 3:] + 2.0 * vectors[0].directions[name]], 1)

    edits = [
        StateEdit(layer=1, position=p, kind="add", value=2.0 * d, field=n.split("hook_state_")[1])
        for vector in vectors[1:]
        for p in range(3, time)
        for n, d in vector.directions.items()
    ]
    hooks = [(name, add), (last, lambda x, hook: whole.append(x[0].clone()))]
    with torch.no_grad():
        model.run_with_hooks(text[:, :-1], fwd_hooks=hooks, edits=edits)
        plain = model.run_with_cache(text[:, :-1], names_filter=last)[1][last][0]
    torch.testing.assert_close(torch.cat(seen), whole[0], atol=2e-4, rtol=2e-4)
    assert (whole[0][3:] - plain[3:]).abs().max() > 0.05
    torch.testing.assert_close(whole[0][:3], plain[:3], atol=1e-5, rtol=1e-5)


def test_a_saved_vector_of_its_own_comes_back(model, tmp_path):
    vector = contrast_vector(model, PAIRS)
    assert vector.layers == [0, 1]
    again = SteeringVector.load(vector.save(tmp_path / "v.safetensors"), model, point="resid_post")
    assert all(torch.equal(again.directions[n], d) for n, d in vector.directions.items())
