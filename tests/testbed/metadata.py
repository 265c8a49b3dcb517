"""The instance metadata service, version 2: it answers each caller about itself, and only with a token."""

import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testbed.bed import REGION
from testbed.moto_gaps import instances
from testbed.network import METADATA

_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "X-aws-ec2-metadata-token"
_ORDER = "/_test/spot-interrupt/"
_NOTICE_SECONDS = 120


def serve_metadata() -> None:
    """Serve until the process ends."""
    ThreadingHTTPServer((METADATA, 80), _Metadata).serve_forever()


class _Metadata(BaseHTTPRequestHandler):
    tokens: set[str] = set()  # noqa: RUF012  one set for all connections
    notices: dict[str, str] = {}  # noqa: RUF012

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        if self.path == "/latest/api/token" and self.headers.get(_TTL):
            token = secrets.token_urlsafe()
            self.tokens.add(token)
            self._answer(200, token)
        elif self.path.startswith(_ORDER):
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _NOTICE_SECONDS))
            self.notices[self.path.removeprefix(_ORDER)] = json.dumps({"action": "terminate", "time": when})
            self._answer(200)
        else:
            self._answer(400)

    def do_GET(self) -> None:
        if self.headers.get(_TOKEN) not in self.tokens:
            self._answer(401)
            return
        live = [each for each in instances(REGION) if each.state in ("pending", "running")]
        caller = next((each for each in live if each.private_ip == self.client_address[0]), None)
        data = self._data(caller) if caller is not None else {}
        key = self.path.removeprefix("/latest/meta-data/")
        self._answer(200, data[key]) if key in data else self._answer(404)

    def _data(self, instance: Any) -> dict[str, str]:
        data = {
            "instance-id": instance.id,
            "instance-life-cycle": instance.lifecycle or "on-demand",
            "instance-type": instance.instance_type,
            "local-ipv4": instance.private_ip,
            "placement/region": REGION,
        }
        if instance.id in self.notices:
            data["spot/instance-action"] = self.notices[instance.id]
        return data

    def _answer(self, status: int, body: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
