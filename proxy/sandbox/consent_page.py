"""The HTML that the simulated authorise endpoint shows. Everything that came from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

HEADERS = {
    "Content-Type": "text/html;charset=UTF-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; background: #f4f2ef; color: #1d1b19; margin: 0; }
main { max-width: 26rem; margin: 10vh auto; background: #fff; padding: 2rem; border-radius: 1rem;
       box-shadow: 0 1px 4px #0002; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
.note { color: #6b655e; font-size: .875rem; }
label { font-weight: 600; }
select, button { font: inherit; padding: .6rem .8rem; border-radius: .5rem; border: 1px solid #b9b2a9; }
select { width: 100%; margin: .25rem 0 1rem; background: #fff; }
.actions { display: flex; gap: .75rem; margin-top: 1.5rem; }
button { flex: 1; cursor: pointer; background: #fff; }
button.main { background: #1d1b19; color: #fff; border-color: #1d1b19; }
:focus-visible { outline: 3px solid #ff8fa3; outline-offset: 2px; }
"""


def consent_page(
    *,
    consent_id: str,
    client_id: str,
    companies: Mapping[str, str],
    selected: str | None,
    scopes: Sequence[str],
) -> str:
    """The page on which a person chooses a company (id to name) and approves or denies."""
    options = "".join(
        f'<option value="{escape(key)}"{" selected" if key == selected else ""}>{escape(name)}</option>'
        for key, name in companies.items()
    )
    items = "".join(f"<li><code>{escape(scope)}</code></li>" for scope in scopes)
    return _page(
        "Allow access",
        f"""<h1>Allow access?</h1>
<p><strong>{escape(client_id)}</strong> asks for access to a company's data.</p>
<form method="post" action="/oauth/authorize/decision">
<input type="hidden" name="consent_id" value="{escape(consent_id)}">
<label for="company">Company</label>
<select id="company" name="company">{options}</select>
<p>It will be able to use:</p>
<ul>{items}</ul>
<div class="actions">
<button type="submit" name="decision" value="deny">Deny</button>
<button type="submit" name="decision" value="approve" class="main">Approve</button>
</div>
</form>""",
    )


def error_page(message: str) -> str:
    """The page for a request that must not be redirected."""
    return _page("Cannot continue", f"<h1>Cannot continue</h1><p>{escape(message)}</p>")


def _page(title: str, content: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} - simulated Pleo</title><style>{_STYLE}</style></head>
<body><main>{content}
<p class="note">This is a simulated Pleo. Nothing here reaches a real company.</p>
</main></body></html>
"""
