"""The server over real sockets: answers, batches, refusals, metrics, drain."""

from __future__ import annotations

import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

from edgekit.serve import Options
from edgekit.serve.server import check
from edgekit_runtime.errors import Refused, Unreachable, UsageError
from edgekit_runtime.remote import messages
from edgekit_runtime.remote.client import Client, Credentials, Late, parse
from edgekit_runtime.testing import make_bundle

pytestmark = pytest.mark.alone

X = np.arange(8, dtype=np.float32).reshape(2, 4)
W = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_a_request_is_answered_with_what_the_server_took(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client = Client(f"grpc://{address}")
        reply = client.call("tiny", {"x": X}, codec={"x": "bitshuffle-lz4"})
        np.testing.assert_allclose(reply.tensors["y"], X @ W, rtol=1e-6)
        assert reply.number("residence_ms") > 0 and reply.network_ms > 0 and reply.bytes_up > 0
        assert client.ping() > 0 and client.ready("tiny")
        client.close()


def test_requests_of_several_clients_are_run_together(start, bundle) -> None:
    with start((bundle,), wait_ms=50.0, workers=1) as (address, _):
        client = Client(f"grpc://{address}")
        arrays = [np.random.default_rng(n).normal(size=(1 + n % 2, 4)).astype(np.float32) for n in range(12)]
        with ThreadPoolExecutor(len(arrays)) as pool:
            replies = list(pool.map(lambda array: client.call("tiny", {"x": array}), arrays))
        for reply, array in zip(replies, arrays, strict=True):
            np.testing.assert_allclose(reply.tensors["y"], array @ W, rtol=1e-5, atol=1e-6)
        assert max(reply.number("batch") for reply in replies) > 1
        client.close()


@pytest.mark.parametrize(
    ("model", "tensors", "parameters", "told"),
    [
        ("nobody", {"x": X}, {}, "does not hold"),
        ("tiny", {"z": X}, {}, "takes"),
        ("tiny", {"x": X.astype(np.float64)}, {}, "float64"),
        ("tiny", {"x": X[:, :3]}, {}, "float32"),
        ("tiny", {"x": X}, {"sha256": "0" * 64}, "another version"),
        ("tiny", {"x": X}, {"codec.x": "zstd"}, "zstd"),
        ("tiny", {"x": X}, {"codec.x": "rot13"}, "rot13"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_server_goes_on(start, bundle, model, tensors, parameters, told) -> None:
    with start((bundle,)) as (address, _):
        client = Client(f"grpc://{address}")
        with pytest.raises(Refused, match=told):
            client.call(model, tensors, parameters=parameters)
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        client.close()


def test_hostile_shapes_and_lengths_are_refused(start, bundle) -> None:
    import grpc

    from edgekit_runtime.remote.generated import open_inference_pb2 as pb

    with start((bundle,)) as (address, _), grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda row: row.SerializeToString(),
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        for shape, raw in (([1 << 40, 1 << 40], b""), ([-1, 4], b"1234"), ([2, 4], b"short"), ([1] * 50, b"1234")):
            message = pb.ModelInferRequest(model_name="tiny", raw_input_contents=[raw])
            message.inputs.add(name="x", datatype="FP32", shape=shape)
            with pytest.raises(grpc.RpcError) as error:
                call(message, timeout=10)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        typed = pb.ModelInferRequest(model_name="tiny", id="7")
        typed.inputs.add(name="x", datatype="FP32", shape=[2, 4]).contents.fp32_contents.extend(X.ravel().tolist())
        answer = call(typed, timeout=10)
        assert answer.id == "7"
        np.testing.assert_allclose(messages.read_response(answer)["y"], X @ W, rtol=1e-6)


def test_late_work_is_refused_with_the_time_to_come_back(start, bundle, monkeypatch) -> None:
    from edgekit.serve import models

    whole = models.Model.run

    def slow(self, tensors):
        time.sleep(0.05)
        return whole(self, tensors)

    monkeypatch.setattr(models.Model, "run", slow)
    with start((bundle,), most=1, workers=1, limit_ms=150.0) as (address, _):
        client = Client(f"grpc://{address}")
        client.call("tiny", {"x": X})  # the server learns what one takes
        late, fine = [], 0
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(client.call, "tiny", {"x": X}) for _ in range(20)]
        for call in calls:
            try:
                call.result()
                fine += 1
            except Late as error:
                late.append(error.retry_after_s)
        assert fine >= 2 and late and all(after and after > 0 for after in late)
        with pytest.raises(Late):
            client.call("tiny", {"x": X}, parameters={"deadline_ms": 1.0})
        client.close()


def test_under_overload_admission_bounds_the_wait_and_every_request_gets_an_answer(start, bundle, monkeypatch) -> None:
    from edgekit.serve import models

    whole = models.Model.run
    run_ms, limit_ms, clients, each = 20.0, 100.0, 16, 12

    def slow(self, tensors):
        time.sleep(run_ms / 1e3)
        return whole(self, tensors)

    monkeypatch.setattr(models.Model, "run", slow)
    waited, refused, wrong = [], [], []
    with start((bundle,), most=1, workers=1, limit_ms=limit_ms) as (address, _):
        client = Client(f"grpc://{address}")
        client.call("tiny", {"x": X[:1]})  # the server learns what one takes

        def work(number: int) -> None:
            for step in range(each):
                array = np.full((1, 4), number * 100 + step, np.float32)
                try:
                    reply = client.call("tiny", {"x": array}, timeout_s=30)
                except Late as error:
                    refused.append(error.retry_after_s)
                    time.sleep(min(error.retry_after_s or 0.0, 0.05))
                    continue
                waited.append(reply.number("queue_ms"))
                if not np.allclose(reply.tensors["y"], array @ W):
                    wrong.append((number, step))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
    # 16 clients with 20 ms of work each on one worker: without admission each would wait 15 runs, 300 ms.
    assert not wrong and refused and len(waited) + len(refused) == clients * each
    # A run that a busy machine draws out is not foreseen: one such run in the limit's five may take twice as long.
    assert np.quantile(waited, 0.99) < limit_ms + 6 * run_ms


def test_what_does_not_fit_the_oldest_keeps_its_place_and_the_rest_is_joined() -> None:
    import asyncio

    from edgekit.serve.batcher import Batcher, Workers

    class Slow:
        batch = "B"

        def __init__(self) -> None:
            self.shapes: list[tuple[int, ...]] = []

        def run(self, tensors):
            self.shapes.append(tensors["x"].shape)
            time.sleep(0.02)
            return {"y": tensors["x"] * 2}

    async def main() -> list[tuple[int, ...]]:
        model, workers = Slow(), Workers(1)
        batcher = Batcher(model, workers, most=8, wait_ms=0.0, limit_ms=1e6)
        arrays = [np.full((1, length), place, np.float32) for place, length in enumerate((3, 4, 5, 4, 5, 4))]
        answers = await asyncio.gather(*(batcher.submit({"x": array}) for array in arrays))
        for array, answer in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(answer.tensors["y"], array * 2)
        await batcher.close()
        workers.close()
        return model.shapes

    shapes = asyncio.run(main())
    assert shapes == [(1, 3), (3, 4), (2, 5)]


def test_a_batch_stays_open_for_those_that_came_together_and_not_for_a_single_client() -> None:
    import asyncio

    from edgekit.serve.batcher import Batcher, Workers

    class Quick:
        batch = "B"

        def run(self, tensors):
            time.sleep(0.002)
            return {"y": tensors["x"]}

    async def main() -> tuple[float, int]:
        workers = Workers(1)
        batcher = Batcher(Quick(), workers, most=8, wait_ms=5000.0, limit_ms=1e6)
        start = time.monotonic()
        for _ in range(3):
            await batcher.submit({"x": np.ones((1, 2), np.float32)})
        alone_s = time.monotonic() - start

        async def late(delay_s: float) -> int:
            await asyncio.sleep(delay_s)
            return (await batcher.submit({"x": np.ones((1, 2), np.float32)})).batch

        await asyncio.gather(*(late(0.0) for _ in range(4)))  # four together: they are expected again
        batches = await asyncio.wait_for(asyncio.gather(*(late(0.005 * place) for place in range(4))), 4)
        await batcher.close()
        workers.close()
        return alone_s, max(batches)

    alone_s, largest = asyncio.run(main())
    assert alone_s < 1.0 and largest == 4


def test_a_wrong_token_and_none_are_told_alike(start, bundle) -> None:
    with start((bundle,), token="right") as (address, _):
        told = []
        for token in ("wrong", ""):
            client = Client(f"grpc://{address}", Credentials(token=token))
            with pytest.raises(Refused, match="does not let us in") as error:
                client.call("tiny", {"x": X})
            told.append(str(error.value))
            client.close()
        assert told[0] == told[1]
        client = Client(f"grpc://{address}", Credentials(token="right"))
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        client.close()


def test_metrics_are_counted(start, bundle) -> None:
    with start((bundle,), metrics_port=0) as (address, metrics):
        client = Client(f"grpc://{address}")
        client.call("tiny", {"x": X})
        with pytest.raises(Refused):
            client.call("no\nbody", {"x": X})
        client.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as page:
            text = page.read().decode()
        assert 'edgekit_requests_total{code="OK",model="tiny"} 1.0' in text
        assert 'model="unknown"' in text


def test_what_has_begun_is_answered_when_the_server_ends(start, bundle, monkeypatch) -> None:
    from edgekit.serve import models

    whole = models.Model.run

    def slow(self, tensors):
        time.sleep(0.3)
        return whole(self, tensors)

    monkeypatch.setattr(models.Model, "run", slow)
    with ThreadPoolExecutor(1) as pool, start((bundle,)) as (address, _):
        client = Client(f"grpc://{address}")
        call = pool.submit(client.call, "tiny", {"x": X})
        time.sleep(0.1)
    assert call.result(10).tensors["y"].shape == (2, 3)
    with pytest.raises(Unreachable):
        client.call("tiny", {"x": X}, timeout_s=1.0)
    client.close()


def test_two_bundles_of_one_name_are_refused(start, bundle, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = make_bundle(tmp_path / "other" / "tiny.edge")
    with pytest.raises(UsageError, match="two bundles"), start((bundle, twin)):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "0.0.0.0"},
        {"host": "0.0.0.0", "token": "x"},
        {"cert": Path("a.pem")},
        {"client_ca": Path("a.pem")},
    ],
)
def test_a_server_open_to_everybody_is_refused(changes) -> None:
    with pytest.raises(UsageError):
        check(Options(bundles=(), **changes))


@pytest.mark.parametrize("url", ["http://a:1", "grpc://", "a:8001", "grpc://a:port", "grpcs://a:99999"])
def test_an_address_that_cannot_be_is_refused(url) -> None:
    with pytest.raises(UsageError):
        parse(url)


def test_addresses_are_read() -> None:
    assert parse("grpcs://edge:8443") == (True, "edge:8443")
    assert parse("grpc://[::1]") == (False, "[::1]:8001")
    with pytest.raises(UsageError, match="in the clear"):
        Client("grpc://far:1", Credentials(token="x"))


def test_many_threads_share_one_client(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client, wrong = Client(f"grpc://{address}"), []

        def work(number: int) -> None:
            for step in range(20):
                array = np.full((1, 4), number * 100 + step, np.float32)
                answer = client.call("tiny", {"x": array}).tensors["y"]
                if not np.allclose(answer, array @ W):
                    wrong.append((number, step))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        client.close()
