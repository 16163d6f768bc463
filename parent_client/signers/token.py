"""Keys on a PKCS#11 token (an HSM, a smart card, SoftHSM2): sign with a P-384 key, wrap with an AES key.

May not: read a private key out of the token, keep a PIN, or take one from a URI (whoever lists processes would see it).
Rule: PKCS#11 v2.40 (CKM_ECDSA, CKM_AES_GCM); RFC 7512 (the URI); RFC 5480 (the curve).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from cryptography.hazmat.primitives.asymmetric import ec

from tea.trust.keys import PublicKey, SigningError

from ..refusal import Refusal

MODULE_VARIABLE: Final = "TEA_PKCS11_MODULE"
INSTALL: Final = "pip install 'tea-runtime[hsm]'"
_SECP384R1: Final = bytes.fromhex("06052b81040022")
"""The DER of the curve's object identifier, 1.3.132.0.34: what CKA_EC_PARAMS holds."""
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class TokenUri:
    """Which object of which token, through which library, and where the PIN stands."""

    token: str
    label: str
    module: str
    pin_file: Path | None = field(repr=False)


def parse_uri(text: str, pin_file: Path | None = None) -> TokenUri:
    """Read `pkcs11:token=T;object=O?module-path=/x.so&pin-source=FILE`. Raises `Refusal` on what it does not know.

    The library is `module-path`, else `$TEA_PKCS11_MODULE`; the PIN the first line of `pin-source`, else of `pin_file`.
    """
    path, _, query = text.removeprefix("pkcs11:").partition("?")
    named = dict(parse_qsl(query, keep_blank_values=True))
    if "pin-value" in named:
        raise Refusal("a PKCS#11 URI with pin-value shows the PIN to whoever lists processes: use pin-source=FILE")
    parts: dict[str, str] = {}
    for one in filter(None, path.split(";")):
        name, separator, value = one.partition("=")
        if name not in ("token", "object", "type") or not separator:
            raise Refusal(f"the PKCS#11 URI has {one[:40]!r}, expected token=... and object=...")
        parts[name] = unquote(value)
    if unknown := sorted(named.keys() - {"module-path", "pin-source"}):
        raise Refusal(f"the PKCS#11 URI has {unknown[0][:40]!r}, expected module-path and pin-source")
    module = named.get("module-path") or os.environ.get(MODULE_VARIABLE, "")
    missing = [name for name in ("token", "object") if not parts.get(name)]
    if missing or not module:
        what = f"{missing[0]}=..." if missing else f"?module-path=... (or ${MODULE_VARIABLE})"
        raise Refusal(f"the PKCS#11 URI lacks {what}: pkcs11:token=T;object=O?module-path=/x.so&pin-source=FILE")
    source = named.get("pin-source")
    chosen = Path(source.removeprefix("file:")) if source else pin_file
    return TokenUri(parts["token"], parts["object"], module, chosen)


@contextmanager
def session(uri: TokenUri) -> Iterator[Any]:
    """A session with the token, logged in; closed at the end. Raises `Refusal`."""
    pkcs11 = _library()
    try:
        library = pkcs11.lib(uri.module)
    except (RuntimeError, pkcs11.PKCS11Error):
        raise Refusal(f"{uri.module} is no PKCS#11 library that can be loaded: name another module-path") from None
    try:
        token = library.get_token(token_label=uri.token)
        opened = token.open(user_pin=_pin(uri))
    except pkcs11.NoSuchToken:
        raise Refusal(f"{uri.module} has no token {uri.token!r}: look at what is plugged in") from None
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise Refusal(f"the PIN of the token {uri.token!r} is wrong: a few more tries lock it") from None
    except pkcs11.PKCS11Error as error:
        raise Refusal(f"the token {uri.token!r} does not open: {type(error).__name__}") from None
    try:
        yield opened
    finally:
        opened.close()


class TokenSigner:
    """A P-384 key pair on a token, found by its label. A session is opened for each signature."""

    def __init__(self, uri: TokenUri, public: PublicKey) -> None:
        self._uri = uri
        self._public = public

    @classmethod
    def open(cls, spec: str, pin_file: Path | None = None) -> TokenSigner:
        """Find the key. Raises `Refusal` when it is not there, or is no key on P-384."""
        uri = parse_uri(spec, pin_file)
        pkcs11 = _library()
        with session(uri) as opened:
            try:
                key = opened.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=uri.label)
                curve, point = key[pkcs11.Attribute.EC_PARAMS], bytes(key[pkcs11.Attribute.EC_POINT])
            except pkcs11.PKCS11Error as error:
                raise _no_key(uri, "public key on P-384", error) from None
        if bytes(curve) != _SECP384R1:
            raise Refusal(f"the key {uri.label!r} of the token is on another curve, expected P-384 (secp384r1)")
        # CKA_EC_POINT is an OCTET STRING around the point; some tokens leave the wrapping out.
        raw = point[2:] if len(point) in (51, 99) else point
        try:
            public = PublicKey(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), raw))
        except ValueError:
            raise Refusal(f"the token says of its key {uri.label!r} what is no point of P-384") from None
        return cls(uri, public)

    @property
    def public(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        """r then s, 96 bytes; checked with the public half before it leaves. Raises `Refusal`."""
        pkcs11 = _library()
        digest = hashlib.sha384(data).digest()
        with session(self._uri) as opened:
            try:
                key = opened.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=self._uri.label)
                signature = bytes(key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
            except pkcs11.PKCS11Error as error:
                raise _no_key(self._uri, "private key that signs", error) from None
        try:
            self._public.verify(signature, data)
        except SigningError:
            raise Refusal(
                f"the token's private key {self._uri.label!r} is not that of its public key: two objects of one label"
            ) from None
        return signature

    def __repr__(self) -> str:
        return f"TokenSigner({self._public.text})"


class TokenWrap:
    """An AES-256 key on a token, found by its label, that wraps another key (AES-GCM)."""

    def __init__(self, uri: TokenUri) -> None:
        self._uri = uri

    @classmethod
    def open(cls, spec: str) -> TokenWrap:
        """From a PKCS#11 URI. Raises `Refusal`."""
        return cls(parse_uri(spec))

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """`key` encrypted on the token, bound to `context`. Raises `Refusal`."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._crypt("encrypt", key, nonce, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The key. Raises `Refusal` when the token's key did not wrap it, for this context."""
        return self._crypt("decrypt", wrapped[_NONCE:], wrapped[:_NONCE], context)

    def _crypt(self, what: str, data: bytes, nonce: bytes, context: bytes) -> bytes:
        pkcs11 = _library()
        with session(self._uri) as opened:
            try:
                key = opened.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=self._uri.label)
                parameters = pkcs11.GCMParams(nonce, context)
                mechanism = pkcs11.Mechanism.AES_GCM
                return bytes(getattr(key, what)(data, mechanism=mechanism, mechanism_param=parameters))
            except (pkcs11.PKCS11Error, ValueError) as error:
                raise _no_key(self._uri, f"AES key that can {what} this", error) from None


def _no_key(uri: TokenUri, what: str, error: Exception) -> Refusal:
    return Refusal(f"the token {uri.token!r} has no {what} labelled {uri.label!r} ({type(error).__name__})")


def _pin(uri: TokenUri) -> str:
    if uri.pin_file is None:
        raise Refusal(f"the token {uri.token!r} wants a PIN: put it in a file (mode 0600) and name it by pin-source=")
    if stat.S_IMODE(uri.pin_file.stat().st_mode) & 0o077:
        raise Refusal(f"{uri.pin_file} can be read by others: chmod 600 {uri.pin_file}")
    lines = uri.pin_file.read_text().splitlines()
    return lines[0] if lines else ""


def _library() -> Any:
    try:
        import pkcs11
    except ImportError:
        raise Refusal(f"a PKCS#11 token needs the extra `hsm`: {INSTALL}") from None
    return pkcs11
