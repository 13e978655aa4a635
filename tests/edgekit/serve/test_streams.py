"""Requests that go by streams: as safe as unary calls, and taken back to them where a server has no streams."""

from __future__ import annotations

import socket
import time
from concurrent import futures

import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

import grpc

from edgekit_runtime.errors import Refused, Unreachable
from edgekit_runtime.remote import lanes, messages
from edgekit_runtime.remote.client import Client, Credentials
from edgekit_runtime.remote.generated import open_inference_pb2 as pb
from edgekit_runtime.remote.grpc_errors import Late
from edgekit_runtime.remote.writer import Writer
from tests.edgekit.serve.test_calls import stuck  # noqa: F401  # a fixture

X = np.arange(8, dtype=np.float32).reshape(2, 4)
W = np.arange(12, dtype=np.float32).reshape(4, 3)


def opened(address: str, **options) -> Client:
    return Client(f"grpc://{address}", streams=True, **options)


def stream_of(client: Client):
    (lane,) = client._lanes._all
    return lane._stream


def test_many_requests_go_by_one_stream(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client, used = opened(address), set()
        for step in range(20):
            reply = client.call("tiny", {"x": X + step})
            np.testing.assert_allclose(reply.tensors["y"], (X + step) @ W, rtol=1e-5)
            assert reply.residence_ms > 0 and reply.bytes_up > 32 and reply.bytes_down > 24
            used.add(stream_of(client))
        assert len(used) == 1 and None not in used
        client.close()


def test_a_refused_request_ends_its_stream_and_the_next_one_is_answered(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client = opened(address)
        client.call("tiny", {"x": X})
        first = stream_of(client)
        with pytest.raises(Refused, match="there are: tiny"):
            client.call("another", {"x": X})
        with pytest.raises(Refused, match="float64"):
            client.call("tiny", {"x": X.astype(np.float64)})
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        assert stream_of(client) is not first
        client.close()


def test_a_request_that_has_no_time_left_is_told_as_late(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client = opened(address)
        client.call("tiny", {"x": X})
        with pytest.raises(Late):
            client.call("tiny", {"x": X}, parameters={"deadline_ms": 1e-6})
        client.close()


def test_a_stream_has_a_time_limit_for_each_answer(start, bundle, stuck) -> None:  # noqa: F811
    with start((bundle,), most=1) as (address, _):
        client = opened(address)
        client.call("tiny", {"x": X}, timeout_s=30)
        stuck.set()
        begun = time.monotonic()
        with pytest.raises(Late, match="deadline"):
            client.call("tiny", {"x": X}, timeout_s=0.3)
        assert 0.25 < time.monotonic() - begun < 5
        stuck.clear()
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        client.close()


def test_the_token_is_asked_for_on_streams_too(start, bundle) -> None:
    with start((bundle,), token="secret") as (address, _):
        with_token, without = opened(address, credentials=Credentials(token="secret")), opened(address)
        assert with_token.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        with pytest.raises(Refused, match="does not let us in"):
            without.call("tiny", {"x": X})
        with_token.close()
        without.close()


def test_a_server_that_stops_does_not_wait_for_idle_streams_and_its_successor_is_found(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client = opened(address)
        client.call("tiny", {"x": X})
        begun = time.monotonic()
    assert time.monotonic() - begun < 5  # far below the grace that streams at work are given
    with pytest.raises(Unreachable):
        client.call("tiny", {"x": X})
    client.close()


def test_an_old_stream_is_opened_anew(start, bundle, monkeypatch) -> None:
    with start((bundle,)) as (address, _):
        client = opened(address)
        monkeypatch.setattr(lanes, "_LIFE_S", 0.0)
        client.call("tiny", {"x": X})
        first = stream_of(client)
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        assert stream_of(client) is not first
        client.close()


def test_the_server_ends_streams_that_nobody_uses(start, bundle, monkeypatch) -> None:
    from edgekit.serve import streams

    monkeypatch.setattr(streams, "_IDLE_S", 0.1)
    monkeypatch.setattr(streams, "_LOOK_S", 0.05)
    with start((bundle,)) as (address, _):
        client = opened(address)
        client.call("tiny", {"x": X})
        first, end = stream_of(client), time.monotonic() + 20
        while first.good(time.perf_counter()) and time.monotonic() < end:
            time.sleep(0.02)
        assert not first.good(time.perf_counter())
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        client.close()


@pytest.fixture
def foreign():
    """A V2 server: `kind` is what it makes of a stream."""
    servers = []

    def begin(stream=None) -> str:
        def infer(request, context):
            answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            answer.outputs.add(name="y", datatype="FP32", shape=[1])
            answer.raw_output_contents.append(np.float32(7).tobytes())
            return answer

        methods = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(
                infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
            )
        }
        if stream is not None:
            methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(stream)
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield begin
    for server in servers:
        server.stop(0).wait()


def test_a_server_without_streams_is_asked_by_unary_calls(foreign) -> None:
    client = opened(foreign())
    for _ in range(3):
        assert client.call("any", {"x": X}).tensors["y"].tolist() == [7.0]
    assert not client._lanes.streams
    client.close()


@pytest.mark.parametrize(
    ("answers", "error", "match"),
    [
        ([pb.ModelStreamInferResponse(error_message="no such model").SerializeToString()], Refused, "no such model"),
        ([b"\xff\xff\xff"], Refused, "is no ModelStreamInferResponse"),
        ([], Unreachable, "ended the stream"),
    ],
)
def test_what_a_stream_says_wrong_is_an_error_of_the_request(foreign, answers, error, match) -> None:
    def stream(requests, context):
        next(requests)
        yield from answers

    client = opened(foreign(stream))
    with pytest.raises(error, match=match):
        client.call("any", {"x": X})
    client.close()


def test_a_server_that_is_not_there_is_unreachable_by_streams_too() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = opened(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unreachable):
            client.call("tiny", {"x": X}, timeout_s=5)
        client.close()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_what_is_written_from_a_kept_head_is_read_by_protobuf_as_it_was_meant(size) -> None:
    writer = Writer()
    array, strided = np.arange(size, dtype=np.uint8), np.arange(12, dtype=np.int64).reshape(3, 4).T
    for number in ("1", "12345" * 40):  # the second from the kept head
        parameters = {"sha256": "ab", "flag": True, "count": 3, "deadline_ms": 12.5}
        data = writer.request(
            "m", "2", {"x": array, "z": strided}, request_id=number, parameters=parameters, codec={"z": "zstd"}
        )
        asked = pb.ModelInferRequest.FromString(data)
        assert (asked.model_name, asked.model_version, asked.id) == ("m", "2", number)
        read = messages.read_parameters(asked.parameters)
        assert read == {**parameters, "codec.z": "zstd"}
        tensors = messages.read_request(asked, read)
        np.testing.assert_array_equal(tensors["x"], array)
        np.testing.assert_array_equal(tensors["z"], strided)
        told = {"residence_ms": 0.25, "queue_length": size, "batch": 1}
        answer = pb.ModelInferResponse.FromString(writer.response(asked, {"y": strided}, told, "cd", "9"))
        assert (answer.model_name, answer.model_version, answer.id) == ("m", "9", number)
        assert messages.read_parameters(answer.parameters) == {**told, "sha256": "cd"}
        np.testing.assert_array_equal(messages.read_response(answer)["y"], strided)
    assert len(writer._heads) == 2
