"""Starts the dashboard: on this machine only, asking nothing outside it, and stopping cleanly.

Streamlit's own defaults listen on every interface, accept any Host header (so that a web page could reach the app by
DNS rebinding), send usage statistics and look up the machine's outside address; each is switched off here, above any
config file or environment variable of the user's.
"""

import logging
import socket
import sys
import threading
import time
import urllib.request
import uuid
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

_HERE = Path(__file__).resolve().parent
ENTRY = _HERE / "entry" / "app.py"
"""The script that Streamlit runs."""
_FIRST_PORT, _PORTS = 8501, 50
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Seconds until the server has to answer before a browser is opened.
_READY_LIMIT = 60.0
_log = logging.getLogger("strobe.dashboards")


class PortInUse(RuntimeError):
    """The port that was asked for is taken, or none is free."""


def settings(host: str, port: int) -> dict[str, Any]:
    """Streamlit's configuration for this app."""
    return {
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.allowedHosts": ["localhost", "127.0.0.1"] if host in _LOOPBACK else [host],
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.maxUploadSize": 50,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "browser.gatherUsageStats": False,
        "browser.serverAddress": host,
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "type",
        "client.showErrorLinks": False,
        # By default pages of Streamlit's own hosting may frame the app and send it messages.
        "client.allowedOrigins": [f"http://{f'[{host}]' if ':' in host else host}:{port}"],
        "runner.magicEnabled": False,
        # A click on a chart writes the key of a widget that also has a default.
        "global.disableWidgetStateDuplicationWarning": True,
        "theme.base": str(_HERE / "theme.toml"),
    }


def choose_port(host: str, asked: int | None) -> int:
    """`asked` if it is free, else the first free port from 8501 on where none was asked for. Raises PortInUse."""
    if asked is not None:
        if not _free(host, asked):
            raise PortInUse(f"port {asked} on {host} is in use; give another --port, or none to have a free one chosen")
        return asked
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        if _free(host, port):
            return port
    raise PortInUse(f"no port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} is free on {host}; give one with --port")


def launch(
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    query: dict[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Serve the dashboard until it is interrupted. `query`: what the first view shows. Raises PortInUse."""
    port = choose_port(host, port)
    import streamlit as st

    from strobe.dashboards import addresses
    from strobe.dashboards.app import pages

    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    address = f"{base}/?{urlencode(query)}" if query else base
    if host not in _LOOPBACK:
        say(f"warning: {host} can be reached from other machines, and the dashboard has no login")
    say(f"strobe dashboard: {address}   (Ctrl-C ends it)")
    app = st.App(ENTRY, routes=addresses.routes(pages()), lifespan=_lifespan, on_script_error=show_error_id)
    if open_browser:
        threading.Thread(target=_open_when_ready, args=(base, address, say), daemon=True).start()
    try:
        app.run(config=settings(host, port))
    except KeyboardInterrupt:
        # The server has shut down in order by now; this is only how it says why.
        say("strobe dashboard ended")
    return 0


def show_error_id(error: BaseException) -> bool:
    """Show an id in the page in place of a traceback, and the traceback under that id in the log."""
    import streamlit as st

    error_id = uuid.uuid4().hex[:8]
    _log.error("page failed, error id %s", error_id, exc_info=error)
    st.error(
        f"Something went wrong ({type(error).__name__}). Error id {error_id}: the terminal that runs strobe says more.",
        icon=":material/error:",
    )
    return True


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    yield
    from strobe.dashboards.jobs import runner

    runner().shutdown()


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            # As the server will: a port in TIME_WAIT can be had.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _open_when_ready(base: str, address: str, say: Callable[[str], None]) -> None:
    end = time.monotonic() + _READY_LIMIT
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{base}/_stcore/health", timeout=1):
                break
        except OSError:
            time.sleep(0.2)
    else:
        say(f"the dashboard did not answer within {_READY_LIMIT:.0f} seconds; open {address} yourself")
        return
    if not webbrowser.open(address):
        say(f"no browser could be opened; open {address} yourself")
