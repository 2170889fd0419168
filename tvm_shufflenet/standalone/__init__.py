"""A network as a library without a runtime: kernels compiled by TVM, a plan made here, a driver in C.

program.py plans, kernels.py compiles, source.py writes the model's own C, build.py compiles and links it with the
driver in native/, which is the same for every model.
"""
