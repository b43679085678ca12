"""Write the requests that TensorFlow Serving sends to a model before it reports that it is ready.

They are in `assets.extra/tf_serving_warmup_requests`, a TFRecord of PredictionLog.

Without them, a loaded model answers its first request late, since TensorFlow optimises a graph when
it first runs.

The messages are written by hand, in protobuf's wire format
(tensorflow_serving/apis/prediction_log.proto, predict.proto, classification.proto, input.proto),
since the package that defines them is needed for nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf


def write(folder: Path, predict: Mapping[str, Any], classify: Mapping[str, bytes]) -> None:
    """Write one record for each signature.

    Args:
        predict: the tensor `inputs` (a TensorProto) of a predict request, by signature.
        classify: the serialized tf.Example of a classify request, by signature.
    """
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as records:
        for signature, inputs in predict.items():
            records.write(predict_log(signature, inputs))
        for signature, example in classify.items():
            records.write(classify_log(signature, example))


def predict_log(signature: str, inputs: Any) -> bytes:
    """A PredictionLog of one PredictRequest."""
    # An entry of a map: key, value.
    entry = field(1, b"inputs") + field(2, inputs.SerializeToString())
    request = field(1, spec(signature)) + field(2, entry)  # PredictRequest.model_spec, .inputs
    return field(6, field(1, request))  # PredictionLog.predict_log, PredictLog.request


def classify_log(signature: str, example: bytes) -> bytes:
    """A PredictionLog of one ClassificationRequest."""
    inputs = field(1, field(1, example))  # Input.example_list, ExampleList.examples
    # ClassificationRequest.model_spec, .input
    request = field(1, spec(signature)) + field(2, inputs)
    return field(2, field(1, request))  # PredictionLog.classify_log, ClassifyLog.request


def spec(signature: str) -> bytes:
    return field(3, signature.encode())  # ModelSpec.signature_name


def field(number: int, value: bytes) -> bytes:
    """Return a length-delimited field: its key, its length as a varint, and its bytes."""
    length, key = len(value), bytes([number << 3 | 2])
    while length > 127:
        key += bytes([length & 127 | 128])
        length >>= 7
    return key + bytes([length]) + value
