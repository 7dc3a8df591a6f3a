"""Notifications delivered to real receivers, and what happens when these are down, slow or wrong."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy import notices
from proxy.errors import ConfigurationError, StoreUnavailable
from proxy.facts import (
    Fact,
    GrantNeedsReauth,
    NotifyFailed,
    NotifyHeldBack,
    NotifySent,
    StoreFailed,
    TaskCrashed,
)
from proxy.model import Grant, GrantState, Secret
from proxy.notices import Kind, Notice, Record, Trouble
from proxy.notifications import Channel, DeliveryError, Message, channels_of, command, courier, herald, memory
from proxy.notifications.channels import TIMEOUT_S
from proxy.notifications.command import Command
from proxy.notifications.courier import Courier
from proxy.notifications.mail import Mail, MailServer
from proxy.notifications.messages import MOST_ITEMS, messages_of, trial_message
from proxy.notifications.webhook import Signer, Webhook
from proxy.sandbox import COMPANIES, Sandbox
from tests.authority import Authority, untrusted_server
from tests.command import Cli, serving, write_config
from tests.harness import Proxy, free_port, running_proxy, settings_for, until
from tests.receivers import SECRET, MailBox, http_receiver, is_signed, smtp_receiver

PUBLIC = "https://proxy.example.com"
AT = 1_800_000_000.0


def message_of(*notices: Notice) -> Message:
    (made,) = messages_of(notices or (Notice(Kind.NEEDS_REAUTH, "acme", AT - 60),), at=AT, public_url=PUBLIC)
    return made


def webhook(url: str) -> Webhook:
    return Webhook(url, Signer(Secret(SECRET)), lambda: AT + 0.7)


@contextmanager
def failing(word: str) -> Iterator[None]:
    """What is done fails with this word of the proxy's own."""
    with pytest.raises(DeliveryError) as caught:
        yield
    assert str(caught.value) == word


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other quickly, and nothing is gathered for long."""
    monkeypatch.setattr(notices, "GATHER_S", 0.3)
    monkeypatch.setattr(herald, "_LOOK_S", 0.02)


# --- what is said


def test_what_a_message_says() -> None:
    """As JSON a message has its kind, its time, what to do, and each tenant with its page."""
    body = json.loads(message_of().as_json())
    assert body["type"] == "needs_reauth"
    assert body["timestamp"] == "2027-01-15T08:00:00Z"
    assert body["data"].pop("action").startswith("Calls of this tenant are refused")
    assert body["data"] == {
        "summary": "Pleo has ended the authorisation of acme",
        "proxy": PUBLIC,
        "more": 0,
        "items": [
            {
                "tenant": "acme",
                "since": "2027-01-15T07:59:00Z",
                "reconnect_url": f"{PUBLIC}/tenants/acme/connect",
            }
        ],
    }


def test_what_else_an_item_says() -> None:
    """An end has its date and the days until then, a recovery what is over, and no page is to be opened."""
    ends = message_of(Notice(Kind.ENDS_SOON, "acme", AT, ends_at=AT + 3.5 * 86400))
    (item,) = json.loads(ends.as_json())["data"]["items"]
    assert (item["days_left"], item["ends_at"]) == (3, "2027-01-18T20:00:00Z")
    over = message_of(Notice(Kind.RECOVERED, None, AT, was=Kind.STORE_LOST))
    (item,) = json.loads(over.as_json())["data"]["items"]
    assert item == {"tenant": None, "since": "2027-01-15T08:00:00Z", "was": "store_lost"}
    assert over.subject == "pleo-proxy: Recovered: the store answers again"


def test_each_kind_is_a_message_and_many_tenants_are_one() -> None:
    """Notices are told by kind; of very many tenants the first are named and the others counted."""
    many = [Notice(Kind.NEEDS_REAUTH, f"t{number}", AT) for number in range(MOST_ITEMS + 7)]
    other = Notice(Kind.STORE_LOST, None, AT)
    made = list(messages_of([many[0], other, *many[1:]], at=AT, public_url=PUBLIC))
    assert [each.kind for each in made] == [Kind.NEEDS_REAUTH, Kind.STORE_LOST]
    assert len({each.id for each in made}) == 2
    data = json.loads(made[0].as_json())["data"]
    assert (len(data["items"]), data["more"]) == (MOST_ITEMS, 7)
    assert f"Pleo has ended the authorisation of {MOST_ITEMS + 7} tenants" in made[0].subject
    assert "* and 7 more" in made[0].as_text()
    assert made[0].as_text().count(f"{PUBLIC}/tenants/") == MOST_ITEMS


# --- the webhook


async def test_a_webhook_is_signed_so_that_another_implementation_agrees() -> None:
    """A receiver that follows the text of Standard Webhooks accepts a notification, and no changed one."""
    message = message_of()
    async with http_receiver() as hook:
        await webhook(hook.url).deliver(message)
    ((headers, body),) = hook.got
    assert body == message.as_json()
    assert headers["webhook-id"] == message.id
    assert headers["webhook-timestamp"] == str(int(AT))
    assert headers["Content-Type"] == "application/json"
    assert is_signed(headers, body)
    assert not is_signed(headers, body + b" ")
    assert not is_signed({**headers, "webhook-timestamp": "1"}, body)
    assert not is_signed({**headers, "webhook-id": "other"}, body)
    assert not is_signed(headers, body, "whsec_" + "A" * 44)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks libraries comes out as they have it."""
    signer = Signer(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    headers = signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_redirect_is_not_followed() -> None:
    """A receiver that sends elsewhere has failed, and the notification goes nowhere else."""
    async with http_receiver() as hook:
        hook.statuses = [307]
        with failing("status_307"):
            await webhook(hook.url).deliver(message_of())
        assert len(hook.got) == 1


@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
async def test_a_receiver_that_answers_otherwise_has_failed(status: int) -> None:
    """Whatever is no 2xx is a failure, which is named by its status."""
    async with http_receiver() as hook:
        hook.statuses = [status]
        with failing(f"status_{status}"):
            await webhook(hook.url).deliver(message_of())


async def test_a_receiver_that_is_down_is_unreachable() -> None:
    """No connection is a failure with a word of ours, and without the text of a library."""
    with failing("unreachable"):
        await webhook(f"http://127.0.0.1:{free_port()}/").deliver(message_of())


async def test_a_slow_receiver_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that does not answer in time has failed."""
    assert TIMEOUT_S == 15
    monkeypatch.setattr("proxy.notifications.webhook.TIMEOUT_S", 0.05)
    async with http_receiver() as hook:
        hook.hangs = True
        with failing("timeout"):
            await webhook(hook.url).deliver(message_of())


async def test_a_receiver_whose_certificate_is_wrong_gets_nothing(tmp_path: Path) -> None:
    """A notification is not sent under a certificate that nobody trusts."""
    async with untrusted_server(tmp_path) as (port, seen):
        with failing("tls_failed"):
            await webhook(f"https://localhost:{port}/").deliver(message_of())
    assert seen == []


@pytest.mark.parametrize(
    "secret",
    ["whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "c" * 44, "whsec_" + "A" * 92, "wh" + SECRET, "whsec_é"],
)
def test_what_is_no_secret_of_standard_webhooks_is_refused(secret: str) -> None:
    """The secret has its prefix, and between 24 and 64 bytes in base64."""
    with pytest.raises(ValueError, match="not a secret of Standard Webhooks"):
        Signer(Secret(secret))


# --- e-mail


def mail(box: MailBox, **server: Any) -> Mail:
    values: dict[str, Any] = {"tls": False, "may_be_plain": True, **server}
    trust = values.pop("trust", None)
    return Mail(
        MailServer(values.pop("host", "127.0.0.1"), box.port, **values),
        "proxy@example.com",
        ("ops@example.com", "boss@example.com"),
        *([] if trust is None else [lambda: trust]),
    )


async def test_a_mail_arrives_with_what_a_mail_has() -> None:
    """The server gets envelope, subject, date, an id that stays, and the text."""
    message = message_of()
    async with smtp_receiver(MailBox()) as box:
        await mail(box).deliver(message)
    ((sender, to, text),) = box.mails
    assert (sender, to) == ("proxy@example.com", ["ops@example.com", "boss@example.com"])
    parsed = email.message_from_string(text, policy=email.policy.default)
    assert parsed["Subject"] == "pleo-proxy: Pleo has ended the authorisation of acme"
    assert parsed["To"] == "ops@example.com, boss@example.com"
    assert parsed["Message-ID"] == f"<{message.id}@example.com>"
    assert parsed["Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert f"{PUBLIC}/tenants/acme/connect" in parsed.get_content()
    assert "since 2027-01-15T07:59:00Z" in parsed.get_content()


@pytest.mark.parametrize("starttls", [True, False])
async def test_mail_goes_over_tls_with_a_login(tmp_path: Path, starttls: bool) -> None:
    """With STARTTLS, and with TLS from the start, login and message are seen by nobody on the way."""
    authority = Authority.found(tmp_path)
    box = MailBox(tls=authority.server, starttls=starttls, login="\0pleo\0a pass word")
    async with smtp_receiver(box):
        channel = mail(
            box,
            host="localhost",
            tls=not starttls,
            may_be_plain=False,
            user="pleo",
            password=Secret("a pass word"),
            trust=authority.client,
        )
        await channel.deliver(message_of())
    assert len(box.mails) == 1
    assert [line.split(" ")[0].upper() for line in box.in_clear] == (["EHLO", "STARTTLS"] if starttls else [])


async def test_mail_is_not_handed_in_without_tls() -> None:
    """A server elsewhere that offers no STARTTLS gets neither login nor message."""
    async with smtp_receiver(MailBox(login="\0pleo\0a pass word")) as box:
        channel = mail(box, may_be_plain=False, user="pleo", password=Secret("a pass word"))
        with failing("not_supported"):
            await channel.deliver(message_of())
    assert box.mails == []
    assert not [line for line in box.in_clear if line.upper().startswith(("AUTH", "MAIL"))]


@pytest.mark.parametrize("starttls", [True, False])
async def test_mail_is_not_handed_in_under_a_wrong_certificate(tmp_path: Path, starttls: bool) -> None:
    """A mail server whose certificate nobody trusts, or that is another's, gets nothing."""
    authority = Authority.found(tmp_path, name="elsewhere.test")
    box = MailBox(tls=authority.server, starttls=starttls)
    async with smtp_receiver(box):
        for trust in (None, authority.client):
            channel = mail(box, host="localhost", tls=not starttls, trust=trust)
            with failing("tls_failed"):
                await channel.deliver(message_of())
    assert box.mails == []


@pytest.mark.parametrize(
    ("box", "error"),
    [
        pytest.param(MailBox(says={"RCPT": "550 no such user"}), "recipients_refused", id="recipients"),
        pytest.param(MailBox(says={"MAIL": "451 later"}), "smtp_451", id="sender"),
        pytest.param(MailBox(says={"DATA": "554 no"}), "smtp_554", id="data"),
        pytest.param(MailBox(login="\0other\0other"), "smtp_535", id="login"),
    ],
)
async def test_a_mail_server_that_refuses_is_named_by_its_code(box: MailBox, error: str) -> None:
    """What the server says comes as its code, and never as its text."""
    async with smtp_receiver(box):
        channel = mail(box, user="pleo" if box.login else None, password=Secret("wrong"))
        with failing(f"{error}"):
            await channel.deliver(message_of())


async def test_one_refused_recipient_is_a_failure() -> None:
    """Where the server takes one address and refuses another, that is said and not passed over."""
    async with smtp_receiver(MailBox(refuses="boss@example.com")) as box:
        with failing("recipients_refused"):
            await mail(box).deliver(message_of())


async def test_a_mail_server_that_is_down_is_unreachable() -> None:
    """No connection is a failure with a word of ours."""
    with failing("unreachable"):
        await mail(MailBox(port=free_port())).deliver(message_of())


@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "DATA"])
async def test_a_slow_mail_server_is_cut(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """A server that stops answering is given up in time, and the thread that waits for it ends."""
    monkeypatch.setattr("proxy.notifications.mail.TIMEOUT_S", 0.2)
    async with smtp_receiver(MailBox(hangs_at=verb)) as box:
        with failing("timeout"):
            await mail(box).deliver(message_of())


async def test_a_stop_cuts_a_mail_under_way() -> None:
    """Cancelling a delivery ends it at once, though the server says nothing."""
    async with smtp_receiver(MailBox(hangs_at="MAIL")) as box:
        delivery = asyncio.create_task(mail(box).deliver(message_of()))
        await until(lambda: any(line.upper().startswith("MAIL") for line in box.in_clear))
        delivery.cancel()
        done, _ = await asyncio.wait({delivery}, timeout=5)
        assert done == {delivery}
        assert delivery.cancelled()


# --- the command


def script(folder: Path, text: str) -> str:
    """An executable file that runs ``text`` with this Python."""
    path = folder / "told"
    path.write_text(f"#!{sys.executable} -I\nimport json, os, sys, time\n{text}\n")
    path.chmod(0o700)
    return str(path)


async def test_a_command_gets_the_notification_and_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program gets the message on standard input; of our environment and open files it gets nothing."""
    monkeypatch.setenv("PLEO_CLIENT_SECRET", "a secret in the environment")
    leak, out = tmp_path / "leak", tmp_path / "out"
    leak.write_text("open")
    with leak.open() as ours:
        os.set_inheritable(ours.fileno(), True)
        program = script(
            tmp_path,
            "fds = [os.path.realpath(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')]\n"
            "print('to nobody'); sys.stderr.write('to nobody')\n"
            "told = [sys.stdin.read(), dict(os.environ), sys.argv[1:], os.getcwd(), fds]\n"
            f"open({str(out)!r}, 'w').write(json.dumps(told))",
        )
        message = message_of()
        await Command((program, "an argument; $HOME")).deliver(message)
    told, environ, arguments, folder, files = json.loads(out.read_text())
    assert json.loads(told) == json.loads(message.as_json())
    assert environ.items() - {("LC_CTYPE", "C.UTF-8")} == command.ENVIRONMENT.items()
    assert (arguments, folder) == (["an argument; $HOME"], "/")
    assert str(leak) not in files


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("sys.exit(3)", "exit_3", id="code"),
        pytest.param("os.kill(os.getpid(), 9)", "exit_-9", id="signal"),
        pytest.param("sys.stdin.close(); sys.exit(4)", "exit_4", id="does-not-read"),
    ],
)
async def test_a_command_that_fails_is_named_by_its_code(tmp_path: Path, text: str, error: str) -> None:
    """A program that ends otherwise than with 0 has failed."""
    with failing(f"{error}"):
        await Command((script(tmp_path, text),)).deliver(message_of())


async def test_a_command_that_goes_on_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """A program that takes too long ends, and so does its own child."""
    pids = tmp_path / "pids"
    program = script(
        tmp_path,
        f"child = os.fork()\nif child: open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child}} ')\n"
        "time.sleep(600)",
    )
    delivery = asyncio.create_task(Command((program,), timeout_s=1.0).deliver(message_of()))
    await until(lambda: pids.exists() and pids.read_text().endswith(" "))
    with failing("timeout"):
        await delivery
    await until(lambda: not [pid for pid in pids.read_text().split() if is_alive(int(pid))])


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_a_command_that_is_gone_cannot_be_started(tmp_path: Path) -> None:
    """A program that was removed since the start is a failure like others."""
    with failing("cannot_be_started"):
        await Command((str(tmp_path / "gone"),)).deliver(message_of())


# --- trying again


class Scripted:
    """A channel that fails as it is told to."""

    name = "webhook"

    def __init__(self, *errors: str | Exception | None) -> None:
        self.errors = list(errors)
        self.tried: list[str] = []
        self.hangs = False

    async def deliver(self, message: Message) -> None:
        self.tried.append(message.id)
        if self.hangs:
            await asyncio.Event().wait()
        error = self.errors.pop(0) if self.errors else None
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise DeliveryError(error)


class Post:
    """A courier, and what it reports."""

    def __init__(self, *channels: Channel, pauses_s: Sequence[float] = (0.0, 0.0)) -> None:
        self.facts: list[Fact] = []
        self.arrived: list[str] = []
        self.courier = Courier(
            channels, self.facts.append, lambda message: self.arrived.append(message.id), pauses_s
        )

    def failures(self) -> list[tuple[str, int, float | None]]:
        return [
            (fact.error, fact.tries, fact.retry_in_s) for fact in self.facts if isinstance(fact, NotifyFailed)
        ]


async def test_what_fails_is_tried_again_with_the_same_id() -> None:
    """A message that failed comes again after a pause, as the same message, and arrives once."""
    channel, message = Scripted("status_500", "timeout"), message_of()
    post = Post(channel)
    post.courier.send(message)
    await until(lambda: post.arrived)
    await post.courier.close()
    assert channel.tried == [message.id] * 3
    assert post.failures() == [("status_500", 1, 0.0), ("timeout", 2, 0.0)]
    assert post.arrived == [message.id]
    sent = [fact for fact in post.facts if isinstance(fact, NotifySent)]
    assert [(each.channel, each.kind, each.message, each.tries) for each in sent] == [
        ("webhook", "needs_reauth", message.id, 3)
    ]


async def test_at_last_it_is_given_up_and_the_next_is_tried() -> None:
    """After the last try a message is given up, which is reported; others go on."""
    channel = Scripted("status_500", "status_500", "status_500")
    first, second = message_of(), message_of()
    post = Post(channel)
    post.courier.send(first)
    post.courier.send(second)
    await until(lambda: post.arrived)
    await post.courier.close()
    assert post.failures()[-1] == ("status_500", 3, None)
    assert channel.tried == [first.id] * 3 + [second.id]
    assert post.arrived == [second.id]


async def test_one_channel_does_not_wait_for_another() -> None:
    """A channel that hangs holds up its own messages only."""
    slow, quick = Scripted(), Scripted()
    slow.hangs = True
    post = Post(slow, quick)
    post.courier.send(message_of())
    await until(lambda: post.arrived)
    assert (len(slow.tried), len(quick.tried)) == (1, 1)
    slow.hangs = False
    await asyncio.wait_for(post.courier.close(), 10)


async def test_a_defect_of_a_channel_is_reported_and_costs_one_message() -> None:
    """A channel that meets a defect goes on with the next try, and the log tells where it was."""
    post = Post(Scripted(RuntimeError("with a text that is shown nowhere")))
    post.courier.send(message_of())
    await until(lambda: post.arrived)
    await post.courier.close()
    crashes = [fact for fact in post.facts if isinstance(fact, TaskCrashed)]
    assert [(crash.task, crash.error) for crash in crashes] == [("notify", "RuntimeError")]
    assert post.failures() == [("internal_error", 1, 0.0)]


async def test_a_receiver_that_is_down_costs_bounded_memory() -> None:
    """Beyond a hundred messages the oldest is given up, and reported."""
    channel = Scripted()
    channel.hangs = True
    post = Post(channel)
    messages = [message_of() for _ in range(courier.MOST_WAITING + 3)]
    post.courier.send(messages[0])
    await until(lambda: channel.tried)
    for message in messages[1:]:
        post.courier.send(message)
    lost = [fact.message for fact in post.facts if isinstance(fact, NotifyFailed)]
    assert lost == [message.id for message in messages[1:3]]
    assert post.failures() == [("too_many", 0, None)] * 2
    await post.courier.close()


async def test_a_stop_tries_once_more_what_waits() -> None:
    """At a stop what waits, for its next try or behind another, is tried once and else given up."""
    channel = Scripted("status_500", "status_500")
    post = Post(channel, pauses_s=(3600.0,))
    first, second = message_of(), message_of()
    post.courier.send(first)
    await until(lambda: post.facts)
    post.courier.send(second)
    await asyncio.wait_for(post.courier.close(), 5)
    assert channel.tried == [first.id, first.id, second.id]
    assert post.failures() == [("status_500", 1, 3600.0), ("status_500", 2, None)]
    assert post.arrived == [second.id]


async def test_a_stop_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that hangs delays a stop by a bounded time."""
    monkeypatch.setattr(courier, "LAST_S", 0.1)
    channel = Scripted()
    channel.hangs = True
    post = Post(channel)
    post.courier.send(message_of())
    await until(lambda: channel.tried)
    await asyncio.wait_for(post.courier.close(), 5)
    await asyncio.wait_for(post.courier.close(), 5)


# --- what was told, over restarts


def test_what_was_told_is_remembered(tmp_path: Path) -> None:
    """What is written is read again; without a file, or with a damaged one, nothing is known."""
    told = {
        Trouble(Kind.NEEDS_REAUTH, "acme"): Record(AT, AT + 1, told=True),
        Trouble(Kind.STORE_LOST): Record(AT + 2, AT + 3, told=True),
    }
    assert memory.read(tmp_path) == {}
    memory.write(tmp_path, told)
    assert memory.read(tmp_path) == told
    assert stat.S_IMODE((tmp_path / memory.FILE).stat().st_mode) & 0o077 == 0
    for damaged in (b"", b"[", b"[1]", b'[["new_kind", null, 1, 2]]', b'[["test", null, "x", 2]]', b"{}"):
        (tmp_path / memory.FILE).write_bytes(damaged)
        assert memory.read(tmp_path) == {}
    memory.write(tmp_path / "gone", told)


# --- the whole


def told_kinds(bodies: list[dict[str, Any]]) -> list[tuple[str, list[str | None]]]:
    return [(body["type"], [item["tenant"] for item in body["data"]["items"]]) for body in bodies]


@pytest.mark.usefixtures("soon")
async def test_a_lost_grant_and_its_return_are_told(pleo: Sandbox, tmp_path: Path) -> None:
    """Tenants that Pleo ended together are one notification, a return is another; a restart repeats none."""
    async with http_receiver() as hook:
        notify = {"webhook_url": hook.url, "webhook_secret": SECRET}
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            await connected(proxy, "acme", "globex", "initech")
            for name in ("acme", "globex"):
                pleo.revoke(name)
            await asyncio.gather(
                proxy.get("/acme/v1/x"), proxy.get("/globex/v1/x"), proxy.get("/initech/v1/x")
            )
            await until(lambda: hook.got)
            assert told_kinds(hook.bodies()) == [("needs_reauth", ["acme", "globex"])]
            assert all(is_signed(*each) for each in hook.got)
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            await proxy.connect("acme")
            await until(lambda: len(hook.got) > 1)
            assert told_kinds(hook.bodies())[1:] == [("recovered", ["acme"])]
            await until(lambda: list(memory.read(tmp_path)) == [Trouble(Kind.NEEDS_REAUTH, "globex")])
        sent = proxy.lines("notify.sent")
        assert [(line["channel"], line["kind"]) for line in sent] == [("webhook", "recovered")]


async def connected(proxy: Proxy, *names: str) -> None:
    for name in names:
        await proxy.add_tenant(name)
        await proxy.connect(name)


@pytest.mark.usefixtures("soon")
async def test_no_notification_holds_a_secret(pleo: Sandbox, tmp_path: Path) -> None:
    """What receivers get, the log, and the file of what was told hold no secret and no working link."""
    password = "a-password-of-the-mail-server"
    out, box = tmp_path / "out", MailBox(login=f"\0pleo\0{password}")
    program = script(tmp_path, f"open({str(out)!r}, 'a').write(sys.stdin.read())")
    async with http_receiver() as hook, smtp_receiver(box):
        notify = {
            "webhook_url": hook.url,
            "webhook_secret": SECRET,
            "smtp_url": f"smtp://pleo@127.0.0.1:{box.port}",
            "smtp_password": password,
            "mail_from": "proxy@example.com",
            "mail_to": "ops@example.com",
            "command": program,
        }
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            await connected(proxy, "acme")
            live = proxy.app.tokens.held.live["acme"]
            secrets = [live.access.value.reveal(), live.refresh.reveal()]
            pleo.revoke("acme")
            await proxy.get("/acme/v1/x")
            await until(lambda: len(proxy.lines("notify.sent")) == 3)
            link = await proxy.link("acme")
    assert out.read_bytes() == hook.got[0][1] + b"\n", "the command gets what the webhook gets"
    seen = [hook.got[0][1].decode(), str(hook.got[0][0]), box.mails[0][2]]
    seen += [proxy.log.getvalue().decode(), (tmp_path / memory.FILE).read_text()]
    secrets += [password, SECRET, SECRET.removeprefix("whsec_"), link.rpartition("/")[2]]
    secrets.append(proxy.settings.pleo.client_secret.reveal())  # type: ignore[union-attr]
    assert "acme" in seen[-1]
    assert [each for each in secrets for text in seen if each in text] == []


@pytest.mark.usefixtures("soon")
async def test_a_rejected_client_is_told_once_for_all_tenants(pleo: Sandbox, tmp_path: Path) -> None:
    """That Pleo does not take the OAuth client is one notification, whatever number of tenants meets it."""
    async with http_receiver() as hook:
        notify = {"webhook_url": hook.url, "webhook_secret": SECRET}
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            await connected(proxy, "acme", "globex")
            pleo.rotate_client_secret("another")
            for name in ("acme", "globex"):
                pleo.revoke_access(name)
            await asyncio.gather(proxy.get("/acme/v1/x"), proxy.get("/globex/v1/x"))
            await until(lambda: hook.got)
    assert told_kinds(hook.bodies()) == [("client_rejected", [None])]


@pytest.mark.usefixtures("soon")
async def test_what_another_process_saw_is_told(pleo: Sandbox, tmp_path: Path) -> None:
    """A grant that another process found dead is told too, since the store says so."""
    async with http_receiver() as hook:
        notify = {"webhook_url": hook.url, "webhook_secret": SECRET}
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            await connected(proxy, "acme")

            def end(grant: Grant | None) -> Grant | None:
                assert grant is not None
                return replace(grant, state=GrantState.NEEDS_REAUTH, access=None, refresh=None)

            await proxy.app.store.edit_grant("acme", end)
            await proxy.app.watch.take_up()
            await until(lambda: hook.got)
            assert [fact for fact in proxy.facts if isinstance(fact, GrantNeedsReauth)] == []
    assert told_kinds(hook.bodies()) == [("needs_reauth", ["acme"])]


@pytest.mark.usefixtures("soon")
async def test_an_authorisation_that_ends_is_told(pleo: Sandbox, tmp_path: Path) -> None:
    """A grant that ends within the days of the settings is told of, with the days that are left."""
    async with http_receiver() as hook:
        sections: dict[str, Any] = {
            "notify": {"webhook_url": hook.url, "webhook_secret": SECRET},
            "refresh": {"warn_days": 3650},
        }
        async with running_proxy(pleo, tmp_path, **sections) as proxy:
            await connected(proxy, "acme")
            await until(lambda: hook.got)
    (body,) = hook.bodies()
    assert (body["type"], body["data"]["items"][0]["days_left"]) == ("ends_soon", 59)


@pytest.mark.usefixtures("soon")
async def test_a_tenant_that_is_disabled_is_not_told_of(pleo: Sandbox, tmp_path: Path) -> None:
    """Of what an operator has switched off nobody is told."""
    async with http_receiver() as hook:
        sections: dict[str, Any] = {
            "notify": {"webhook_url": hook.url, "webhook_secret": SECRET},
            "refresh": {"warn_days": 3650},
        }
        async with running_proxy(pleo, tmp_path) as proxy:
            await connected(proxy, "acme", "globex")
            await proxy.add_tenant("acme", company=COMPANIES["acme"], enabled=False)
        async with running_proxy(pleo, tmp_path, **sections):
            await until(lambda: hook.got)
    assert told_kinds(hook.bodies()) == [("ends_soon", ["globex"])]


@pytest.mark.usefixtures("soon")
async def test_a_lost_store_and_its_return_are_told(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer for the time of the settings is told, and so is its return."""

    async def fails(*_: object) -> None:
        raise StoreUnavailable("not shown")

    async with http_receiver() as hook:
        notify = {"webhook_url": hook.url, "webhook_secret": SECRET, "store_down_s": 0.1}
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            with monkeypatch.context() as patch:
                patch.setattr(proxy.app.store, "ping", fails)
                await proxy.next_fact(StoreFailed)
                await until(lambda: hook.got)
            await until(lambda: len(hook.got) == 2)
            await until(lambda: len(proxy.lines("notify.sent")) == 2)
            with monkeypatch.context() as patch:
                patch.setattr(proxy.app.store, "ping", fails)
                await proxy.next_fact(NotifyHeldBack)
            counted = proxy.metrics.render().decode()
    assert told_kinds(hook.bodies()) == [("store_lost", [None]), ("recovered", [None])]
    assert [(line["kind"], line["tenant"]) for line in proxy.lines("notify.held_back")] == [
        ("store_lost", None)
    ]
    assert 'pleo_proxy_notifications_total{channel="webhook",outcome="delivered"} 2.0\n' in counted
    assert "pleo_proxy_notifications_held_back_total 1.0\n" in counted


@pytest.mark.usefixtures("soon")
async def test_what_nobody_got_is_told_after_a_restart(pleo: Sandbox, tmp_path: Path) -> None:
    """What a receiver that was down until the stop missed comes after a start; callers notice nothing."""
    async with http_receiver() as hook:
        notify = {"webhook_url": f"http://127.0.0.1:{free_port()}/", "webhook_secret": SECRET}
        async with running_proxy(pleo, tmp_path, notify=notify) as proxy:
            await connected(proxy, "acme", "globex")
            pleo.revoke("acme")
            await proxy.get("/acme/v1/x")
            await proxy.next_fact(NotifyFailed)
            assert (await proxy.get("/globex/v2/employees")).status == 200
        assert proxy.lines()[-1]["event"] == "proxy.stopped", "what is told last is told before"
        failed = proxy.lines("notify.failed")
        assert [(line["error"], line["retry_in_s"]) for line in failed] == [
            ("unreachable", 5.0),
            ("unreachable", None),
        ]
        async with running_proxy(pleo, tmp_path, notify={**notify, "webhook_url": hook.url}):
            await until(lambda: hook.got)
    assert told_kinds(hook.bodies()) == [("needs_reauth", ["acme"])]


async def test_without_settings_nothing_is_started(pleo: Sandbox, tmp_path: Path) -> None:
    """A proxy that has nobody to tell has no task for it, and no file."""
    async with running_proxy(pleo, tmp_path):
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("notify")]
    assert not (tmp_path / memory.FILE).exists()


async def test_two_workers_tell_once(pleo: Sandbox, tmp_path: Path) -> None:
    """Of several workers one tells, whichever of them the caller met."""
    async with http_receiver() as hook:
        config = write_config(
            tmp_path,
            pleo,
            listen={"proxy": f"127.0.0.1:{free_port()}", "workers": 2},
            notify={"webhook_url": hook.url, "webhook_secret": SECRET},
        )
        async with serving(config) as served:
            await until(lambda: len(served.process.lines("worker.started")) == 2, 30)
            await served.command("tenants", "add", "acme")
            await served.connect("acme")
            pleo.revoke("acme")
            # The first answers may come from a worker that has not taken up the tenant yet.
            while await served.get("/acme/v1/x") != 503:  # noqa: ASYNC110 - what is asked is the program
                await asyncio.sleep(0.02)
            await until(lambda: hook.got, 20)
            await until(lambda: served.process.lines("notify.sent"))
            (admin,) = {line["admin"] for line in served.process.lines("proxy.started")} - {""}
            async with served.session.get(f"http://{admin}/metrics") as answer:
                counted = re.findall(
                    r"^pleo_proxy_notifications_total(.*) 1.0$", await answer.text(), re.MULTILINE
                )
            assert counted == ['{channel="webhook",outcome="delivered"}']
    assert told_kinds(hook.bodies()) == [("needs_reauth", ["acme"])]


# --- settings and command


def with_settings(pleo: Sandbox, folder: Path, **notify: Any) -> list[Channel]:
    return channels_of(settings_for(pleo, folder, notify=notify), {"PW": "pw"}, lambda: AT)


async def test_the_settings_make_the_channels(pleo: Sandbox, tmp_path: Path) -> None:
    """Each way is there that is configured, with its ports and its login."""
    assert with_settings(pleo, tmp_path) == []
    smtp = {"mail_from": "a@b.test", "mail_to": ["c@d.test"]}
    (plain,) = with_settings(pleo, tmp_path, smtp_url="smtp://mail.test", **smtp)
    (login,) = with_settings(
        pleo, tmp_path, smtp_url="smtps://u%40x@mail.test", smtp_password={"env": "PW"}, **smtp
    )
    (local,) = with_settings(pleo, tmp_path, smtp_url="smtp://[::1]:25", **smtp)
    servers = [each.server for each in (plain, login, local) if isinstance(each, Mail)]
    assert servers == [
        MailServer("mail.test", 587, tls=False, may_be_plain=False),
        MailServer("mail.test", 465, tls=True, may_be_plain=False, user="u@x", password=Secret("pw")),
        MailServer("::1", 25, tls=False, may_be_plain=True),
    ]
    both = with_settings(
        pleo, tmp_path, webhook_url="http://10.0.0.1/", webhook_secret=SECRET, command=["/bin/true", "x"]
    )
    assert [each.name for each in both] == ["webhook", "command"]
    assert both[1] == Command(("/bin/true", "x"))


@pytest.mark.parametrize("name", ["gone", "plain", "."])
async def test_a_command_that_cannot_run_is_a_mistake(pleo: Sandbox, tmp_path: Path, name: str) -> None:
    """What is no program is told at the start and by ``check``, not at the first trouble."""
    (tmp_path / "plain").write_text("exit 0")
    with pytest.raises(ConfigurationError, match="is no program that this user may start; correct the path"):
        with_settings(pleo, tmp_path, command=[str(tmp_path / name)])


async def test_a_wrong_secret_is_a_mistake_that_does_not_show_it(pleo: Sandbox, tmp_path: Path) -> None:
    """A secret of another form is refused at the start, with how to make one, and is not shown."""
    with pytest.raises(ConfigurationError, match="must be whsec_ and 24 to 64") as caught:
        with_settings(pleo, tmp_path, webhook_url="https://a.test/", webhook_secret="not-one-of-them")
    assert "not-one-of-them" not in str(caught.value)


async def test_check_finds_a_wrong_channel(tmp_path: Path) -> None:
    """``check`` finds what ``serve`` would refuse."""
    config = write_config(tmp_path, notify={"command": ["/nonexistent/told"]})
    ran = await asyncio.to_thread(Cli(config), "check")
    assert (ran.code, "is no program" in ran.err) == (2, True)


async def test_a_test_is_sent_on_every_channel(tmp_path: Path) -> None:
    """``notify test`` sends one notification on each channel, prints what came of it, and fails with one."""
    async with http_receiver() as hook:
        program = script(tmp_path, "sys.exit(3)")
        config = write_config(
            tmp_path,
            notify={"webhook_url": hook.url, "webhook_secret": SECRET, "command": [program]},
        )
        ran = await asyncio.to_thread(Cli(config), "notify", "test")
        assert (ran.code, ran.out) == (1, "webhook: delivered\ncommand: failed (exit_3)\n")
        assert ran.err.startswith("pleo-proxy: not delivered: command;")
        script(tmp_path, "pass")
        ran = await asyncio.to_thread(Cli(config).done, "notify", "test")
        assert ran.out == "webhook: delivered\ncommand: delivered\n"
    assert told_kinds(hook.bodies()) == [("test", [None])] * 2
    assert all(is_signed(*each) for each in hook.got)


async def test_a_test_without_channels_says_what_to_set(tmp_path: Path) -> None:
    """Without a channel ``notify test`` is a wrong use, and says which settings make one."""
    ran = await asyncio.to_thread(Cli(write_config(tmp_path)), "notify", "test")
    assert ran.code == 2
    assert "set notify.webhook_url, notify.smtp_url or notify.command" in ran.err


def test_a_trial_is_a_message_like_others() -> None:
    """What is sent to try a channel out says that nothing is to be done."""
    trial = trial_message(at=AT, public_url=PUBLIC)
    assert (trial.subject, json.loads(trial.as_json())["type"]) == ("pleo-proxy: A test", "test")
