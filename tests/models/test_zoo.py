"""Oracle: the files that ship, held against the recipes that `strobe train` follows."""

import json
from dataclasses import asdict

import pytest

import strobe
from strobe.models import zoo
from strobe.models.zoo.card import card_markdown, read_card
from strobe.models.zoo.recipes import recipe

NAMES = strobe.available()


def plain(value):
    """`value` as JSON writes and reads it: tuples are lists, keys are text."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_the_recipe_its_weights_were_made_by(name):
    # A recipe that was changed after the weights were made would leave a command that makes other weights.
    card, made = read_card(zoo.folder(name)), recipe(name)
    assert card["command"] == f"strobe train {name}" and card["name"] == name
    assert card["training"] == plain(asdict(made.training)) and card["seed"] == made.training.seed
    assert card["layers"] == list(made.config.layers) and card["about"] == made.about
    shipped = json.loads((zoo.folder(name) / "config.json").read_text())
    wanted = plain(asdict(made.config))
    assert {key: shipped[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_of_the_weights_beside_it(name):
    card, model = read_card(zoo.folder(name)), strobe.load(name)
    assert card["weights_hash"] == model.weights_hash()
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert f"strobe train {name}" in card_markdown(card) and card["weights_hash"] in card_markdown(card)


def test_the_zoo_stays_small():
    folder = zoo.folder(NAMES[0]).parent
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 30_000_000
