"""A model's card as Markdown, made from the figures that `strobe train` measured and nothing else."""

import json
from pathlib import Path
from typing import Any

from strobe.core.errors import CheckpointError


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card in `folder`. Raises CheckpointError if there is none or it is damaged."""
    path = Path(folder) / "card.json"
    try:
        card = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"asked for the card of {folder}: {path.name} cannot be read ({error})") from error
    if card.get("format") != "strobe-card" or card.get("version") != 1:
        raise CheckpointError(f"{path} is not a card of version 1; make the model again with `strobe train`")
    return card


def card_markdown(card: dict[str, Any]) -> str:
    """`card` as a page: what it is, how well it does beside its controls, and how to make it again."""
    training = card["training"]
    lines = [
        f"# {card['name']}",
        "",
        card["about"],
        "",
        f"- Layers: {', '.join(card['layers'])}; {card['parameters']:,} parameters, stored in bfloat16.",
        f"- Made by the recipe that `{card['command']}` follows, seed {card['seed']}: {training['steps']} steps of "
        f"{training['batch_size']} x {training['context']} = {card['tokens_seen']:,} tokens, {training['optimizer']}, "
        f"learning rate {training['learning_rate']:g}, {card['training_minutes']} minutes on {card['machine']}.",
        f"- Weights (SHA-256): `{card['weights_hash']}`",
        "",
        *_figures(card),
    ]
    return "\n".join(lines) + "\n"


def _figures(card: dict[str, Any]) -> list[str]:
    own = [line for table in card.get("tables", ()) for line in _table(table)]
    if "bits_per_byte" in card:
        return [*_language_figures(card), *own]
    return [*(_task_figures(card) if "score" in card else ()), *own]


def _table(table: dict[str, Any]) -> list[str]:
    """One of the maker's own: ``title``, ``columns``, ``rows`` and a ``note`` that names the control."""
    return [
        "",
        f"**{table['title']}**",
        "",
        f"| {' | '.join(table['columns'])} |",
        "|" + "---|" * len(table["columns"]),
        *(f"| {' | '.join(map(_cell, row))} |" for row in table["rows"]),
        "",
        table["note"],
    ]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _language_figures(card: dict[str, Any]) -> list[str]:
    data = card["data"]
    splits = data["splits"]
    rows = [("**this model**", card["bits_per_byte"]["test"]), *card["baselines_test"].items()]
    return [
        f"Data: the source of Python {data['python']}'s own standard library, {splits['train']['n_tokens']:,} training "
        f"tokens (byte-level BPE of {data['vocab_size']:,}); files held out by a hash of their path.",
        "",
        "| held-out test files | bits per byte |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in rows),
        "",
        f"Validation: {card['bits_per_byte']['valid']:.3f}. Measured over {card['evaluation']}. The other rows are the "
        "controls: a compressor, counting, and knowing nothing.",
    ]


def _task_figures(card: dict[str, Any]) -> list[str]:
    chance = "mean squared error" if card["task"] == "flip_flop" else "accuracy"
    return [
        f"Task: {card['task']} with {card['task_options']}.",
        "",
        "| | loss | accuracy |",
        "|---|---|---|",
        f"| **this model** | {card['score']['loss']:.2e} | {card['score']['accuracy']:.4f} |",
        f"| the same, untrained (control) | {card['score_untrained']['loss']:.2e} | "
        f"{card['score_untrained']['accuracy']:.4f} |",
        "",
        f"The best constant answer has {chance} {card['chance']:g}. Scored on 256 fresh sequences.",
    ]
