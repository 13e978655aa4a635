"""Runs where `tritonclient[grpc]` is installed, and edgekit is not: asks a server and prints what it saw as JSON."""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
x = np.arange(8, dtype=np.float32).reshape(2, 4)


def ask(model, array, datatype="FP32", outputs=None):
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    wanted = None if outputs is None else [triton.InferRequestedOutput(name) for name in outputs]
    return client.infer(model, [tensor], outputs=wanted, request_id="r-7")


def refused(call):
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return None


answer = ask("tiny", x, outputs=["y"])
metadata = client.get_model_metadata("tiny", as_json=True)
print(
    json.dumps(
        {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready("tiny"),
            "metadata": metadata,
            "id": answer.get_response().id,
            "y": answer.as_numpy("y").tolist(),
            "unknown_model": refused(lambda: ask("nobody", x)),
            "wrong_dtype": refused(lambda: ask("tiny", x.astype(np.float64), "FP64")),
            "wrong_output": refused(lambda: ask("tiny", x, outputs=["z"])),
            "after": ask("tiny", x).as_numpy("y").shape,
        }
    )
)
