"""A notification as a program of the operator's, which gets it on standard input.

The only program that a proxy starts beside its own workers. It gets nothing of our environment, in which
secrets may stand, no open file of ours, and no argument that comes from outside; what it prints goes nowhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass

from proxy.notifications.channels import TIMEOUT_S, DeliveryError
from proxy.notifications.messages import Message

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""All that it gets: where programs are, and how text is written."""


@dataclass(frozen=True, slots=True)
class Command:
    """The channel."""

    arguments: tuple[str, ...]
    """The program's absolute path, and what it is always called with."""
    timeout_s: float = TIMEOUT_S

    @property
    def name(self) -> str:
        return "command"

    async def deliver(self, message: Message) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            raise DeliveryError("cannot_be_started") from None
        try:
            async with asyncio.timeout(self.timeout_s):
                # One that does not read what it gets ends the pipe, and has its own reasons.
                await process.communicate(message.as_json() + b"\n")
        except TimeoutError:
            raise DeliveryError("timeout") from None
        finally:
            await _end(process)
        if process.returncode != 0:
            raise DeliveryError(f"exit_{process.returncode}")


async def _end(process: Process) -> None:
    """End it, and whatever it started, if it has not ended."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
