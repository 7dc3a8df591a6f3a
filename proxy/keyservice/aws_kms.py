"""AWS KMS as a key service: ``aws-kms://REGION/KEY``, through boto3, which is an extra and loaded when used.

Credentials, role, endpoint and certificates are the SDK's business (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``,
``AWS_CA_BUNDLE`` and the rest). No text of the SDK's is shown, but AWS's error code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from proxy.errors import KeyServiceError
from proxy.keyservice.interface import Wrapped
from proxy.model import Secret

SCHEME = "aws-kms"
_URL = re.compile(
    r"aws-kms://([a-z]{2,}(?:-[a-z]+)+-\d+)/((?:alias/|arn:aws[a-z-]*:kms:)?[\w:/-]+)", re.ASCII
)
_CONNECT_S = 3.0
_READ_S = 5.0
_ATTEMPTS = 3
"""With the pauses between them: half a minute at the most, at a start and never afterwards."""

_REMEDIES = {
    "AccessDeniedException": "let this process use kms:Decrypt on the key, and kms:Encrypt to make keys",
    "NotFoundException": "there is no such key; correct the URL",
    "DisabledException": "the key is disabled; enable it",
    "KMSInvalidStateException": "the key is disabled or about to be deleted; enable it, or cancel that",
    "InvalidCiphertextException": "it is not what this service wrapped for this id; restore the key ring",
    "IncorrectKeyException": "another key wrapped it; restore the key ring",
    "ExpiredTokenException": "the credentials have expired; renew them",
    "UnrecognizedClientException": "the credentials are not valid; correct them",
    "InvalidSignatureException": "the credentials are not valid, or the clock is wrong; correct them",
}
_OTHER_REMEDY = "AWS documents this code"


class _Client(Protocol):
    """What is used of boto3's client, which comes without types."""

    def encrypt(self, **request: object) -> dict[str, Any]:
        """KMS ``Encrypt``."""

    def decrypt(self, **request: object) -> dict[str, Any]:
        """KMS ``Decrypt``."""

    def close(self) -> None:
        """Close connections; a later call opens new ones."""


def check(url: str) -> None:
    """Whether ``url`` is of the form that :class:`AwsKms` takes.

    :raises ValueError: it is not; the text is "rule; remedy".
    """
    if not _URL.fullmatch(url):
        raise ValueError(
            "must be aws-kms://REGION/KEY; write for example aws-kms://eu-west-1/alias/pleo-proxy"
        )


class AwsKms:
    """A symmetric key of AWS KMS, by id, ARN or alias.

    :raises KeyServiceError: boto3 is not installed.
    """

    def __init__(self, url: str) -> None:
        match = _URL.fullmatch(url)
        if match is None:
            raise KeyServiceError(f"key service {url}: not of the form aws-kms://REGION/KEY; correct it")
        self._url = url
        self._region, self._key = match[1], match[2]
        self._client = _connected(url, self._region)

    def wrap(self, key: Secret, context: Mapping[str, str]) -> Wrapped:
        """``key`` encrypted. The URL names the key by its ARN, since an alias may come to name another."""
        answer = self._call(
            self._client.encrypt,
            KeyId=self._key,
            Plaintext=key.reveal().encode(),
            EncryptionContext=dict(context),
        )
        return Wrapped(f"{SCHEME}://{self._region}/{answer['KeyId']}", bytes(answer["CiphertextBlob"]))

    def unwrap(self, data: bytes, context: Mapping[str, str]) -> Secret:
        """What :meth:`wrap` was given. The key is named, so that no other is used whatever ``data`` says."""
        answer = self._call(
            self._client.decrypt,
            KeyId=self._key,
            CiphertextBlob=data,
            EncryptionContext=dict(context),
        )
        return Secret(bytes(answer["Plaintext"]).decode())

    def _call(self, call: Any, **request: object) -> dict[str, Any]:  # noqa: ANN401 - boto3 has no types
        from botocore import exceptions  # noqa: PLC0415 - an extra

        try:
            answer: dict[str, Any] = call(**request)
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            shown = code if re.fullmatch(r"\w{1,60}", code, re.ASCII) else "an unknown error"
            problem = f"it refused ({shown}): {_REMEDIES.get(code, _OTHER_REMEDY)}"
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
            problem = "there are no AWS credentials; give this process a role, or set AWS_ACCESS_KEY_ID"
        except exceptions.BotoCoreError as error:
            problem = (
                f"it cannot be reached ({type(error).__name__}); check the network to it, its region and "
                "AWS_ENDPOINT_URL, then try again"
            )
        else:
            return answer
        finally:
            self._client.close()  # connections are not kept for calls that come once a start
        raise KeyServiceError(f"key service {self._url}: {problem}")


def _connected(url: str, region: str) -> _Client:
    try:
        import boto3  # noqa: PLC0415 - an extra, and large
        from botocore.config import Config  # noqa: PLC0415 - the same
    except ImportError:
        raise KeyServiceError(
            f"key service {url}: boto3 is not installed (the extra pleo-proxy[aws]); run "
            "`pip install --require-hashes -r requirements-extras.lock`"
        ) from None
    bounds = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    client: _Client = boto3.session.Session(region_name=region).client("kms", config=bounds)
    return client
