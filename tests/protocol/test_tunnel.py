"""The tunnel's opening: CONNECT and nothing else, bounded, and the same however its bytes are split.

May not: open a socket. Rule: RFC 9110 section 9.3.6.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.protocol.tunnel import (
    MAX_HEAD,
    OPENED,
    Opening,
    Target,
    TunnelError,
    parse_request,
    refusal,
    request_to,
    require_opened,
)

TARGET = Target("kms.eu-west-1.amazonaws.com", 443)


def fed(data: bytes) -> tuple[list[str], bytes]:
    head = Opening().feed(data)
    assert head is not None
    return head


def test_a_request_comes_out_as_it_went_in() -> None:
    lines, rest = fed(request_to(TARGET) + b"\x16\x03\x01")
    assert parse_request(lines) == TARGET
    assert rest == b"\x16\x03\x01"


@settings(deadline=None)
@given(st.data())
def test_an_opening_is_the_same_however_it_is_split(data: st.DataObject) -> None:
    whole = request_to(TARGET) + b"behind"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    opening, head, sent = Opening(), None, 0
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if head is not None:
            break
        head = opening.feed(whole[start:stop])
        sent = stop
    assert head is not None
    assert parse_request(head[0]) == TARGET
    assert head[1] + whole[sent:] == b"behind"


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_an_opening_or_a_tunnel_error(data: bytes) -> None:
    try:
        head = Opening().feed(data)
        if head is not None:
            parse_request(head[0])
    except TunnelError as error:
        assert 400 <= error.status < 600


def test_an_opening_without_an_end_is_refused_at_its_bound() -> None:
    opening = Opening()
    assert opening.feed(b"C" * (MAX_HEAD - 1)) is None
    with pytest.raises(TunnelError) as caught:
        opening.feed(b"C")
    assert caught.value.status == 431


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET / HTTP/1.1", 405),
        ("CONNECT kms.eu-west-1.amazonaws.com:443 HTTP/1.0", 400),
        ("CONNECT kms.eu-west-1.amazonaws.com:443", 400),
        ("CONNECT kms.eu-west-1.amazonaws.com HTTP/1.1", 400),
        ("CONNECT :443 HTTP/1.1", 400),
        ("CONNECT host:0 HTTP/1.1", 400),
        ("CONNECT host:65536 HTTP/1.1", 400),
        ("CONNECT host:4a HTTP/1.1", 400),
        ("CONNECT -host:1 HTTP/1.1", 400),
        ("CONNECT a..b:1 HTTP/1.1", 400),
        ("CONNECT [::1]:1 HTTP/1.1", 400),
        ("", 405),
    ],
)
def test_what_is_no_connect_is_refused(line: str, status: int) -> None:
    with pytest.raises(TunnelError) as caught:
        parse_request([line])
    assert caught.value.status == status


def test_what_is_not_ascii_is_refused() -> None:
    with pytest.raises(TunnelError):
        Opening().feed(b"CONNECT \xc3\xbc:1 HTTP/1.1\r\n\r\n")


def test_letters_of_a_target_become_small_ones() -> None:
    assert Target.parse("KMS.Example:443") == Target("kms.example", 443)


def test_an_opened_tunnel_is_told_from_a_refused_one() -> None:
    require_opened(fed(OPENED)[0])
    with pytest.raises(TunnelError) as caught:
        require_opened(fed(refusal(403, "not on\r\nthis list"))[0])
    assert caught.value.status == 403
    assert "not onthis list" in caught.value.sentence
    with pytest.raises(TunnelError):
        require_opened(["SSH-2.0-OpenSSH"])
