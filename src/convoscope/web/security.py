"""Who may ask what: hosts, origins, the token, sizes, and the policy that the browser enforces.

The page is a person's own network and pictures on a port of their machine. Other sites in the same browser must not
reach it (host names are checked against DNS rebinding, origins against forged requests), and other machines only with
the token.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "convoscope"
#: what everybody may read: the program itself, no data
OPEN = ("/static/", "/plot/", "/favicon.ico")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; frame-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


#: for a notebook: pages of this machine alone may show it in a frame
FRAMED = POLICY.replace(
    "frame-ancestors 'none'", "frame-ancestors http://localhost:* http://127.0.0.1:* http://[::1]:*"
)


def plot_policy(origin: str) -> str:
    """The policy of the sandboxed frame: Plotly builds functions from strings, so it gets a frame that holds nothing
    else, may connect to nothing, and has an origin of its own."""
    return (
        f"sandbox allow-scripts; default-src 'none'; script-src {origin}/plot/ 'unsafe-eval'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


class Guard:
    """ASGI middleware: refuses what must not come in, and puts the policy on what goes out."""

    def __init__(
        self, app: App, *, hosts: Iterable[str] = (), token: str | None = None, body: int = 1 << 20, upload: int = 0,
        framed: bool = False,
    ) -> None:  # fmt: skip
        self.app = app
        self.framed = framed
        self.token = token
        self.body, self.upload = body, upload
        self.hosts = {"localhost", "127.0.0.1", "::1", *(host.lower() for host in hosts)} - {""}
        #: bound to every address: any address literal will do, since a rebinding attack needs a name
        self.any_address = bool({"0.0.0.0", "::"} & self.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        path = str(scope.get("path", ""))
        refusal = self._refusal(scope, headers, path)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        if self.token is not None and not path.startswith(OPEN):
            stop = self._token(scope, headers, path)
            if stop is not None:
                await _answer(send, *stop)
                return
        limit = self.upload if path == "/api/pictures" else self.body
        await self.app(scope, _bounded(receive, limit), self._sending(send, scope, headers, path))

    def _refusal(self, scope: Scope, headers: dict[str, str], path: str) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._known(host):
            return 421, f"This server does not answer to the name {host!r}: open the address that it printed."
        origin = headers.get("origin")
        own = {f"http://{host}", f"https://{host}"}
        if origin is not None and origin not in own and not path.startswith(OPEN):
            return 403, "Another site's page asked: only the page of this server may."
        if headers.get("sec-fetch-site") == "cross-site" and path.startswith(("/api", "/b/")):
            return 403, "Another site's page asked: only the page of this server may."
        length = headers.get("content-length", "0")
        limit = self.upload if path == "/api/pictures" else self.body
        if not length.isdecimal():
            return 400, "The length of the request is no number."
        if int(length) > limit:
            return 413, f"The request is larger than {limit:,} bytes, which is the limit here."
        return None

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.hosts:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _token(self, scope: Scope, headers: dict[str, str], path: str) -> tuple[Any, ...] | None:
        assert self.token is not None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._fits(given) and path in ("/", "/docs"):
            rest = urlencode([(k, v) for k, v in query if k != "token"])
            # the token leaves the address line, and so the history and every link that is copied from it
            cookie = f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=604800"
            return 303, "", [("location", path + (f"?{rest}" if rest else "")), ("set-cookie", cookie)]
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(headers.get("cookie", ""))
        except CookieError:
            jar = SimpleCookie()
        bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
        for value in (jar[COOKIE].value if COOKIE in jar else "", bearer, given or ""):
            if value and self._fits(value):
                return None
        return 401, "This page needs its token: open the whole address that `convoscope serve` printed."

    def _fits(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), (self.token or "").encode())

    def _sending(self, send: Send, scope: Scope, headers: dict[str, str], path: str) -> Send:
        plot = path.startswith("/plot/")
        origin = f"{scope.get('scheme', 'http')}://{headers.get('host', '')}"
        policy = plot_policy(origin) if plot else FRAMED if self.framed else POLICY
        in_frame = plot or self.framed

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_policy_headers(policy, plot, in_frame)]
            await send(message)

        return sending


def _policy_headers(policy: str, plot: bool, in_frame: bool = False) -> list[tuple[bytes, bytes]]:
    found = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        # the sandboxed frame has an origin of its own, and must load Plotly all the same
        "cross-origin-resource-policy": "cross-origin" if plot else "same-origin",
        "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    }
    if not in_frame:
        found["x-frame-options"] = "DENY"
    return [(name.encode(), value.encode()) for name, value in found.items()]


def _bounded(receive: Receive, limit: int) -> Receive:
    """Stops reading a body that grows over the limit, whatever its header said."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                from starlette.exceptions import HTTPException

                raise HTTPException(413, f"The request is larger than {limit:,} bytes, which is the limit here.")
        return message

    return bounded


async def _answer(send: Send, status: int, text: str, extra: Iterable[tuple[str, str]] = ()) -> None:
    import json

    body = json.dumps({"detail": text}).encode() if text else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(k.encode(), v.encode()) for k, v in extra] + _policy_headers(POLICY, plot=False)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
