"""OpenVINO on its CPU plugin, in float32."""

import openvino
from common import Engine, serve


class OpenVino(Engine):
    def __init__(self, options):
        super().__init__(options)
        self.settings = {
            "INFERENCE_NUM_THREADS": options.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = openvino.Core().compile_model(options.artifact, "CPU", self.settings)
        self.request = model.create_infer_request()
        self.given = [openvino.Tensor(data) for data in self.inputs]
        for index, data in enumerate(self.given):
            self.request.set_input_tensor(index, data)

    def run(self):
        self.request.infer()

    def outputs(self):
        return [tensor.data for tensor in self.request.output_tensors]

    def facts(self):
        return {"version": openvino.__version__.split("-")[0], "settings": self.settings}


serve(OpenVino)
