"""Troubles told to whoever is to know: by a signed webhook, by e-mail, by a command of the operator's.

What is told and when is decided in :mod:`proxy.notices`; nothing here is on a request's way, and no message
holds a secret. The parts, each importing only those before it: ``messages`` (what is said), ``channels``
(what all ways have in common), ``webhook``, ``mail`` and ``command`` (the ways), ``courier`` (tries again,
bounded), ``memory`` (what was told, over restarts), ``ways`` (settings as channels), ``herald`` (the task
that looks).

Connections opened here lead where the operator wrote, which may be a private address: they carry neither
token nor client secret, unlike those of :mod:`proxy.upstream` and :mod:`proxy.provider`.
"""

from __future__ import annotations

from proxy.notifications.channels import Channel, DeliveryError
from proxy.notifications.herald import Herald
from proxy.notifications.messages import Message, trial_message
from proxy.notifications.ways import channels_of

__all__ = ["Channel", "DeliveryError", "Herald", "Message", "channels_of", "trial_message"]
