"""The other half: a tail server spoken to over gRPC with Open Inference (KServe V2) messages.

    open_inference.proto  the protocol; generated/ holds what protoc made of it
    messages.py           tensors to messages and back, checked
    client.py             one channel to one server: TLS, token, calls that can be cancelled
    session.py            a session that chooses for each request and never loses one

Needs `edgekit[remote]` (grpcio, protobuf, lz4, zstandard). Nothing here is imported before a server is named.
"""
