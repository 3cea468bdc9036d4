"""What an agent says on its WebSocket is read as the library reads it, however the bytes come apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from cellwall.controller.api.frames import BINARY, TEXT, Frames, Nonsense, frame

MOST = 5000
SHORT = st.binary(max_size=60)
MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just(Opcode.BINARY), st.lists(st.binary(max_size=300), min_size=1, max_size=3)),
        st.tuples(st.sampled_from((Opcode.PING, Opcode.PONG)), st.lists(SHORT, min_size=1, max_size=1)),
        st.tuples(st.just(Opcode.BINARY), st.lists(st.integers(120, 1500).map(bytes), min_size=1, max_size=2)),
    ),
    max_size=6,
)


def pieces(kind: Opcode, parts: list[bytes]) -> bytes:
    last = len(parts) - 1
    return b"".join(
        Frame(kind if at == 0 else Opcode.CONT, part, fin=at == last).serialize(mask=True)
        for at, part in enumerate(parts)
    )


def cut(data: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({one % (len(data) + 1) for one in at})
    return [data[start:end] for start, end in zip((0, *ends), (*ends, len(data)), strict=True)]


@given(MESSAGES, st.lists(st.integers(0, 1 << 16), max_size=12))
def test_messages_are_whole_however_they_come_apart(said: list[tuple[Opcode, list[bytes]]], at: list[int]) -> None:
    frames = Frames(MOST)
    heard = [one for piece in cut(b"".join(pieces(*one) for one in said), at) for one in frames.feed(piece)]
    assert [(one.kind, one.data) for one in heard] == [(int(kind), b"".join(parts)) for kind, parts in said]


@given(st.binary(max_size=400), st.lists(st.integers(0, 1 << 16), max_size=5))
def test_whatever_comes_is_taken_or_refused_as_the_library_does(data: bytes, at: list[int]) -> None:
    library = ServerProtocol(max_size=MOST, state=State.OPEN)
    # It looks at a frame when all of it is there, and at nothing after a goodbye.
    library.receive_data(data + bytes(MOST + 16))
    frames = Frames(MOST)
    try:
        for piece in cut(data, at):
            frames.feed(piece)
    except Nonsense:
        assert library.parser_exc is not None or library.close_rcvd is not None
    # What the library refuses besides, the content of a goodbye and text that is none, is looked at by who hears it.


@given(st.binary(max_size=200) | st.integers(0, 1 << 17).map(bytes), st.sampled_from((BINARY, TEXT)))
def test_our_frames_are_those_of_the_library(data: bytes, kind: int) -> None:
    assert frame(kind, data) == Frame(Opcode(kind), data).serialize(mask=False)
