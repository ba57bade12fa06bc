"""One file a command: adding a command is adding the file.

It begins with the constants SUMMARY and ORDER, which are read without running it, and defines ``arguments(parser)`` and
``run(args, say)``.
"""

import ast
from pathlib import Path
from typing import NamedTuple

_CONSTANTS = ("SUMMARY", "ORDER")


class CommandFile(NamedTuple):
    """What a command says about itself. `module` is its name in this package."""

    module: str
    summary: str
    order: int

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.module.replace("_", "-")


def commands(folder: Path = Path(__file__).parent) -> dict[str, CommandFile]:
    """The commands in `folder` by name, in their order. Raises ValueError for one that lacks a constant."""
    found = sorted((_read(path) for path in folder.glob("[a-z]*.py")), key=lambda c: (c.order, c.module))
    return {command.name: command for command in found}


def _read(path: Path) -> CommandFile:
    # Parsed only: importing every command would load torch to print a line of help.
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _CONSTANTS
    }
    if missing := [name for name in _CONSTANTS if name not in values]:
        raise ValueError(f"the command {path.name} lacks {', '.join(missing)}; a command begins with SUMMARY and ORDER")
    return CommandFile(path.stem, values["SUMMARY"], int(values["ORDER"]))
