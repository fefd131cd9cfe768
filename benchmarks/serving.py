"""Latency of a trained row's answers: the MLflow model, by HTTP and not, and the exported ONNX network.

`python -m benchmarks.serving RUN` in a study whose row RUN is trained; one image at a time, one thread.
"""

import base64
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import requests
import torch
import uvicorn

from infra.local import s3
from pipeline import params, paths
from pipeline.data import dataset
from pipeline.evaluation.classifier import as_png
from pipeline.files import scratch
from pipeline.models import weights
from pipeline.models.exporting import export
from pipeline.models.resnet import ResNet
from pipeline.tracking import results, scoring

CALLS = 200


def median_ms(call: Callable[[], object]) -> float:
    """Returns the median time of a call in milliseconds, after a tenth as many others."""
    times = []
    for number in range(CALLS + CALLS // 10):
        began = time.perf_counter()
        call()
        if number >= CALLS // 10:
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def main(name: str) -> None:
    """Prints the latencies of the row `name`."""
    import mlflow.pyfunc
    import onnxruntime
    import pandas as pd

    torch.set_num_threads(1)
    study = params.load()
    pixels = dataset.load(paths.ARRAYS).test.images[0].numpy()
    png = as_png(pixels)
    with scratch("serving") as folder:
        results.save(folder / "model", study, [name])
        model, app = (
            mlflow.pyfunc.load_model(str(folder / "model")),
            scoring.app_of(folder / "model"),
        )
        line = pd.DataFrame({"image": [png]})
        print(f"MLflow model: {median_ms(lambda: model.predict(line)):.2f} ms")
        port = s3.free_port()
        serving = partial(uvicorn.run, app, host="127.0.0.1", port=port, log_level="warning")
        threading.Thread(target=serving, daemon=True).start()
        while not s3.answers(port):
            time.sleep(0.1)
        session, asked = (
            requests.Session(),
            {"dataframe_records": [{"image": base64.b64encode(png).decode()}]},
        )
        where = f"http://127.0.0.1:{port}/invocations"
        print(
            f"by HTTP: {median_ms(lambda: session.post(where, json=asked).raise_for_status()):.2f} ms"
        )
        trained = weights.load(paths.run(name))
        print(f"torch, the network alone: {_of_torch(trained, pixels):.2f} ms")
        assert isinstance(trained.model, ResNet)
        written = export(trained.model, trained.facts.channels, Path(folder / "onnx"))
        onnx = next(path for path in written if path.name == "classifier.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        network = onnxruntime.InferenceSession(onnx, options)
        inputs = (pixels - trained.mean.numpy()).transpose(2, 0, 1)[None].astype(np.float32)
        into = {network.get_inputs()[0].name: inputs}
        print(
            f"ONNX Runtime, the network alone: {median_ms(lambda: network.run(None, into)):.2f} ms"
        )


def _of_torch(trained: weights.Trained, pixels: np.ndarray) -> float:
    inputs = (torch.from_numpy(pixels) - trained.mean).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return median_ms(lambda: trained.model(inputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
