"""The addresses of the pages: each tells the browser at once where its server is, and every page has its name.

Streamlit's own page looks for its server by trying: of ``/lens`` it first asks below ``/lens/``, is told that nothing
is there, waits a tenth of a second, asks again, and only then connects. The first page it knows as ``/`` alone, so that
its name led to "page not found"; here it leads there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strobe.dashboards import fetched_ahead
from strobe.dashboards.app import PageFile

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

# Read by Streamlit's browser code before anything else (its `StreamlitWindowObject`): where the server is, and that no
# page around this one may send it messages.
_SERVER = (
    '<script>window.__streamlit = { BACKEND_BASE_URL: location.origin + "/", '
    "HOST_CONFIG: { allowedOrigins: [location.origin], useExternalAuthToken: false } }</script>"
)


def routes(pages: Sequence[PageFile]) -> "list[Route]":
    """A route for each of `pages`: the first one's name leads to ``/``, its query kept."""
    import streamlit
    from starlette.responses import HTMLResponse, RedirectResponse
    from starlette.routing import Route

    static = Path(streamlit.__file__).parent / "static"
    page = told_its_server((static / "index.html").read_text(encoding="utf-8"))
    page = page.replace("</head>", fetched_ahead.links(static) + "</head>", 1)

    async def named(request: "Request") -> "Response":
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    async def first(request: "Request") -> "Response":
        # A relative address: it cannot lead away from here, whatever Host the request names.
        return RedirectResponse(f"/?{request.url.query}" if request.url.query else "/")

    others = [Route(f"/{p.name}", named, methods=["GET"]) for p in pages[1:]]
    return [Route("/", named, methods=["GET"]), Route(f"/{pages[0].name}", first, methods=["GET"]), *others]


def told_its_server(page: str) -> str:
    """`page` with its server's address as the first thing in its head. Raises ValueError for a page without a head.

    >>> told_its_server("<html><head><title>") == f"<html><head>{_SERVER}<title>"
    True
    """
    before, head, after = page.partition("<head>")
    if not head:
        raise ValueError("Streamlit's index.html has no <head>; install the release that constraints.txt names")
    return f"{before}{head}{_SERVER}{after}"
