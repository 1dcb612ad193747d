"""The gallery over HTTP, live while studies and recorders run."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import urlsplit

from ..core.errors import InputError
from .gallery import paths
from .live import LiveSite
from .theme import live_policy

_KINDS = {"html": "text/html", "js": "text/javascript", "json": "application/json"}
_LASTING = "private, max-age=3600"


def serve(
    results: Sequence[Path | str] | Path | str = "results",
    *,
    runs: Sequence[Path | str] | Path | str = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], object] = print,
) -> None:
    """Serve the gallery until it is interrupted; its pages follow studies that run and runs that are recorded.

    Only pages of the gallery are served, never a file by its path. Requests must name this machine in their Host
    header, so that no web page elsewhere can read these by a name that it points here.

    Args:
        results: folders with results, as for `gallery`.
        runs: recorded runs, or folders with such.
        host: address or name to listen at; anything but the default lets others read the pages.
        port: to listen at; 0 takes a free one.
        ready: called with the address once the server answers.

    Raises:
        InputError: the address cannot be listened at.
    """
    server = Server(LiveSite(paths(results), paths(runs)), host, port)
    try:
        ready(server.url)
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


class Server(ThreadingHTTPServer):
    """Answers from a site, one thread a request."""

    daemon_threads = True

    def __init__(self, site: LiveSite, host: str, port: int) -> None:
        self.site, self.host = site, host
        if not 0 <= port < 65536:  # a larger one would be taken modulo 65536
            raise InputError(f"a port is a number from 0 to 65535, not {port}")
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__((str(address[0]), int(address[1])), Handler)
        except (OSError, UnicodeError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InputError(
                f"cannot serve at {host or '*'} port {port} ({said}); choose another port, or 0 for a free one"
            ) from error

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own would ask the name service for this machine's name
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    @property
    def url(self) -> str:
        host = self.host if self.host not in ("", "0.0.0.0", "::") else socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server: by address, as localhost, or as it was told to listen."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        own = {"localhost", self.host.lower()}
        if self.host not in ("127.0.0.1", "::1", "localhost"):
            own.add(socket.gethostname().lower())
        return name in own or _is_address(name)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"phenoscope serve: {type(error).__name__}: {error}", file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD on names that the site knows."""

    server: Server
    server_version, sys_version = "phenoscope", ""
    timeout = 30  # seconds for a request to arrive

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.knows(hosts[0]):
            return self._send(
                HTTPStatus.FORBIDDEN, "This server answers to its own names only; open the address that it printed.\n"
            )
        path = self.path.partition("?")[0]
        name = path.removeprefix("/")
        if path.endswith("/"):
            name += "index.html"
        try:
            content = self.server.site.get(name) if path.startswith("/") else None
        except Exception as error:  # one page that cannot be made must not look like a server that is gone
            said = f"This page could not be made: {type(error).__name__}: {error}\n"
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, said)
        if content is None:
            return self._send(HTTPStatus.NOT_FOUND, "There is no such page.\n")
        lasting = name.endswith("plotly.min.js")
        return self._send(HTTPStatus.OK, content, _KINDS[name.rpartition(".")[2]], lasting=lasting)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "Pages can only be read here.\n")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_CONNECT = do_TRACE = _refuse

    def _send(self, status: HTTPStatus, content: str, kind: str = "text/plain", *, lasting: bool = False) -> None:
        body = content.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", _LASTING if lasting else "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", f"{live_policy()}; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pages ask every few seconds."""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
