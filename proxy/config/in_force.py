"""The settings as they are in force, each with where it comes from. Pure, and no secret is among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from proxy.config.environment import read_environment
from proxy.config.mistakes import field_at, keys_of, kind_of, toml
from proxy.config.settings import Settings
from proxy.config.values import show_size
from proxy.model import Secret

_DEFAULT = "default"
_PRIVATE = {"notify.webhook_url", "notify.command"}
"""Settings that people put secrets into, though there are others for them: paths of webhooks, arguments."""


@dataclass(frozen=True, slots=True)
class InForce:
    """One setting."""

    key: str
    value: str
    """As TOML would have it; of a secret the place, and never the secret. Empty where there is none."""
    source: str
    """``default``, ``file``, or the variable that set it."""
    meaning: str

    @property
    def is_default(self) -> bool:
        """Whether nobody has set it."""
        return self.source == _DEFAULT


def in_force(settings: Settings, environ: Mapping[str, str]) -> list[InForce]:
    """All settings, in the order of the file.

    :param environ: with which ``settings`` were loaded.
    """
    origins = read_environment(Settings, environ).origins
    return [_setting(settings, key, origins.get(key)) for key in keys_of(Settings)]


def _setting(settings: Settings, key: str, variable: str | None) -> InForce:
    section, _, name = key.rpartition(".")
    holder = reduce(getattr, section.split("."), settings)
    field = field_at(Settings, tuple(key.split(".")))
    assert field is not None, key
    value: object = getattr(holder, name)
    is_given = name in holder.model_fields_set
    if isinstance(value, Secret) or (value and key in _PRIVATE):
        text = "given as text, which is not shown"
    elif isinstance(value, int) and kind_of(field).size:
        text = toml(show_size(value))
    else:
        text = toml(value)
    return InForce(key, text, variable or ("file" if is_given else _DEFAULT), field.description or "")
