"""onnxruntime on its CPU provider."""

import numpy as np
import onnxruntime
from common import Engine, serve


class OnnxRuntime(Engine):
    def __init__(self, options):
        super().__init__(options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(options.artifact, settings, providers=["CPUExecutionProvider"])
        # Bound once, so that neither input nor output passes through Python in every run.
        self.binding = self.session.io_binding()
        data = onnxruntime.OrtValue.ortvalue_from_numpy(np.load(options.input))
        self.binding.bind_ortvalue_input(self.session.get_inputs()[0].name, data)
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def output(self):
        return self.binding.copy_outputs_to_cpu()[0]

    def facts(self):
        settings = self.session.get_session_options()
        return {
            "version": onnxruntime.__version__,
            "settings": {
                "intra_op_num_threads": settings.intra_op_num_threads,
                "inter_op_num_threads": settings.inter_op_num_threads,
            },
        }


serve(OnnxRuntime)
