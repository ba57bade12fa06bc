"""What every analysis returns: numbers, where they came from, and the ways to look at them; no model and no torch.

A subclass lists its fields, draws itself and makes itself a table; saving, loading and exporting are here, once:

    @dataclass(frozen=True)
    class LensTrajectory(Result):
        kl: Float[np.ndarray, "layers time"]
        tokens: list[str]

        def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure": ...
        def to_frame(self) -> "pandas.DataFrame": ...

    LensTrajectory(kl, tokens, provenance=provenance).save("lens.safetensors")

A file is one safetensors file: arrays are its tensors, everything else is JSON in its header. A result may hold others
of its kind (its control), and lists or dictionaries of arrays.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from strobe.core import codec
from strobe.core.provenance import Provenance
from strobe.core.tokens import escape_html

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Result classes by name: how a file finds its class.
_CLASSES: dict[str, type["Result"]] = {}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result(ABC):
    """The frozen answer of an analysis, with its provenance. Fields are numpy arrays and plain values.

    Subclasses are ``@dataclass(frozen=True)``, have a name no other result has, and give `figure` and `to_frame`. Their
    own fields are positional, `provenance` is by keyword. One that checks itself in ``__post_init__`` calls
    ``super().__post_init__()``. `version` is raised when the meaning of the fields changes.
    """

    version: ClassVar[int] = 1
    provenance: Provenance

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # dataclass would write these three anew for each subclass: tuples of arrays neither compare nor hash nor print.
        for name in ("__eq__", "__hash__", "__repr__"):
            if name not in cls.__dict__:
                setattr(cls, name, getattr(Result, name))
        other = _CLASSES.get(cls.__name__)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} has the name of the result class "
                f"{other.__module__}.{other.__qualname__}; a file finds its class by name, so give it another"
            )
        _CLASSES[cls.__name__] = cls

    def __post_init__(self) -> None:
        # Said now, not when an hour's work is to be saved.
        codec.encode(self._values(), type(self).__name__, {}, _as_record)

    @abstractmethod
    def figure(self, *args: Any, **options: Any) -> "plotly.graph_objects.Figure":
        """The figure of this result, with title, units and control; no model, disk or network."""

    @abstractmethod
    def to_frame(self) -> "pandas.DataFrame":
        """The numbers in long form: one row per observation, a column per variable."""

    def summary(self) -> str:
        """The result in a few lines of text: here its fields and where it came from; subclasses say what was found."""
        lines = [type(self).__name__]
        lines += [f"  {name}: {_describe(value)}" for name, value in self._values().items() if name != "provenance"]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all; returns its path.

        Raises FileNotFoundError if the folder does not exist.
        """
        from strobe.core import result_file

        return result_file.write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """The result of this class saved at `path`.

        Raises ResultFileError for a file that is missing, damaged, of another class or of a newer version.
        """
        from strobe.core import result_file

        return result_file.read(path, cls)

    def export(
        self,
        path: str | Path,
        *,
        width: int | None = None,
        height: int | None = None,
        scale: float | int = 2.0,
        **figure_options: Any,
    ) -> Path:
        """Write the figure to `path`; by its suffix: .html and .json always, .png, .svg and .pdf where a browser is.

        The provenance travels in the html and json (as the figure's ``layout.meta``). Other options go to `figure`.
        Raises ExportError for another suffix, or a picture without a browser.
        """
        from strobe.core.export import export_figure

        figure = self.figure(**figure_options)
        figure.update_layout(meta={"strobe": {"result": type(self).__name__, "provenance": self.provenance.to_json()}})
        return export_figure(figure, path, width=width, height=height, scale=scale)

    def _values(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def _repr_html_(self) -> str:
        name, text = escape_html(type(self).__name__), escape_html(self.summary())
        return f'<div role="group" aria-label="{name}"><pre style="white-space:pre-wrap">{text}</pre></div>'

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={_describe(value)}" for name, value in self._values().items() if name != "provenance"
        )
        return f"{type(self).__name__}({shown}, model={self.provenance.model!r})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Result)
        return _equal(self._values(), other._values())

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.provenance))


def load_result(path: str | Path) -> Result:
    """The result saved at `path`, of whatever class it is.

    Raises ResultFileError for a file that is missing, damaged, of an unknown class or of a newer version.
    """
    from strobe.core import result_file

    return result_file.read(path, None)


def result_class(name: str) -> type[Result] | None:
    """The result class called `name`, or None if no module that has been imported defines one."""
    return _CLASSES.get(name)


def _as_record(value: Any) -> codec.Record | None:
    if isinstance(value, Provenance):
        return codec.Record("Provenance", {f.name: getattr(value, f.name) for f in fields(value)})
    return codec.Record(type(value).__name__, value._values()) if isinstance(value, Result) else None


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, Result):
        return type(value).__name__
    text = repr(value)
    return (
        text
        if len(text) <= 60
        else f"{type(value).__name__} of {len(value)}"
        if hasattr(value, "__len__")
        else text[:57] + "..."
    )


def _equal(a: Any, b: Any) -> bool:
    """Equal in type, shape, dtype and every value; NaN equals NaN, as a saved result has to equal itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc")
    if isinstance(a, dict):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Provenance):
        return a.to_json() == b.to_json()
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
