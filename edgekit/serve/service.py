"""The protocol: Open Inference over gRPC. Whatever a client sends, the others keep being served."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from edgekit.serve.batcher import Overloaded, Queue
from edgekit.serve.metrics import Metrics
from edgekit.serve.models import Models, WrongGraph
from edgekit.serve.streams import STOPPING, Streams
from edgekit_runtime.errors import EdgekitError, InputMismatch, Refused
from edgekit_runtime.remote import messages
from edgekit_runtime.remote.generated import open_inference_pb2 as pb
from edgekit_runtime.remote.grpc_errors import RETRY_AFTER
from edgekit_runtime.remote.writer import Writer, streamed

NO_ENTRY = "token missing or wrong"  # one text for both: a guess learns nothing
STREAM = "ModelStreamInfer"
_Handler = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Service:
    """Answers requests from models through their batchers."""

    def __init__(self, models: Models, batchers: Mapping[str, Queue], metrics: Metrics, version: str) -> None:
        self._models, self._batchers, self._metrics, self._version = models, batchers, metrics, version
        self.draining = False
        self._streams, self._writer = Streams(), Writer()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The methods of the protocol."""
        table: dict[str, tuple[_Handler, Any, Any]] = {
            "ServerLive": (self.live, pb.ServerLiveRequest, pb.ServerLiveResponse),
            "ServerReady": (self.ready, pb.ServerReadyRequest, pb.ServerReadyResponse),
            "ModelReady": (self.model_ready, pb.ModelReadyRequest, pb.ModelReadyResponse),
            "ServerMetadata": (self.metadata, pb.ServerMetadataRequest, pb.ServerMetadataResponse),
            "ModelMetadata": (self.model_metadata, pb.ModelMetadataRequest, pb.ModelMetadataResponse),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                handler, request_deserializer=kind.FromString, response_serializer=answered.SerializeToString
            )
            for name, (handler, kind, answered) in table.items()
        }
        # The answers of these two are bytes already (`writer`).
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(
            self.infer, request_deserializer=pb.ModelInferRequest.FromString
        )
        methods[STREAM] = grpc.stream_stream_rpc_method_handler(
            self.stream,
            request_deserializer=pb.ModelInferRequest.FromString,
        )
        return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)

    async def live(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Is anybody there?"""
        return pb.ServerLiveResponse(live=True)

    async def ready(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Will a request be answered?"""
        return pb.ServerReadyResponse(ready=not self.draining)

    async def model_ready(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Is a model here?"""
        try:
            self._models.get(request.name, request.version)
        except Refused as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, error.told)
        return pb.ModelReadyResponse(ready=not self.draining)

    async def metadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Name and version of the server."""
        return pb.ServerMetadataResponse(name="edgekit", version=self._version, extensions=["edgekit"])

    async def model_metadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """What a model takes and gives."""
        try:
            model = self._models.get(request.name, request.version)
        except Refused as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, error.told)
        answer = pb.ModelMetadataResponse(name=model.name, versions=[model.version], platform="edgekit")
        for rows, tensors in ((answer.inputs, model.inputs), (answer.outputs, model.outputs)):
            for tensor in tensors:
                shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
                rows.add(name=tensor.name, datatype=messages.datatype(_dtype(tensor.dtype)), shape=shape)
        return answer

    async def drain(self) -> None:
        """Takes nothing new: streams that wait for a request are ended, the others when theirs is answered."""
        self.draining = True
        await self._streams.end()

    async def stream(self, requests: Any, context: grpc.aio.ServicerContext) -> None:
        """Many requests, one after the other. One that is refused ends the stream as it would end a unary call."""
        with self._streams.one(context) as row:
            while not self.draining:
                request = await context.read()
                if request is grpc.aio.EOF:
                    return
                row.idle_s = math.inf
                await context.write(streamed(await self.infer(request, context)))
                row.idle_s = time.monotonic()
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)

    async def infer(self, request: Any, context: grpc.aio.ServicerContext) -> bytes:
        """One request; the answer is written out."""
        start = time.monotonic()
        try:
            answer = await self._answer(request, start)
        except Overloaded as error:
            code = grpc.StatusCode.DEADLINE_EXCEEDED if error.late else grpc.StatusCode.RESOURCE_EXHAUSTED
            trailing = ((RETRY_AFTER, str(max(int(error.wait_ms), 1))),)
            await self._refuse(request, context, code, str(error), trailing)
        except InputMismatch as error:
            await self._refuse(request, context, grpc.StatusCode.INVALID_ARGUMENT, error.told)
        except WrongGraph as error:
            await self._refuse(request, context, grpc.StatusCode.FAILED_PRECONDITION, error.told)
        except Refused as error:
            await self._refuse(request, context, grpc.StatusCode.NOT_FOUND, error.told)
        except EdgekitError as error:
            await self._refuse(request, context, grpc.StatusCode.INTERNAL, error.told)
        return answer

    async def _answer(self, request: Any, start: float) -> bytes:
        model = self._models.get(request.model_name, request.model_version)
        parameters = messages.read_parameters(request.parameters)
        model = self._models.meant(model, str(parameters.get("sha256", model.sha256)))
        tensors = model.taken(messages.read_request(request, parameters))
        deadline = parameters.get("deadline_ms")
        left = float(deadline) if isinstance(deadline, (int, float)) and not isinstance(deadline, bool) else None
        batcher = self._batchers[model.name]
        answer = await batcher.submit(tensors, left)
        residence_ms = (time.monotonic() - start) * 1e3
        told = {
            "residence_ms": residence_ms,
            "queue_ms": answer.queue_ms,
            "queue_length": answer.queue_length,
            "batch": answer.batch,
        }
        try:
            made = self._writer.response(request, answer.tensors, told, model.sha256, model.version)
        except Refused as error:  # an output that does not exist was asked for
            raise InputMismatch(error.message, remedy=error.remedy) from error
        # Counted when the answer is on its way.
        count = self._metrics.of(model.name).answered
        asyncio.get_running_loop().call_soon(count, residence_ms, answer.queue_ms, answer.batch, batcher.length)
        return made

    async def _refuse(
        self, request: Any, context: grpc.aio.ServicerContext, code: grpc.StatusCode, text: str, trailing: Any = ()
    ) -> None:
        known = request.model_name if request.model_name in self._batchers else "unknown"
        self._metrics.requests.labels(known, code.name).inc()
        await context.abort(code, text, trailing)


class Door(grpc.aio.ServerInterceptor):
    """Lets in who has the token; absent and wrong are told alike."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

        async def refuse(request: Any, context: grpc.aio.ServicerContext) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, NO_ENTRY)

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)
        self._stream_refusal = grpc.stream_stream_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Looks at the authorization of a call."""
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        raw = given if isinstance(given, bytes) else given.encode()
        if not hmac.compare_digest(raw, self._wanted):
            return self._stream_refusal if details.method.endswith(f"/{STREAM}") else self._refusal
        return await continuation(details)


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)
