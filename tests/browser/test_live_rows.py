"""The script of the live view makes the rows that the server makes, of whatever the log holds."""

from __future__ import annotations

from playwright.async_api import Page

from proxy.facts import GrantNeedsReauth, RefreshFailed, RequestFinished, TenantsLoaded
from proxy.model import Outcome
from tests.browser.steps import log_in
from tests.harness import Proxy

ROWS = """(rows) => rows.map((row) => [...row.querySelectorAll('[data-field]')]
    .map((cell) => [cell.dataset.field, cell.textContent, cell.className]))"""


def request(number: int, **fields: object) -> RequestFinished:
    """A request that ended."""
    fact = RequestFinished(
        f"r{number}", tenant="acme", method="GET", path="/v2/employees", caller="127.0.0.1"
    )
    for name, value in fields.items():
        setattr(fact, name, value)
    return fact


async def test_the_script_and_the_server_make_the_same_rows(proxy: Proxy, page: Page) -> None:
    """What came while the page was open looks the same when it is loaded again."""
    await log_in(page, proxy, "/live")
    await page.get_by_text("New lines come by themselves.").wait_for()
    facts = (
        request(0, status=200, outcome="answered", duration_ms=9.96),
        request(1, status=200, outcome="answered", duration_ms=12.345),
        request(2, status=200, outcome="answered", duration_ms=1.6, retried=True),
        request(3, status=404, outcome="answered", duration_ms=0.25),
        request(4, status=503, outcome="needs-reauth", tenant=None, duration_ms=99999.0),
        request(5, status=499, path="/\u202egnp.exe\u2028\u0007\n\u00a0\U000e0041 x"),
        GrantNeedsReauth("globex", 3, "invalid_grant"),
        RefreshFailed("acme", 3, "expiring", Outcome.UNAVAILABLE, "503", 12.0, None),
        TenantsLoaded(3, ("a", "b"), (), ("c",)),
    )
    for fact in facts:
        proxy.app._emit(fact)
    rows = page.locator("#lines tr")
    await page.get_by_text("tenants 3, added a b, removed c").wait_for()
    made_by_script = (await rows.evaluate_all(ROWS))[: len(facts)]
    await page.reload()
    assert (await rows.evaluate_all(ROWS))[: len(facts)] == made_by_script
    assert len(made_by_script) == len(facts)
    shown = [cell[1] for row in reversed(made_by_script) for cell in row if cell[0] == "took"]
    assert shown[:5] == ["10.0 ms", "12 ms", "1.6 ms", "0.3 ms", "99999 ms"]
