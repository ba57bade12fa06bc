"""The browser that draws pictures: one for the process, started at the first picture and kept.

Starting it takes seconds and drawing tenths of one. kaleido's own server is not used: when its browser does not start,
its thread dies and whoever asked waits for ever (kaleido 1.5); here every wait has an end and every failure a reason.
"""

import asyncio
import atexit
import logging
import threading
from concurrent.futures import Future
from typing import Any

# Seconds: a cold start on a busy machine takes about four, a large heatmap about ten.
_START_LIMIT, _DRAW_LIMIT, _STOP_LIMIT = 60.0, 180.0, 10.0

_lock = threading.Lock()
_current: "tuple[str, _Browser] | None" = None


def draw(path: str, figure: dict[str, Any], options: dict[str, Any]) -> bytes:
    """`figure` as a picture, drawn by the browser at `path`, one at a time. A failure is raised and ends it."""
    global _current
    with _lock:
        if _current is not None and _current[0] != path:
            _close()
        if _current is None:
            _current = (path, _Browser(path))
        try:
            return _current[1].draw(figure, options)
        except BaseException:
            # One that hung or died would fail every later picture too.
            _close()
            raise


def close() -> None:
    """End the browser, if one was started. The next picture starts it again."""
    with _lock:
        _close()


def _close() -> None:
    global _current
    if _current is not None:
        browser, _current = _current[1], None
        browser.close()


atexit.register(close)


class _Browser:
    """A browser and the thread whose event loop talks to it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, name="strobe-browser", daemon=True)
        self._thread.start()

    def draw(self, figure: dict[str, Any], options: dict[str, Any]) -> bytes:
        drawer = self._started.result(timeout=_START_LIMIT)
        drawing = asyncio.run_coroutine_threadsafe(drawer.calc_fig(figure, opts=options), self._loop)
        return drawing.result(timeout=_DRAW_LIMIT)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_LIMIT)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        import kaleido

        try:
            # Without mathjax=False the page asks an outside host for MathJax.
            async with kaleido.Kaleido(n=1, mathjax=False, path=self._path) as drawer:
                self._started.set_result(drawer)
                await self._stop.wait()
        except Exception as error:
            if not self._started.done():
                self._started.set_exception(error)
            elif self._stop.is_set() and isinstance(error, OSError):
                # Every picture is drawn; a browser that is still writing its profile keeps the folder from going.
                logging.getLogger(__name__).info("the browser's temporary folder stays: %s", error)
            else:
                raise
