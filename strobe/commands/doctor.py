"""``strobe doctor``: what of strobe works on this machine."""

import json
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from strobe.core.export import browser_path
from strobe.core.provenance import versions

SUMMARY = "versions, scan backends, browser, and which Hugging Face families work here"
ORDER = 100


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Say versions, devices, scan backends, the browser for exports and the Hugging Face families."""
    found = report()
    if args.json:
        say(json.dumps(found, indent=2))
        return
    for section, facts in found.items():
        say(section)
        for name, value in facts.items():
            say(f"  {name:22} {value}")


def report() -> dict[str, dict[str, str]]:
    """Every section: name to what was found, in words."""
    import torch

    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (everything runs on the CPU)"
    browser = browser_path() or "none: PNG, SVG and PDF cannot be drawn; HTML and JSON can"
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"CUDA device": cuda, "CPU threads": str(torch.get_num_threads())},
        "scan backends": _backends(),
        "figures": {"browser": browser},
        "Hugging Face": _seam(),
        "bundled models": _bundled(),
    }


def _backends() -> dict[str, str]:
    from strobe.kernels import families

    return {name: _tried(lambda name=name: _of_family(name)) for name in families()}


def _of_family(name: str) -> str:
    """The backends of a family, and which one ``auto`` takes on this machine."""
    import torch

    from strobe.kernels import family
    from strobe.kernels.scan import choose_backend

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return f"{', '.join(family(name).backends)} (here auto takes {choose_backend(family(name), 'auto', device)})"


def _seam() -> dict[str, str]:
    def status() -> dict[str, Any]:
        from strobe.models.huggingface import seam_status

        return seam_status()

    try:
        found = status()
    except Exception as error:  # noqa: BLE001 - a doctor reports what is broken
        return {"seam": f"not available ({type(error).__name__}: {error})"}
    return {name: _one(s) for name, s in found.items()}


def _one(status: Any) -> str:
    if not status.works:
        return f"does not work: {status.problem}"
    mixers = f"our {', '.join(status.mixers)}" if status.mixers else "no recurrent mixer"
    return f"works ({mixers}; tested with transformers {', '.join(status.releases)})"


def _bundled() -> dict[str, str]:
    from strobe.dashboards.loading import bundled, facts, find, load

    names = bundled()
    return {n: _tried(lambda n=n: facts(load(find(n)))["Mixers"]) for n in names} or {"": "none in this build"}


def _tried(what: Callable[[], str]) -> str:
    try:
        return what()
    except Exception as error:  # noqa: BLE001 - a doctor reports what is broken
        return f"not available ({type(error).__name__}: {error})"
