"""``strobe app``: the dashboard."""

from argparse import Namespace
from collections.abc import Callable

from strobe.dashboards import launcher


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Serve the dashboard until it is interrupted. Raises PortInUse, and ValueError for a model that is not there."""
    query = None
    if args.model:
        from strobe.dashboards.loading import find

        query = {"model": find(args.model).name}
    launcher.launch(host=args.host, port=args.port, open_browser=not args.no_browser, query=query, say=say)
