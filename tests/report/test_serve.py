import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from phenoscope.catalogue import entries
from phenoscope.core.errors import InputError
from phenoscope.report import serve as serve_site
from phenoscope.report.live import LiveSite
from phenoscope.report.running import running
from phenoscope.report.serve import Server

from .written import verdict_facts, write_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results to read, and a secret beside them; not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    write_result(folder / "results", verdict_facts("snip", ["holds"]))
    write_result(folder / "results", verdict_facts("snip", ["not judged"], preset="smoke"))
    (folder / "secret.txt").write_text("the secret")
    (folder / "results" / "own.txt").write_text("the secret")
    return folder


def started(site, host="127.0.0.1"):
    server = Server(site, host, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    return server, thread


def stopped(server, thread):
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(folder):
    server, thread = started(LiveSite([folder / "results"], [folder / "runs"]))
    yield server
    stopped(server, thread)


def ask(server, target, method="GET", **headers):
    """Status, headers and body of an answer; the target goes out as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body.decode("utf-8", "replace")


def test_pages_scripts_and_state_are_served(server):
    for target, kind, part in [
        ("/", "text/html", f"{len(entries())} papers"),
        ("/index.html?x=1", "text/html", f"{len(entries())} papers"),
        ("/snip.html", "text/html", "SNIP"),
        ("/snip--smoke-0123456789ab.html", "text/html", "judges nothing"),
        ("/lime.html", "text/html", "<h1>"),
        ("/page.js", "text/javascript", "Plotly"),
        ("/cards.js", "text/javascript", "filter"),
        ("/live.js", "text/javascript", "live.json"),
        ("/live.json", "application/json", '"versions"'),
    ]:
        status, headers, body = ask(server, target)
        assert status == 200 and headers["Content-Type"] == f"{kind}; charset=utf-8", target
        assert part in body and int(headers["Content-Length"]) == len(body.encode()), target


def test_every_answer_forbids_what_a_page_does_not_need(server):
    for target in ("/", "/nothing", "/live.json"):
        _, headers, _ = ask(server, target)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


OUTSIDE = [
    *("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/%2e%2e%2fsecret.txt", "/%252e%252e/secret.txt"),
    *("/..\\secret.txt", "/..%5csecret.txt", "/own.txt", "/./own.txt", "//own.txt", "/snip/../own.txt", "/%00"),
    *("/snip/default-0123456789ab/verdict.json", "/verdict.json", "/results/own.txt", "/.running/x.json", "/snip"),
    *("/etc/passwd", "//etc/passwd", "/%2fetc/passwd", "/C:/secret.txt", "file:///etc/passwd", "http://x/snip.html"),
    *("*", "own.txt", "/snip.html/", "/snip.html%00", "/SNIP.html", "/snip--.html", "/snip--smoke-../.html", "/runs/"),
    *("/runs/../snip.html", "/runs/cards.js", "/runs/snip.html", "/\udcff.html", "/" + "a" * 10_000),
]


@pytest.mark.parametrize("target", OUTSIDE, ids=range(len(OUTSIDE)))
def test_nothing_is_served_but_the_sites_own_pages(server, folder, target):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as line:
        line.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode("utf-8", "surrogateescape"))
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.0 404", b"HTTP/1.0 400")) and b"the secret" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("absolute", [True, False])
def test_absolute_paths_on_this_disk_are_not_found(server, folder, absolute):
    path = str(folder / "results" / "own.txt")
    assert ask(server, path if absolute else path.lstrip("/"))[0] in (400, 404)


def test_results_and_runs_that_are_links_to_outside_are_not_shown(tmp_path, runs):
    outside = write_result(tmp_path / "outside", verdict_facts("snip", ["refuted"]))
    results, recorded = tmp_path / "results", tmp_path / "runs"
    recorded.mkdir()
    shutil.copytree(runs[0], recorded / "inner")
    (recorded / "inner" / "summary.json").unlink()
    (recorded / "inner" / "summary.json").symlink_to(outside / "verdict.json")
    (recorded / "linked").symlink_to(runs[0])
    home = write_result(results, verdict_facts("lime", ["holds"]), drawn=False)
    (home / "figure.json").symlink_to(outside / "figure.json")
    (results / "snip").symlink_to(outside.parent)
    site = LiveSite([results], [recorded])
    assert "1 study run so far" in site.get("index.html")
    assert "class='claim refuted'" not in site.get("snip.html")
    assert "this result has no figure" in site.get("lime.html").lower()
    assert "linked" not in site.get("index.html")
    assert "is a link to outside the run" in site.get("runs/run-inner.html")
    assert "is a link to outside the run" in site.get("runs/index.html")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[(name, 200) for name in ("localhost", "LOCALHOST:80", "127.0.0.1:9999", "[::1]:8000", "192.168.1.7")],
        *[
            (name, 403)
            for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "[::1")
        ],
        (None, 403),
    ],
)
def test_only_requests_that_name_this_machine_are_answered(server, host, status):
    found, _, body = ask(server, "/live.json", Host=host)
    assert found == status and ("versions" in body) == (status == 200)


def test_two_host_headers_are_refused(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as line:
        line.sendall(b"GET /live.json HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.0 403")


def test_only_reading_is_allowed(server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        status, headers, _ = ask(server, "/", method)
        assert status == 405 and headers["Allow"] == "GET, HEAD"
    assert ask(server, "/", "BREW")[0] == 501
    status, headers, body = ask(server, "/", "HEAD")
    assert status == 200 and int(headers["Content-Length"]) > 10_000 and body == ""


def test_a_page_that_cannot_be_made_says_why(server, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr("phenoscope.report.live.study_pages", broken)
    status, _, body = ask(server, "/cam.html")
    assert status == 500 and "RuntimeError: out of order" in body


def test_a_page_is_made_anew_when_its_result_changes_and_only_then(tmp_path, monkeypatch):
    monkeypatch.setattr("phenoscope.report.live._SECONDS_OF_A_LOOK", 0.0)
    site = LiveSite([tmp_path / "results"], [])
    before = json.loads(site.state())["versions"]
    first, other = site.get("snip.html"), site.get("lime.html")
    home = write_result(tmp_path / "results", verdict_facts("snip", ["holds"]))
    between = json.loads(site.state())["versions"]
    assert {page for page in between if between[page] != before[page]} == {"snip", "index.html"}
    assert site.get("lime.html") is other and site.get("snip.html") != first
    assert f"data-version='{between['snip']}'" in site.get("snip.html")
    (home / "verdict.json").write_text("{")
    os.utime(home / "verdict.json", (1, 1))
    assert json.loads(site.state())["versions"]["snip"] != between["snip"]
    assert "cannot be read" in site.get("snip.html")
    shutil.rmtree(tmp_path / "results" / "snip")
    assert json.loads(site.state())["versions"]["snip"] == before["snip"]


def test_a_run_that_is_recorded_appears_and_its_page_changes(tmp_path, runs, monkeypatch):
    monkeypatch.setattr("phenoscope.report.live._SECONDS_OF_A_LOOK", 0.0)
    site = LiveSite([], [tmp_path / "runs"])
    assert "holds no recorded run yet" in site.get("index.html") and site.get("runs/index.html") is None
    shutil.copytree(runs[0], tmp_path / "runs" / "deep" / "mine")
    assert "runs/run-deep-mine.html" in site.get("index.html")
    assert "<h1>deep/mine</h1>" in site.get("runs/run-deep-mine.html")
    assert "deep/mine" in site.get("runs/index.html")
    before = json.loads(site.state())["versions"]
    os.utime(tmp_path / "runs" / "deep" / "mine" / "state.json", (5, 5))
    after = json.loads(site.state())["versions"]
    assert {page for page in after if after[page] != before[page]} == {"runs/run-deep-mine.html", "runs/index.html"}
    (tmp_path / "runs" / "deep" / "mine" / "run.json").write_text("{")
    assert "cannot be read" in site.get("runs/run-deep-mine.html")


def test_what_runs_is_told_and_what_is_damaged_old_or_unknown_is_not(tmp_path):
    now, folder = time.time(), tmp_path / ".running"
    folder.mkdir()
    good = {"id": "snip", "done": 12, "total": 40, "started": now - 90, "updated": now - 5}
    (folder / "snip-1.json").write_text(json.dumps(good))
    for i, other in enumerate([
        {"id": "stranger"}, {"id": ["snip"]}, good | {"updated": now - 1e6}, [], "x", good | {"id": "lime", "done": -1}
    ]):  # fmt: skip
        (folder / f"x-{i}.json").write_text(json.dumps(other))
    (folder / "cut.json").write_text("{")
    (folder / ".hidden.json").write_text(json.dumps(good))
    (tmp_path / "elsewhere.json").write_text(json.dumps(good))
    (folder / "link.json").symlink_to(tmp_path.parent / "outside.json")
    told = running([tmp_path, tmp_path / "nowhere"], {"snip", "lime"})
    assert [each["id"] for each in told] == ["lime", "snip"]
    assert told[1] == {
        "id": "snip",
        "done": 12,
        "total": 40,
        "begun": pytest.approx(90, abs=20),
        "silent": told[1]["silent"],
    }
    assert told[0]["done"] == 0


def test_a_port_that_is_taken_or_an_address_that_is_not_here_is_an_error_that_says_what_to_do(server):
    with pytest.raises(InputError, match=rf"port {server.server_port} .*choose another port"):
        serve_site([], port=server.server_port)
    with pytest.raises(InputError, match="cannot serve at"):
        serve_site([], host="no.such.host.invalid")
    with pytest.raises(InputError, match="0 to 65535, not 70000"):
        serve_site([], port=70_000)


def test_six_and_four_are_both_addresses():
    try:
        server, thread = started(LiveSite([], []), host="::1")
    except InputError:
        pytest.skip("this machine has no IPv6")
    try:
        assert server.url == f"http://[::1]:{server.server_port}/"
    finally:
        stopped(server, thread)


def test_ctrl_c_ends_it_without_a_word(tmp_path):
    # Ctrl-C is ignored by what a shell starts in the background, and by its children: undo that.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from phenoscope.report import serve; serve({str(tmp_path)!r}, port=0)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "", "")
