"""onnxruntime on its CPU provider."""

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
        # Bound once, so that neither inputs nor outputs pass through Python in every run.
        self.binding = self.session.io_binding()
        for source, data in zip(self.session.get_inputs(), self.inputs, strict=True):
            self.binding.bind_ortvalue_input(source.name, onnxruntime.OrtValue.ortvalue_from_numpy(data))
        for result in self.session.get_outputs():
            self.binding.bind_output(result.name)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def outputs(self):
        return self.binding.copy_outputs_to_cpu()

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
