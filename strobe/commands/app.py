"""``strobe app``: the dashboard."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from strobe.commands.common import options
from strobe.dashboards import launcher

SUMMARY = "open the dashboard in a browser, on this machine only"
ORDER = 10


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="bundled name or folder to begin with")
    parser.add_argument("--port", type=options.port, help="port to listen on (default: the first free one from 8501)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Serve the dashboard until it is interrupted. Raises PortInUse, and ValueError for a model that is not there."""
    query = None
    if args.model:
        from strobe.dashboards.loading import find

        query = {"model": find(args.model).name}
    launcher.launch(host=args.host, port=args.port, open_browser=not args.no_browser, query=query, say=say)
