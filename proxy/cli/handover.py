"""What a supervisor gives its workers: a configuration with its secrets, and what a reload came to.

It goes through the pipe by which multiprocessing starts a process and speaks with it, and is never written
anywhere. A worker reads no configuration itself, so one that takes another's place has what the others have,
whatever the file holds by then.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Generic, TypeVar

from proxy.model import Secret

T = TypeVar("T")


class Handover(Generic[T]):
    """Something that holds secrets, on its way to a worker."""

    def __init__(self, what: T) -> None:
        self.what = what

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        packed = io.BytesIO()
        _Packer(packed).dump(self.what)
        return _unpacked, (packed.getvalue(),)


class _Packer(pickle.Pickler):
    """Secrets refuse to be pickled, so that none is by chance; here it is meant."""

    def reducer_override(self, what: Any) -> Any:  # noqa: ANN401 - pickle's signature
        return (Secret, (what.reveal(),)) if isinstance(what, Secret) else NotImplemented


def _unpacked(packed: bytes) -> Handover[Any]:
    return Handover(pickle.loads(packed))  # noqa: S301 - of our own supervisor, through its pipe
