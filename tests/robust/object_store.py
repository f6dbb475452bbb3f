"""An S3 server on the loopback interface, and a door before it that refuses some of the writes."""

from __future__ import annotations

import http.client
import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

REFUSAL = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Door:
    """Passes every request on; refuses a share of the writes with ``status``, as an object store under load does."""

    def __init__(self, backend: tuple[str, int]) -> None:
        self.backend = backend
        self.share, self.status = 0.0, 503
        self.draw = random.Random(0)
        self.writes = self.refused = 0
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                writes = self.command in ("PUT", "POST")
                if writes and door.refuses():
                    self.reply(door.status, [("Content-Type", "application/xml")], REFUSAL)
                    return
                connection = http.client.HTTPConnection(*door.backend, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers))
                got = connection.getresponse()
                self.reply(got.status, got.getheaders(), got.read())
                connection.close()

            def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                length = str(len(body))
                for name, value in headers:
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    elif name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.lock = threading.Lock()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def refuses(self) -> bool:
        with self.lock:
            self.writes += 1
            refused = self.draw.random() < self.share
            self.refused += refused
            return refused


@contextmanager
def object_store() -> Iterator[Door]:
    """The door of a running S3 server, which the environment names."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    door = Door(server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", door.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        try:
            yield door
        finally:
            door.server.shutdown()
            server.stop()
