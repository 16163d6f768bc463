"""One HTTP/1.1 POST over one TLS stream: the standard library's client on a socket that it did not open.

May not: follow a redirect, keep a connection, read more than `MAX_ANSWER` bytes or past the deadline.
Rule: RFC 9112; docs/nitro-sdk.md, "The tunnel".
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Final, Protocol

from tea.protocol.tunnel import Target, TunnelError

from .errors import KmsCode, KmsError
from .tunnel import Dial, default_tls, tls_stream

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer's body."""
DEFAULT_SECONDS: Final = 20.0


class Transport(Protocol):
    """Carries a request to KMS. A test may stand in; the real one is `TlsTransport`."""

    def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """POST to the path `/`; (status, body). Raises `KmsError`."""
        ...


class TlsTransport:
    """One TLS connection for each request, which ends inside this process. `seconds` is for all of it."""

    def __init__(self, dial: Dial, *, tls: ssl.SSLContext | None = None, seconds: float = DEFAULT_SECONDS) -> None:
        self._dial = dial
        self._tls = tls or default_tls()
        self._seconds = seconds

    def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        try:
            with tls_stream(self._dial, target, self._tls, self._seconds) as stream:
                connection = http.client.HTTPConnection(target.host, target.port)
                connection.sock = stream
                connection.request("POST", "/", body, {**headers, "Connection": "close"})
                answer = connection.getresponse()
                raw = answer.read(MAX_ANSWER + 1)
                # A stream that was cut short is no answer, whatever of it arrived: read() with a size does not say so.
                if len(raw) <= MAX_ANSWER and answer.length:
                    raise http.client.IncompleteRead(raw, answer.length)
        except TunnelError as error:
            raise KmsError(KmsCode.TUNNEL, error.sentence) from None
        except TimeoutError:
            raise KmsError(KmsCode.TIMEOUT, f"{target} gave no answer in {self._seconds:g} seconds") from None
        except ssl.SSLEOFError:
            raise KmsError(KmsCode.TUNNEL, f"the stream to {target} was cut") from None
        except ssl.SSLError as error:
            raise KmsError(KmsCode.TLS, f"no TLS with {target}: {error.reason or error}") from None
        except OSError as error:
            raise KmsError(KmsCode.TUNNEL, f"the way to {target} is broken: {error.strerror or error}") from None
        except http.client.HTTPException as error:
            raise KmsError(KmsCode.HTTP, f"{target} does not speak HTTP as expected: {type(error).__name__}") from None
        if len(raw) > MAX_ANSWER:
            raise KmsError(KmsCode.HTTP, f"{target} answers with more than {MAX_ANSWER} bytes")
        return answer.status, raw
