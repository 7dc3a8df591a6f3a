"""The table of those who run the proxy: their tokens, their sessions, single sign-on. No I/O.

A rule between two settings stands on the later one, so that all broken rules are found in one pass.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from proxy.addresses import Network
from proxy.config.secret_refs import SecretSetting
from proxy.config.sections import Section
from proxy.config.values import FieldName, Kind, ProxyNetworks, Rule, Seconds, UserPatterns

_IDLE_LEAST_S = 300
"""When a session was seen is stored about once a minute."""


class Admin(Section):
    """Who may use the operator's listener."""

    token: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None,
        description="The token of the operator, for the pages and as bearer. Generated and printed once if "
        "absent.",
    )
    viewer_token: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None,
        description="A second token, for those who may see everything and change nothing. Absent: there is "
        "none.",
    )
    session_idle_s: Annotated[Seconds, Field(ge=_IDLE_LEAST_S)] = Field(
        default=1800.0,
        description="A session on the pages ends after so long without a request: the 15 to 30 minutes that "
        "OWASP names for what is not a bank.",
    )
    session_max_s: Seconds = Field(
        default=43200.0,
        validate_default=True,
        description="A session ends so long after the login, whatever happens in it: a working day and some.",
    )
    sso_header: FieldName | None = Field(
        default=None,
        description="Single sign-on: the header in which an authenticating proxy, such as oauth2-proxy, "
        "names the user. Absent: there is none, and no header is believed.",
    )
    sso_proxies: ProxyNetworks | None = Field(
        default=None,
        validate_default=True,
        description="Networks of those proxies. The header is believed from the other end of a connection "
        "that is in one of them, and from nobody else.",
    )
    sso_operators: UserPatterns | None = Field(
        default=None,
        validate_default=True,
        description="Users with the role operator: addresses as the header has them, or `*@` and a domain.",
    )
    sso_viewers: UserPatterns | None = Field(
        default=None,
        validate_default=True,
        description="Users with the role viewer, who see everything and change nothing. Who is in both lists "
        "is an operator.",
    )

    @field_validator("session_max_s")
    @classmethod
    def _idle_ends_first(cls, longest: float, info: ValidationInfo) -> float:
        idle: float | None = info.data.get("session_idle_s")
        if idle is not None and idle > longest:
            raise Rule(f"must not be less than admin.session_idle_s ({idle:g}); raise it, or lower that")
        return longest

    @field_validator("sso_proxies")
    @classmethod
    def _somebody_is_believed(
        cls, proxies: tuple[Network, ...] | None, info: ValidationInfo
    ) -> tuple[Network, ...] | None:
        _has_effect(proxies, info)
        if not proxies and info.data.get("sso_header"):
            raise Rule("admin.sso_header needs it; name the networks of the authenticating proxies")
        return proxies

    @field_validator("sso_operators")
    @classmethod
    def _operators_have_effect(
        cls, users: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        _has_effect(users, info)
        return users

    @field_validator("sso_viewers")
    @classmethod
    def _somebody_is_let_in(
        cls, users: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        _has_effect(users, info)
        operators: tuple[str, ...] | None = info.data.get("sso_operators", ("wrong",))
        if info.data.get("sso_header") and not users and not operators:
            raise Rule("admin.sso_header lets nobody in; add users here or to admin.sso_operators")
        if set(users or ()) & set(operators or ()):
            raise Rule(
                "who is in admin.sso_operators too gains nothing here; remove them from one of the two"
            )
        return users


def _has_effect(value: object, info: ValidationInfo) -> None:
    if value is not None and info.data.get("sso_header", "wrong") is None:
        raise Rule("has no effect without admin.sso_header; remove it, or set that")
