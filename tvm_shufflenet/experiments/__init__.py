"""Experiments of the papers that need no training data, made again on a device, with the papers' figures beside ours.

``catalogue`` has them, ``run`` makes them, ``results`` is what comes out.
"""
