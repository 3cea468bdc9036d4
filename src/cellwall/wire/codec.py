"""Messages to bytes and back; whatever the bytes, a decoder returns a message or raises `WireError`."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.msgpack import Decoder, Encoder

from cellwall.wire.errors import WireError
from cellwall.wire.messages import Enrol, EnrolmentReply, FromAgent, FromController

T = TypeVar("T")

MOST_FROM_AGENT = 16 * 1024 * 1024
"""The most bytes of one message of an agent."""

MOST_FROM_CONTROLLER = 128 * 1024 * 1024
"""The most bytes of one message of the controller: a bundle with a million members is 20 MB."""

MOST_ENROLMENT = 256 * 1024
"""The most bytes of one message while enrolling."""

_encoder = Encoder()
_from_agent: Decoder[FromAgent] = Decoder(FromAgent)
_from_controller: Decoder[FromController] = Decoder(FromController)
_enrol: Decoder[Enrol] = Decoder(Enrol)
_enrolment_reply: Decoder[EnrolmentReply] = Decoder(EnrolmentReply)


def encode(message: FromAgent | FromController | Enrol | EnrolmentReply) -> bytes:
    """Write a message."""
    return _encoder.encode(message)


def decode_from_agent(data: bytes) -> FromAgent:
    """Read what an agent said; raises `WireError`."""
    return decode(_from_agent, data, MOST_FROM_AGENT)


def decode_from_controller(data: bytes) -> FromController:
    """Read what the controller said; raises `WireError`."""
    return decode(_from_controller, data, MOST_FROM_CONTROLLER)


def decode_enrol(data: bytes) -> Enrol:
    """Read a request to enrol; raises `WireError`."""
    return decode(_enrol, data, MOST_ENROLMENT)


def decode_enrolment_reply(data: bytes) -> EnrolmentReply:
    """Read the answer to a request to enrol; raises `WireError`."""
    return decode(_enrolment_reply, data, MOST_ENROLMENT)


def decode(decoder: Decoder[T], data: bytes, most: int) -> T:
    """Read at most `most` bytes with `decoder`; raises `WireError` whatever is wrong with them."""
    if len(data) > most:
        raise WireError(f"a message of {len(data)} bytes; at most {most} are read")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        lines = str(error).splitlines() or ["unreadable"]
        raise WireError(f"not a message: {lines[0][:200]}") from None
