"""The seam: our mixer takes the tensors and the place of transformers' mixer, and everything that must fit is
checked.

It depends on the names of their parameters and on how their block calls their mixer, never on the inside of their
forward. A tensor that is missing, left over or of another shape is a `SeamError` that names it, because a mixer that
ran without it would give numbers that look right.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from strobe.core.errors import SeamError
from strobe.models.mixer import Mixer


def _output_alone(out: Tensor, arguments: Mapping[str, Any]) -> Any:
    return out


@dataclass(frozen=True, kw_only=True)
class Transplant:
    """One class of transformers that one of our mixers replaces.

    `module`, `replaces`: where the class is. `ours`: the name of our mixer's class. `slot`: the block's attribute
    that holds it. `build`: makes our mixer from theirs (sizes only; it runs on the meta device). `tensors`: our
    parameter name -> theirs; a shape may differ by axes of length 1. `unused`: their tensors that their own forward
    does not read. `call`: the arguments that the block passes, the activations first. `name`: what the mixer is
    called in hook names. `reply`: what the block expects back.
    """

    module: str
    replaces: str
    ours: str
    slot: str
    build: Callable[[Any], Mixer]
    tensors: Mapping[str, str]
    call: tuple[str, ...]
    name: str = "mixer"
    unused: tuple[str, ...] = ()
    reply: Callable[[Tensor, Mapping[str, Any]], Any] = _output_alone


def _nothing(model: Any) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one model_type of transformers is taken over.

    `transplants`: none for a pure transformer. `blocks`: path of the list of blocks. `architecture`: the class that a
    checkpoint loads as. `releases`: of transformers, on which the tests of this family passed. `prepare`: called on
    the loaded model before anything else. `overlay`: changes TransformerLens's component mapping before the bridge is
    built. `attention`: the layer kinds (of `config.layer_types`) that keep keys and values. `masks_by_kind`: whether
    the model takes a mask for each kind of layer.
    """

    model_type: str
    architecture: str
    blocks: str
    releases: tuple[str, ...]
    transplants: tuple[Transplant, ...] = ()
    prepare: Callable[[Any], None] = _nothing
    overlay: Callable[[dict[str, Any], Any], None] = field(default=lambda components, config: None)
    attention: tuple[str, ...] = ()
    masks_by_kind: bool = False


def transplant(model: Any, family: Family) -> None:
    """Put our mixers into `model`, block by block. Raises SeamError for whatever does not fit."""
    found = dict.fromkeys((t.replaces for t in family.transplants), 0)
    for index, block in enumerate(blocks_of(model, family)):
        for t in family.transplants:
            theirs: Any = getattr(block, t.slot, None)
            if type(theirs).__name__ == t.replaces:
                check_call(family, t, type(theirs))
                setattr(block, t.slot, adopt(family, t, theirs, f"{family.blocks}.{index}.{t.slot}"))
                found[t.replaces] += 1
    if family.transplants and not any(found.values()):
        wanted = " or ".join(found)
        slots = sorted({t.slot for t in family.transplants})
        seen = sorted({type(getattr(b, s, None)).__name__ for b in blocks_of(model, family) for s in slots})
        raise SeamError(
            _message(family, f"no block has a {wanted} in {' or '.join(slots)}; found there: {', '.join(seen)}")
        )


def blocks_of(model: Any, family: Family) -> list[Any]:
    """The model's blocks. Raises SeamError where they are not at the family's path."""
    try:
        return list(model.get_submodule(family.blocks))
    except AttributeError as error:
        raise SeamError(_message(family, f"the model has no {family.blocks!r}")) from error


def adopt(family: Family, t: Transplant, theirs: nn.Module, where: str) -> Mixer:
    """Our mixer, holding the tensors of `theirs`: the same memory, nothing copied."""
    source = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
    missing = sorted(set(t.tensors.values()) - set(source))
    with torch.device("meta"):
        ours = t.build(theirs)
    wanted = {name for name, _ in ours.named_parameters()}
    # A bias that this configuration switches off is in neither of the two.
    mapping = {mine: its for mine, its in t.tensors.items() if mine in wanted or its in source}
    missing = sorted(its for its in mapping.values() if its not in source)
    left = sorted(set(source) - set(mapping.values()) - set(t.unused))
    orphans = sorted(wanted - set(mapping))
    surplus = sorted(its for mine, its in mapping.items() if mine not in wanted)
    if missing or left or orphans or surplus:
        problems = {"missing": missing, "left over": left + surplus, "ours without one of theirs": orphans}
        raise SeamError(
            _message(family, "; ".join(f"{what}: {', '.join(n)}" for what, n in problems.items() if n), where)
        )
    for mine, its in mapping.items():
        _hand_over(family, ours, mine, source[its], f"{where}.{its}")
    if strays := [name for name, buffer in ours.named_buffers() if buffer.is_meta]:
        raise SeamError(
            _message(family, f"our mixer has buffers that theirs does not fill: {', '.join(strays)}", where)
        )
    return ours.train(theirs.training)


def _hand_over(family: Family, ours: Mixer, name: str, tensor: Tensor, where: str) -> None:
    """Set the parameter `name` of `ours` to `tensor`, or to a view of its memory where axes of length 1 differ."""
    parent, _, leaf = name.rpartition(".")
    holder = ours.get_submodule(parent)
    shape = holder.get_parameter(leaf).shape
    if [n for n in shape if n != 1] != [n for n in tensor.shape if n != 1]:
        raise SeamError(_message(family, f"{where} has shape {tuple(tensor.shape)}, our {name} needs {tuple(shape)}"))
    if isinstance(tensor, nn.Parameter) and tensor.shape == shape:
        setattr(holder, leaf, tensor)
    else:
        setattr(holder, leaf, nn.Parameter(tensor.detach().view(shape), requires_grad=tensor.requires_grad))


def check_call(family: Family, t: Transplant, kind: type) -> None:
    """Raise SeamError unless `kind` is called with the arguments that our component understands."""
    problem = call_problem(t, kind)
    if problem:
        raise SeamError(_message(family, problem))


def call_problem(t: Transplant, kind: Any) -> str:
    """What is wrong with the call signature of `kind`; empty if nothing."""
    parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
    names = {p.name for p in parameters}
    absent = [name for name in t.call if name not in names]
    required = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in t.call
    ]
    if absent:
        return f"{kind.__name__}.forward has no argument {', '.join(absent)}; it takes {', '.join(sorted(names))}"
    if required:
        return f"{kind.__name__}.forward needs {', '.join(required)}, which our mixer does not know"
    return ""


def their_class(t: Transplant) -> Any:
    """The class that `t` replaces. Raises ImportError or AttributeError where this release has none."""
    return getattr(import_module(t.module), t.replaces)


def require(family: Family, held: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise SeamError for a configuration our mixer does not compute: {setting: (value, the only one known)}."""
    wrong = [f"{name} is {value!r}, only {known!r} is known" for name, (value, known) in held.items() if value != known]
    if wrong:
        raise SeamError(_message(family, "; ".join(wrong)))


def _message(family: Family, found: str, where: str = "") -> str:
    import transformers

    place = f" at {where}" if where else ""
    return (
        f"{family.model_type} of transformers {transformers.__version__} does not fit our mixer{place}: {found}. "
        f"Releases known to work: {', '.join(family.releases)}; install one of them"
    )
