"""The head of an answer to a caller: what is added to the fields that came."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time

import pytest

from proxy.arrival import Arrival
from proxy.errors import Refusal
from proxy.headers import Fields, Headers
from proxy.heads import Head
from proxy.intake import CallerRequest
from proxy.response import CallerResponse


class Line:
    """A connection that remembers what is written to it."""

    arrival = Arrival("127.0.0.1")
    unwelcome: Refusal | None = None

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    async def drained(self) -> None:
        return

    def reset(self) -> None:
        return

    def own_address(self) -> str:
        return ""

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


def head_of(status: int, fields: Headers, *, method: str = "GET", body: bytes | None = b"") -> bytes:
    """What a caller gets of an answer."""
    line = Line()
    request = CallerRequest(Head(method, b"/", http_1_1=True, fields=Fields(())), line, None, persists=True)
    CallerResponse(status, b"", fields, body=body).begin(request)
    return line.written


@pytest.mark.parametrize("status", [200, 204, 304, 404, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_without_a_date_gets_that_of_now(method: str, status: int) -> None:
    """Who passes on an answer without a Date says when it came (RFC 9110 section 6.6.1)."""
    before = int(time())
    lines = head_of(status, [], method=method).split(b"\r\n")
    (date,) = (line.removeprefix(b"Date: ").decode() for line in lines if line.startswith(b"Date: "))
    assert date.endswith(" GMT")
    assert before <= parsedate_to_datetime(date).timestamp() <= time()


@pytest.mark.parametrize("name", [b"Date", b"date", b"DATE"])
def test_a_date_that_is_there_is_kept(name: bytes) -> None:
    """The time at which the answer was made stays that, whatever it is."""
    head = head_of(200, [(b"Data", b"x"), (name, b"long ago")])
    assert b"\r\n%b: long ago\r\n" % name in head
    assert head.lower().count(b"\r\ndate:") == 1


@pytest.mark.parametrize("fields", [[], [(b"content-LENGTH", b"2")]])
def test_the_length_is_told_once(fields: Headers) -> None:
    """A length that is among the fields is not added to, and one that is not is."""
    assert head_of(200, fields, body=b"ok").lower().count(b"\r\ncontent-length: 2\r\n") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_no_content_has_no_length(method: str) -> None:
    """A length that an upstream wrongly gives a 204 does not go on (RFC 9110 section 8.6)."""
    fields = [(b"A", b"1"), (b"Content-Length", b"0"), (b"B", b"2")]
    head = head_of(204, fields, method=method)
    assert head.startswith(b"HTTP/1.1 204 No Content\r\nA: 1\r\nB: 2\r\nDate: ")
    assert b"content-length" not in head.lower()
    assert b"Content-Length: 7\r\n" in head_of(304, [(b"Content-Length", b"7")], method=method)
