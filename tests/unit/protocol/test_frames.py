"""Frames over a real socketpair: what is sent arrives as it was, in memory of its own."""

import gc
import os
import pickle
import socket
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mempressure.protocol import frames
from mempressure.protocol.frames import LARGE_BYTES, Channel, decode, encode
from tests.support.forking import in_child


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    channels = Channel(one), Channel(other)
    yield channels
    for channel in channels:
        channel.close()


def passed_on(ends, value, kind=frames.CALL):
    """Send from one end in a thread, since a large message waits for its receiver."""
    sender = threading.Thread(target=lambda: ends[0].send(kind, encode(value)))
    sender.start()
    frame = ends[1].receive()
    sender.join(timeout=10)
    assert not sender.is_alive()
    assert frame.kind == kind
    return decode(frame.payload)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, "text", b"bytes"]},
        b"x" * (LARGE_BYTES * 3),
        bytearray(b"y" * (LARGE_BYTES + 1)),
        ["z" * 70_000] * 3,
        list(range(200_000)),
    ],
    ids=["none", "small", "large bytes", "large bytearray", "medium", "large pickle"],
)
def test_values_arrive_as_they_were(ends, value):
    assert passed_on(ends, value) == value


@pytest.mark.parametrize("size", [0, 1, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 9_000_001])
def test_arrays_of_every_size_arrive_writable_and_aligned(ends, size):
    sent = np.frombuffer(np.random.default_rng(size).bytes(size), dtype="u1").copy()
    got = passed_on(ends, sent)
    assert np.array_equal(sent, got)
    assert got.flags.writeable
    assert got.flags.aligned
    got += 1  # and really so


def test_messages_follow_each_other_with_any_mix_of_buffers(ends):
    for round_ in range(20):
        arrays = [np.full(size, round_, dtype="f8") for size in (3, 40_000, 70_000, 10, 500_000)]
        got = passed_on(ends, {"round": round_, "arrays": arrays})
        assert got["round"] == round_
        assert all(np.array_equal(one, other) for one, other in zip(arrays, got["arrays"], strict=True))


def test_read_only_stays_read_only_and_fortran_order_stays(ends):
    array = np.asfortranarray(np.arange(200_000.0).reshape(400, 500))
    array.flags.writeable = False
    got = passed_on(ends, array)
    assert np.array_equal(array, got)
    assert got.flags.f_contiguous
    assert not got.flags.writeable


def test_an_array_named_twice_is_one_array_at_the_other_end(ends):
    array = np.zeros(100_000)
    first, second = passed_on(ends, [array, array])
    assert first is second


def test_a_data_frame_arrives_and_can_be_changed(ends):
    frame = pd.DataFrame({"a": np.arange(300_000.0), "b": np.arange(300_000), "c": ["text"] * 300_000})
    got = passed_on(ends, frame)
    pd.testing.assert_frame_equal(frame, got)
    got.loc[0, "a"] = 42.0
    assert got["a"].iloc[0] == 42.0


def test_memory_of_a_kept_array_is_never_reused(ends):
    kept = [passed_on(ends, np.full(100_000, number, dtype="f8")) for number in range(40)]
    views = [array[::2] for array in kept]
    del kept
    gc.collect()
    for number in range(40):
        passed_on(ends, np.full(100_000, -number, dtype="f8"))
    assert [float(view.min()) for view in views] == [float(view.max()) for view in views] == [*map(float, range(40))]


def test_memory_of_a_dropped_array_is_given_back(ends):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    got = passed_on(ends, np.ones(8_000_000))
    assert resident() - before > 60_000_000
    del got
    assert resident() - before < 20_000_000


def test_kept_arrays_hold_no_file_descriptor(ends):
    before = len(os.listdir("/proc/self/fd"))
    kept = [passed_on(ends, np.zeros(50_000)) for _ in range(100)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 100


def test_a_fork_shares_no_received_memory(ends):
    array = passed_on(ends, np.zeros(100_000))
    in_child(lambda: array.fill(1.0))
    assert float(array.max()) == 0.0


def test_a_pickle_that_fails_leaves_the_stream_in_step(ends):
    body = pickle.dumps(threading.Thread)[:-3]  # cut short
    ends[0].send(frames.CALL, frames.Payload(body, [b"x" * LARGE_BYTES]))
    broken = ends[1].receive()
    with pytest.raises(Exception, match=r"truncated|ran out|exhausted"):
        decode(broken.payload)
    assert passed_on(ends, "next") == "next"


@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_the_end_in_the_middle_of_a_message_is_an_end(cut):
    one, other = socket.socketpair()
    whole, record = socket.socketpair()
    Channel(whole).send(frames.CALL, encode("something that is longer than the cut"))
    one.sendall(record.recv(65536)[:cut])
    one.close()
    channel = Channel(other)
    with pytest.raises(EOFError, match="closed"):
        channel.receive()
    for each in (channel, whole, record):
        each.close()


def test_an_end_that_read_everything_and_one_that_did_not_are_told_apart(ends):
    ends[0].send(frames.CALL, encode(1))
    ends[1].close()
    with pytest.raises(ConnectionResetError):
        ends[0].receive()
    with pytest.raises(BrokenPipeError):
        ends[0].send(frames.CALL, encode(1))

    one, other = socket.socketpair()
    channel, reader = Channel(one), Channel(other)
    channel.send(frames.CALL, encode(1))
    reader.receive()
    reader.close()
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_shutdown_wakes_a_waiting_reader(ends):
    result = []

    def read():
        try:
            ends[0].receive()
        except EOFError as error:
            result.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    ends[0].shutdown()
    reader.join(timeout=10)
    assert len(result) == 1
    ends[0].shutdown()  # again, and after close, is nothing
    ends[0].close()
    ends[0].shutdown()


def test_dribbling_bytes_make_the_same_message():
    whole, record = socket.socketpair()
    one, other = socket.socketpair()
    channel = Channel(other)
    Channel(whole).send(frames.CALL, encode({"number": 7}))
    data = record.recv(65536)

    def dribble():
        for number in range(len(data)):
            one.sendall(data[number : number + 1])

    sender = threading.Thread(target=dribble)
    sender.start()
    assert decode(channel.receive().payload) == {"number": 7}
    sender.join(timeout=10)
    for each in (channel, whole, record, one):
        each.close()


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(value=_plain, sizes=st.lists(st.integers(0, 2 * LARGE_BYTES), max_size=4))
def test_any_plain_value_with_any_buffers_arrives(value, sizes):
    one, other = socket.socketpair()
    ends = Channel(one), Channel(other)
    try:
        buffers = [bytearray(os.urandom(8)) * (size // 8) for size in sizes]
        sent = [pickle.PickleBuffer(buffer) for buffer in buffers]
        got_value, got_buffers = passed_on(ends, (value, sent))
        assert got_value == value
        assert [bytes(buffer) for buffer in got_buffers] == [bytes(buffer) for buffer in buffers]
    finally:
        for end in ends:
            end.close()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 30, 1000, 4050, 4060, 4064, 4070, 5000, 70_000, LARGE_BYTES]), max_size=8),
    pause_after=st.integers(0, 10_000),
)
def test_messages_that_come_together_are_received_one_after_the_other(sizes, pause_after):
    """As log records before an answer do: one read of the socket may have several of them, and a part of the last."""
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other)
    values = [bytes([number]) * size for number, size in enumerate(sizes)]
    whole = recorded(values)
    try:
        thread = threading.Thread(target=lambda: (one.sendall(whole[:pause_after]), one.sendall(whole[pause_after:])))
        thread.start()
        assert [decode(receiver.receive().payload) for _ in values] == values
        thread.join(timeout=10)
        assert not receiver.receiving
    finally:
        sender.close()
        receiver.close()


def recorded(values):
    """Return what a channel sends for these values, as one text."""
    one, other = socket.socketpair()
    with one, other:
        sent = []
        channel = Channel(one)
        channel._send_all = lambda data, _waiting: sent.append(bytes(data))
        for value in values:
            channel.send(frames.LOG, encode(value))
        return b"".join(sent)
