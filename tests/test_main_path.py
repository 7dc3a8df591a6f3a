"""The main job over real sockets: what the caller sends, what Pleo gets, what the caller gets back."""

from __future__ import annotations

from proxy.sandbox import COMPANIES
from tests.harness import Proxy


async def test_a_request_without_credentials_is_answered_with_the_companys_data(proxy: Proxy) -> None:
    """A plain GET under the tenant's prefix gets that company's employees."""
    answer = await proxy.get("/acme/v2/employees")
    assert answer.status == 200
    assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES["acme"]}
