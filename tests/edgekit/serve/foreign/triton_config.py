"""Runs where `tritonclient[grpc]` is installed: reads model configurations with Triton's own messages, prints JSON."""

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

found = {}
for path in sys.argv[1:]:
    config = text_format.Parse(Path(path).read_text(), model_config_pb2.ModelConfig())
    found[Path(path).parent.name] = json_format.MessageToDict(config, preserving_proto_field_name=True)
print(json.dumps(found))
