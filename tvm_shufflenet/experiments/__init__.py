"""Repeats experiments of the papers that need no training data, with the papers' figures beside ours.

``catalogue`` has them, ``run`` makes them, ``results`` is what comes out.
"""
