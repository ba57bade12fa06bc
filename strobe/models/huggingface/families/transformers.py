"""Pure transformers: nothing is transplanted; their carry is the key/value cache."""

from strobe.models.huggingface.seam import Family


def _family(model_type: str, architecture: str, blocks: str = "model.layers", *, masks_by_kind: bool = False) -> Family:
    return Family(
        model_type=model_type,
        architecture=architecture,
        blocks=blocks,
        releases=("5.23.0",),
        attention=("full_attention", "sliding_attention"),
        masks_by_kind=masks_by_kind,
    )


FAMILIES = (
    _family("gpt2", "GPT2LMHeadModel", "transformer.h"),
    _family("gpt_neox", "GPTNeoXForCausalLM", "gpt_neox.layers"),
    _family("llama", "LlamaForCausalLM"),
    _family("mistral", "MistralForCausalLM"),
    _family("qwen2", "Qwen2ForCausalLM", masks_by_kind=True),
    _family("qwen3", "Qwen3ForCausalLM", masks_by_kind=True),
    _family("gemma", "GemmaForCausalLM"),
    _family("gemma2", "Gemma2ForCausalLM", masks_by_kind=True),
)
