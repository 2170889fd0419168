"""Our libraries beside other engines: onnxruntime, OpenVINO, ncnn, LiteRT and PyTorch, here or on an emulated core.

``catalogue`` names the peers, ``contest`` runs them against ours, ``results`` is what comes out.
"""
