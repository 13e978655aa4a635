"""A gRPC server that gives back the bytes it gets: `python -m benchmarks.echo thread-pool|asyncio` prints its port."""

from __future__ import annotations

import asyncio
import sys
from concurrent import futures

import grpc


def _rows(handler: object) -> tuple[grpc.GenericRpcHandler, ...]:
    method = grpc.unary_unary_rpc_method_handler(handler)
    return (grpc.method_handlers_generic_handler("echo", {"Echo": method}),)


def threads() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(_rows(lambda data, context: data))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


async def loop() -> None:
    async def echo(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return data

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(_rows(echo))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(loop()) if sys.argv[1] == "asyncio" else threads()
