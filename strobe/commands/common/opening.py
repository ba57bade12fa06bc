"""Models, texts and outputs as commands take them."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strobe.core.export import FORMATS
from strobe.core.result import Result
from strobe.dashboards import loading

_TABLE, _RESULT = ".csv", ".safetensors"
SUFFIXES = (*(f".{f}" for f in FORMATS), _TABLE, _RESULT)


def open_model(name: str) -> loading.Loaded:
    """The model called `name`. Unlike the dashboard, a command may fetch a hub model that is not on this machine."""
    try:
        return loading.load(loading.find(name))
    except loading.NotHere as absent:
        import strobe

        return loading.in_memory(absent.name, strobe.load(absent.name))


def text_of(args: Namespace) -> str:
    """The text asked for. Raises ValueError for one that is empty or not UTF-8."""
    if args.text is not None:
        text = args.text
    else:
        try:
            text = args.text_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{args.text_file} is not UTF-8 ({error.reason} at byte {error.start}); convert it"
            ) from error
    # The shell may hand over bytes that are no UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if not text.strip():
        raise ValueError("the text is empty; give at least one character that is not a space")
    return text


def check_out(path: Path) -> None:
    """Raise ValueError before the work if `path` cannot be written as asked."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out {path} has the suffix {path.suffix or 'none'!r}; it can be {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.parent}; make it first")
    if path.suffix.lower() in (".png", ".svg", ".pdf"):
        from strobe.core.export import browser_path

        if browser_path() is None:
            raise ValueError(
                f"--out {path} is drawn by Chrome or Chromium, and none was found; install one or set BROWSER_PATH, "
                "or ask for .html or .json"
            )


def write(result: Result, out: Path, say: Callable[[str], None], figure: Callable[..., Any] | None = None) -> None:
    """Write `result` as the suffix of `out` says, and beside a figure or table the result itself; say where it all came
    from. `figure` is drawn in place of the result's own."""
    from strobe.core.atomic import write_bytes
    from strobe.core.export import figure_bytes

    suffix, written = out.suffix.lower(), [out]
    if suffix == _RESULT:
        result.save(out)
    else:
        if suffix == _TABLE:
            write_bytes(out, result.to_frame().to_csv(index=False).encode("utf-8"))
        else:
            drawn = (figure or result.figure)()
            drawn.update_layout(
                meta={"strobe": {"result": type(result).__name__, "provenance": result.provenance.to_json()}}
            )
            write_bytes(out, figure_bytes(drawn, suffix.removeprefix(".")))
        written.append(result.save(out.with_suffix(_RESULT)))
    say(result.summary())
    said = result.summary()
    for line in result.provenance.summary().splitlines():
        if line not in said:
            say(f"  {line}")
    for path in written:
        say(f"wrote {path}")
