"""Which optimiser gets which parameter."""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from strobe.models.training.config import TrainingConfig


def muon_parameters(model: nn.Module, adamw_modules: tuple[str, ...]) -> list[str]:
    """Names of the weights Muon should have: matrices of hidden `torch.nn.Linear` layers.

    Muon replaces the update by its nearest semi-orthogonal matrix, which is meant for maps between hidden spaces. A
    two-axis parameter that is no such map (a table of decays, a recurrent initial state) is left to AdamW, as are
    embeddings, weights shared with one, and layers with a word of `adamw_modules` in their dotted name.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return [
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and id(module.weight) not in embeddings
        and not set(name.split(".")).intersection(adamw_modules)
    ]


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """The optimisers of a run, in a fixed order.

    Raises ValueError where nothing is to be trained, or nothing by Muon.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(f"{type(model).__name__} was given to train; no parameter of it requires a gradient")
    chosen = muon_parameters(model, config.adamw_modules) if config.optimizer == "muon" else []
    if config.optimizer == "muon" and not chosen:
        raise ValueError(
            f"Muon was asked for; {type(model).__name__} has no hidden nn.Linear outside {config.adamw_modules}; "
            "use 'adamw'"
        )
    rest = [p for name, p in trained.items() if name not in chosen]
    decayed = [p for p in rest if p.ndim >= 2 and not getattr(p, "_no_weight_decay", False)]
    kept = {id(p) for p in decayed}
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": [p for p in rest if id(p) not in kept], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = []
    if rest:
        optimizers.append(AdamW([g for g in groups if g["params"]], lr=config.learning_rate, betas=config.betas))
    if chosen:
        # Scaled so that its update has AdamW's usual size (Liu et al. 2025, arXiv 2502.16982, equation 4):
        # one learning rate and one weight decay then serve both.
        matrices = [trained[name] for name in chosen]
        optimizers.append(
            Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return optimizers
