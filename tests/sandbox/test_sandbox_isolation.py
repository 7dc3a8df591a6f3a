"""The sandbox stands apart from the proxy that it is there to test."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import proxy.sandbox
from tests.sandbox.sandbox_driver import Driver

MODULES = sorted(Path(proxy.sandbox.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_imports_nothing_of_the_project(module: Path) -> None:
    """No module of the sandbox imports anything of the rest of the project."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or not (node.module or "").startswith("proxy")
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("proxy") for alias in node.names)


async def test_logs_no_secret(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is logged at the most talkative level, it holds no token, code or secret."""
    with caplog.at_level(logging.DEBUG):
        tokens = (await driver.exchange(await driver.code())).json
        await driver.refresh(tokens["refresh_token"])
        await driver.call("GET", "/v1/introspect", tokens["access_token"])
    assert not any(secret in caplog.text for secret in driver.sandbox.authority.secrets_issued())


def test_values_show_no_secret() -> None:
    """The repr of what holds a secret does not show it."""
    sandbox = proxy.sandbox.Sandbox()
    pair = sandbox.grant("acme")
    shown = repr((pair, sandbox.authority.current("acme"), sandbox.authority.client, sandbox.state))
    assert not any(secret in shown for secret in sandbox.authority.secrets_issued())
