"""What of the seam works with the installed transformers, without loading a model (for ``strobe doctor``)."""

from dataclasses import dataclass

from strobe.models.huggingface import families
from strobe.models.huggingface.seam import call_problem, their_class


@dataclass(frozen=True)
class SeamStatus:
    """One family. `replaces`: transformers' classes; `mixers`: ours, in the same order (none: a pure transformer).

    `problem`: what does not fit, empty if nothing; `releases`: of transformers, on which the family's tests passed.
    """

    family: str
    replaces: tuple[str, ...]
    mixers: tuple[str, ...]
    problem: str
    releases: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


def seam_status() -> dict[str, SeamStatus]:
    """By model_type: whether transformers has the classes that we replace, called as we expect."""
    return {name: _status(name) for name in families.names()}


def _status(name: str) -> SeamStatus:
    family = families.get(name)
    assert family is not None
    problems = []
    for t in family.transplants:
        try:
            problem = call_problem(t, their_class(t))
        except (ImportError, AttributeError) as error:
            problem = f"{t.module} has no {t.replaces} ({error})"
        problems += [problem] if problem else []
    if not family.transplants:
        import transformers

        if not hasattr(transformers, family.architecture):
            problems.append(f"transformers {transformers.__version__} has no {family.architecture}")
    return SeamStatus(
        family=name,
        replaces=tuple(t.replaces for t in family.transplants),
        mixers=tuple(t.ours for t in family.transplants),
        problem="; ".join(problems),
        releases=family.releases,
    )
