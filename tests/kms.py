"""AWS KMS for tests: moto's server on loopback, behind a relay that counts calls and can be switched off."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"
ALIAS = "alias/pleo-proxy"
URL = f"aws-kms://{REGION}/{ALIAS}"


class Relay(http.server.ThreadingHTTPServer):
    """Passes calls on to ``goal``; or fails them, with an answer of its own or by breaking off."""

    daemon_threads = True

    def __init__(self, goal: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.goal = goal
        self.up = True
        self.answer: tuple[int, bytes] | None = None
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Relay

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(self.headers["X-Amz-Target"].rpartition(".")[2])
        if not self.server.up:
            self.close_connection = True
            return
        status, answer = self.server.answer or self._passed_on(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _passed_on(self, body: bytes) -> tuple[int, bytes]:
        wanted = ("Content-Type", "X-Amz-Target", "Authorization", "X-Amz-Date")
        headers = {name: self.headers[name] for name in wanted if name in self.headers}
        request = urllib.request.Request(self.server.goal, body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def log_message(self, *_args: Any) -> None:
        """Nothing is logged."""


class Kms:
    """A KMS with one key under :data:`ALIAS`."""

    def __init__(self, relay: Relay, goal: str) -> None:
        self.relay = relay
        self._client = boto3.client(
            "kms",
            region_name=REGION,
            endpoint_url=goal,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        # moto keeps one state for all its servers in a process.
        with suppress(self._client.exceptions.AlreadyExistsException):
            self._client.create_alias(AliasName=ALIAS, TargetKeyId=self.create_key())

    @property
    def environ(self) -> Mapping[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.relay.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_key(self) -> str:
        """A further key, by its id."""
        return str(self._client.create_key()["KeyMetadata"]["KeyId"])

    def move_alias(self, key_id: str) -> None:
        """Let :data:`ALIAS` name another key."""
        self._client.update_alias(AliasName=ALIAS, TargetKeyId=key_id)

    def refuse(self, code: str, text: str = "") -> None:
        """Answer every call with an error from now on."""
        self.relay.answer = (400, json.dumps({"__type": code, "message": text}).encode())


@contextmanager
def running_kms() -> Iterator[Kms]:
    """A KMS on loopback."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    goal = f"http://{host}:{port}"
    relay = Relay(goal)
    serving = threading.Thread(target=relay.serve_forever, args=(0.02,))
    serving.start()
    try:
        yield Kms(relay, goal)
    finally:
        relay.shutdown()
        serving.join()
        relay.server_close()
        moto.stop()
