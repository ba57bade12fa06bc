"""Oracle: a real server, asked over sockets as a browser and as a hostile page would ask it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from strobe.dashboards import fetched_ahead, launcher


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(port: int, *more: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "strobe.cli", "app", "--no-browser", "--port", str(port), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A background process of a shell may ignore the interrupt that a terminal would send.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                return process
        except OSError:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.2)
    process.kill()
    raise AssertionError(f"no answer: {process.stdout.read()}")


def websocket_status(port: int, host: str, origin: str) -> int:
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(request.encode())
        return int(line.recv(200).split()[1])


@pytest.fixture(scope="module")
def served():
    port = free_port()
    process = serve(port)
    yield port, process
    if process.poll() is None:
        process.kill()
        process.wait(20)


def test_it_listens_on_this_machine_only(served):
    port, _ = served
    with socket.socket() as other:
        other.settimeout(2)
        # 127.0.0.2 is this machine too, but not the address that was bound.
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_a_page_of_another_host_cannot_reach_it(served):
    port, _ = served
    home = f"127.0.0.1:{port}"
    assert websocket_status(port, home, f"http://{home}") == 101
    assert websocket_status(port, "evil.example", "http://evil.example") == 403
    assert websocket_status(port, home, "http://evil.example") == 403


def test_a_page_knows_its_server_and_the_first_pages_name_leads_to_it(served):
    port, _ = served
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/lens?position=2", timeout=10) as answer:
        page = answer.read().decode()
    # Before any script of Streamlit's, and nothing of another host.
    assert page.index("BACKEND_BASE_URL") < page.index('<script type="module"')
    assert "allowedOrigins: [location.origin]" in page
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/start?text=a%26b", timeout=10) as answer:
        assert answer.url == f"http://127.0.0.1:{port}/?text=a%26b"


def test_what_widgets_need_is_named_in_the_page_once_and_is_there(served):
    port, _ = served
    home = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{home}/lens", timeout=10) as answer:
        head = answer.read().decode().partition("</head>")[0]
    named = re.findall(r'<link rel="modulepreload" crossorigin href="\./(static/js/[^"]+)">', head)
    assert len(named) == len(set(named))
    for path in named:
        with urllib.request.urlopen(f"{home}/{path}", timeout=10) as answer:
            code = answer.read().decode()
        # Whatever a part imports, in any of the ways the language has, is named too: the browser need not look for it.
        for imported in re.findall(r'(?:from|import)\s*"\./([^"]+\.js)"', code):
            assert imported in head


def test_a_release_of_streamlit_without_a_widgets_part_is_said(tmp_path):
    (tmp_path / "static" / "js").mkdir(parents=True)
    with pytest.raises(ValueError, match="0 parts named BidiComponent, not one; install the release"):
        fetched_ahead.links(tmp_path)


def test_a_port_in_use_is_one_clear_line(served):
    port, _ = served
    done = subprocess.run(
        [sys.executable, "-m", "strobe.cli", "app", "--no-browser", "--port", str(port)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"strobe app: port {port} on 127.0.0.1 is in use; give another --port, or none to have a free one chosen"
    )


def test_an_interrupt_ends_it_in_order(served):
    _, process = served
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert "strobe dashboard ended" in out
    assert "Traceback" not in out


def test_a_free_port_is_found_when_none_is_asked_for(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(launcher, "_FIRST_PORT", port)
        chosen = launcher.choose_port("127.0.0.1", None)
        assert port < chosen < port + 50
        monkeypatch.setattr(launcher, "_PORTS", 1)
        with pytest.raises(launcher.PortInUse, match="give one with --port"):
            launcher.choose_port("127.0.0.1", None)


def test_nothing_of_the_hardening_is_left_to_streamlits_defaults():
    found = launcher.settings("127.0.0.1", 1)
    assert found["server.address"] == "127.0.0.1"
    assert found["server.allowedHosts"] == ["localhost", "127.0.0.1"]
    assert found["browser.gatherUsageStats"] is False
    assert found["server.enableXsrfProtection"] is True
    assert found["server.fileWatcherType"] == "none"
    assert found["client.showErrorDetails"] == "type"
    assert found["client.showErrorLinks"] is False
    assert found["client.allowedOrigins"] == ["http://127.0.0.1:1"]
    assert found["runner.magicEnabled"] is False
    # Every name is one that this Streamlit knows.
    from streamlit import config

    for name in found:
        config.get_option(name)


def test_the_browser_is_opened_once_the_server_answers(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    tries = iter([OSError("not yet"), None])

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def answer(url, timeout):
        assert url == "http://127.0.0.1:1/_stcore/health"
        if (problem := next(tries)) is not None:
            raise problem
        return Answer()

    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setattr("time.sleep", lambda s: None)
    launcher._open_when_ready("http://127.0.0.1:1", "http://127.0.0.1:1/?model=a", lambda line: None)
    assert opened == ["http://127.0.0.1:1/?model=a"]
