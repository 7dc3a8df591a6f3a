"""Chart of accounts, tax codes, tag groups with their tags, and subscriptions: plain collections.

Each function carries out one call for a caller who is allowed to make it.
"""

from __future__ import annotations

import secrets
from typing import Any

from .calls import ApiError, Call, Reply, changed, data, find, page
from .seeds import Record

_ACCOUNT_FIELDS = ("name", "code", "archived")
_TAX_FIELDS = ("name", "code", "rate", "type", "archived", "ingoingTaxAccount", "outgoingTaxAccount")
_GROUP_FIELDS = ("name", "code", "archived", "metadata")
_TAG_FIELDS = ("name", "code", "archived")


def _pick(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


# Chart of accounts


def list_accounts(call: Call) -> Reply:
    """All accounts."""
    return page(call, call.company.accounts.values())


def search_accounts(call: Call) -> Reply:
    """Accounts, narrowed by codes and the archived flag."""
    wanted = call.body()
    codes, archived = wanted.get("codes"), wanted.get("archived")
    return page(
        call,
        [
            row
            for row in call.company.accounts.values()
            if (codes is None or row["code"] in codes) and archived in (None, row["archived"])
        ],
    )


def create_account(call: Call) -> Reply:
    """A new account."""
    return data(_new_account(call, call.body("companyId", "name")), 201)


def create_accounts(call: Call) -> Reply:
    """Several new accounts at once."""
    items = call.body("companyId", "accounts")["accounts"]
    if not isinstance(items, list) or not all(isinstance(item, dict) and item.get("name") for item in items):
        raise ApiError(422, "VALIDATION_ERROR", "accounts must be a list of objects with a name.")
    return data([_new_account(call, item) for item in items], 201)


def _new_account(call: Call, values: dict[str, Any]) -> Record:
    fields = {"code": None, "archived": False} | _pick(values, _ACCOUNT_FIELDS)
    account = call.world.new_record(call.company, fields)
    call.company.accounts[account["id"]] = account
    return account


# Tax codes


def create_tax_code(call: Call) -> Reply:
    """A new tax code."""
    values = _tax_values(call)
    tax_code = call.world.new_record(call.company, _pick(values, _TAX_FIELDS))
    call.company.tax_codes[tax_code["id"]] = tax_code
    return data(tax_code, 201)


def _tax_values(call: Call) -> dict[str, Any]:
    values = call.body("archived", "companyId", "name", "rate", "type")
    if values["type"] not in ("inclusive", "exclusive", "reverse"):
        raise ApiError(422, "VALIDATION_ERROR", "type must be inclusive, exclusive or reverse.")
    return values


def get_tax_code(call: Call) -> Reply:
    """One tax code."""
    return data(find(call.company.tax_codes, call.params[0]))


def update_tax_code(call: Call) -> Reply:
    """Replaces a tax code's fields."""
    tax_code = find(call.company.tax_codes, call.params[0])
    return data(changed(call, tax_code, _tax_values(call), _TAX_FIELDS))


def delete_tax_code(call: Call) -> Reply:
    """Deletes a tax code."""
    del call.company.tax_codes[find(call.company.tax_codes, call.params[0])["id"]]
    return Reply(204)


def search_tax_codes(call: Call) -> Reply:
    """Tax codes, narrowed by ids, type and the archived flag."""
    wanted = call.body()
    ids, kind, archived = wanted.get("taxCodeIds"), wanted.get("type"), wanted.get("archived")
    return page(
        call,
        [
            row
            for row in call.company.tax_codes.values()
            if (ids is None or row["id"] in ids)
            and kind in (None, row["type"])
            and archived in (None, row["archived"])
        ],
    )


# Tag groups and tags


def list_groups(call: Call) -> Reply:
    """All tag groups; this collection has no pages."""
    return data(list(call.company.tag_groups.values()))


def create_group(call: Call) -> Reply:
    """A new tag group."""
    values = call.body("archived", "code", "name")
    group = call.world.new_record(call.company, {"metadata": {}} | _pick(values, _GROUP_FIELDS))
    call.company.tag_groups[group["id"]] = group
    return data(group, 201)


def get_group(call: Call) -> Reply:
    """One tag group."""
    return data(find(call.company.tag_groups, call.params[0]))


def update_group(call: Call) -> Reply:
    """Replaces a tag group's fields."""
    group = find(call.company.tag_groups, call.params[0])
    return data(changed(call, group, call.body("archived", "code", "metadata", "name"), _GROUP_FIELDS))


def delete_group(call: Call) -> Reply:
    """Deletes a tag group with its tags; answers ``true``, as documented."""
    group = find(call.company.tag_groups, call.params[0])
    del call.company.tag_groups[group["id"]]
    call.company.tags = {key: tag for key, tag in call.company.tags.items() if tag["groupId"] != group["id"]}
    return Reply(200, body=True)


def list_group_tags(call: Call) -> Reply:
    """The tags of a group, archived ones only if asked for."""
    group = find(call.company.tag_groups, call.params[0])
    archived = call.first("include_archived") == "true"
    rows = call.company.tags.values()
    return page(call, [r for r in rows if r["groupId"] == group["id"] and (archived or not r["archived"])])


def create_tag(call: Call) -> Reply:
    """A new tag in a group."""
    group = find(call.company.tag_groups, call.params[0])
    values = _pick(call.body("archived", "code"), _TAG_FIELDS)
    tag = call.world.new_record(call.company, {"groupId": group["id"], **values})
    del tag["companyId"]  # as seeded: a tag belongs to its group
    call.company.tags[tag["id"]] = tag
    return data(tag, 201)


def list_tags(call: Call) -> Reply:
    """Tags of all groups, narrowed by a part of name or code."""
    text = (call.first("text_search") or "").lower()
    rows = call.company.tags.values()
    return page(call, [row for row in rows if text in f"{row.get('name', '')} {row['code']}".lower()])


def get_tag(call: Call) -> Reply:
    """One tag."""
    return data(find(call.company.tags, call.params[0]))


def update_tag(call: Call) -> Reply:
    """Replaces a tag's fields."""
    tag = find(call.company.tags, call.params[0])
    return data(changed(call, tag, call.body("archived", "code"), _TAG_FIELDS))


def delete_tag(call: Call) -> Reply:
    """Deletes a tag."""
    del call.company.tags[find(call.company.tags, call.params[0])["id"]]
    return Reply(204)


# Subscriptions to events


def list_subscriptions(call: Call) -> Reply:
    """The client's subscriptions, without their secrets."""
    return data([_public(row) for row in call.company.subscriptions.values()])


def create_subscription(call: Call) -> Reply:
    """A new subscription with a secret to sign its events with."""
    values = call.body("url", "eventTypes")
    fields = {"url": values["url"], "eventTypes": values["eventTypes"], "status": "active"}
    record = call.world.new_record(call.company, {**fields, "secret": f"whsec_{secrets.token_urlsafe(24)}"})
    call.company.subscriptions[record["id"]] = record
    return data(_public(record), 201)


def get_subscription(call: Call) -> Reply:
    """One subscription, without its secret."""
    return data(_public(find(call.company.subscriptions, call.params[0])))


def delete_subscription(call: Call) -> Reply:
    """Ends a subscription."""
    del call.company.subscriptions[find(call.company.subscriptions, call.params[0])["id"]]
    return Reply(204)


def get_subscription_secret(call: Call) -> Reply:
    """The secret that signs a subscription's events."""
    return data({"secret": find(call.company.subscriptions, call.params[0])["secret"]})


def _public(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "secret"}
