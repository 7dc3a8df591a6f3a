"""The authoriser's pages, put together: which texts of the catalogue, and what stands in them.

Gets what happened as a value and gives a page. Must never hold a text itself, nor show a secret, nor anything
of Pleo's but the name of a company.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from markupsafe import Markup

from proxy import texts
from proxy.admin.answers import page
from proxy.admin.services import Services
from proxy.admin.words import Tone
from proxy.authorize import FLOW_LIFETIME_S
from proxy.config.values import origin_of
from proxy.consents import Ending, Invitation
from proxy.errors import ConsentFault

_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=_-]{1,64}@[A-Za-z0-9.-]{1,253}")
_MINUTES = int(FLOW_LIFETIME_S // 60)
_MAY_BE_WELL = {
    ConsentFault.LINK_USED,
    ConsentFault.PAGE_SKIPPED,
    ConsentFault.STATE_UNKNOWN,
    ConsentFault.DENIED,
    ConsentFault.CANCELLED,
}
"""What is no failure of anybody's, or was meant."""


@dataclass(frozen=True, slots=True)
class _Voice:
    """The catalogue in which this proxy speaks, with what may stand in any text."""

    catalogue: texts.Catalogue
    values: dict[str, Any]

    def say(self, key: str, /, **values: object) -> Markup:
        """As :meth:`proxy.texts.Catalogue.say`."""
        return self.catalogue.say(key, **{**self.values, **values})


def connect_page(services: Services, invitation: Invitation, go_on: str) -> web.Response:
    """The page of a link that can be used.

    :param go_on: where the way to Pleo begins, relative to the page.
    """
    voice = _voice(services)
    known = invitation.company is not None
    pleo = urlsplit(services.authorize.settings.endpoint).hostname or ""
    return _page(
        voice,
        "connect.html",
        invitation.reference,
        asker=voice.values["organisation"],
        contact=voice.values["contact"],
        has_contact=services.authorize.settings.asker.contact is not None,
        company=voice.say(
            "connect.company_known" if known else "connect.company_open",
            tenant=_strong(invitation.tenant),
            company=_code(invitation.company or ""),
        ),
        scopes=_access(voice, invitation.scopes),
        steps=[
            voice.say("connect.step_login", pleo=_strong(pleo)),
            voice.say("connect.step_known" if known else "connect.step_open"),
            voice.say("connect.step_back", minutes=_MINUTES),
        ],
        until=voice.say("connect.until", until=voice.catalogue.instant(invitation.expires_at)),
        go_on=go_on,
    )


def ending_page(services: Services, ending: Ending) -> web.Response:
    """The page with which it ends."""
    voice = _voice(services)
    if ending.fault is None:
        return _connected_page(voice, ending)
    fault = f"faults.{ending.fault.slug}"
    values = {
        "tenant": _strong(ending.tenant or ""),
        "at": voice.catalogue.instant(ending.at or 0.0),
        "minutes": _MINUTES,
    }
    return _page(
        voice,
        "not_connected.html",
        ending.reference,
        status=ending.fault.status,
        tone=Tone.WARN if ending.fault in _MAY_BE_WELL else Tone.BAD,
        title=voice.say(f"{fault}.title"),
        text=voice.say(f"{fault}.text", **values),
        todo=voice.say(f"{fault}.todo", **values),
        link=_link_state(voice, ending),
        facts=_companies(voice, ending, fault) if ending.fault is ConsentFault.WRONG_COMPANY else [],
        # The same address without what came after the question mark.
        again=voice.say(f"{fault}.again") if ending.fault is ConsentFault.PAGE_SKIPPED else None,
    )


def _connected_page(voice: _Voice, ending: Ending) -> web.Response:
    return _page(
        voice,
        "connected.html",
        ending.reference,
        title=voice.say("connected.title", company=ending.company_name or ending.tenant or ""),
        company=_company(ending),
        tenant=ending.tenant,
        granted=_access(voice, ending.granted),
        missing=_access(voice, ending.missing),
    )


def _access(voice: _Voice, scopes: Iterable[str]) -> list[Markup]:
    """What scopes allow, each thing once: Pleo has two names for some."""
    return list(dict.fromkeys(map(voice.catalogue.scope, scopes)))


def _link_state(voice: _Voice, ending: Ending) -> Markup | None:
    """Whether the link of a flow that failed can be opened again; where it is over, the fault says so."""
    if ending.usable_until is not None:
        return voice.say("link.usable", until=voice.catalogue.instant(ending.usable_until))
    is_of_a_flow = ending.tenant is not None and ending.at is None
    return voice.say("link.over") if is_of_a_flow else None


def _companies(voice: _Voice, ending: Ending, fault: str) -> list[tuple[Markup, Markup]]:
    """Which company was expected, and which was chosen."""
    expected = _named(ending.tenant, ending.expected)
    return [(voice.say(f"{fault}.expected"), expected), (voice.say(f"{fault}.chosen"), _company(ending))]


def _company(ending: Ending) -> Markup:
    """The company that was chosen: its name if there is one, and its id."""
    return _named(ending.company_name, ending.company)


def _named(name: str | None, company: str | None) -> Markup:
    shown = _code(company or "")
    return shown if name is None else Markup("{} ({})").format(_strong(name), shown)


def _voice(services: Services) -> _Voice:
    asker = services.authorize.settings.asker
    catalogue = texts.catalogue(asker.language)
    host = origin_of(services.public_url).host
    return _Voice(
        catalogue,
        {
            "organisation": asker.organisation or catalogue.say("who.organisation", host=host),
            "contact": _contact(asker.contact) if asker.contact else catalogue.say("who.contact"),
        },
    )


def _contact(contact: str) -> Markup | str:
    if not _MAIL.fullmatch(contact):
        return contact
    return Markup('<a href="mailto:{0}">{0}</a>').format(contact)


def _strong(text: str) -> Markup:
    return Markup("<strong>{}</strong>").format(text)


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def _page(
    voice: _Voice,
    template: str,
    reference: str,
    *,
    status: int = 200,
    **values: Any,  # noqa: ANN401 - template values
) -> web.Response:
    say: Callable[..., Markup] = voice.say
    spoken = voice.say("page.reference", reference=_code(reference))
    return page(
        template, status=status, say=say, language=voice.catalogue.language, reference=spoken, **values
    )
