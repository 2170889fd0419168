"""A worker's main program: TVM's, without PyTorch. So it is ready in a third of the time, and half as large."""

from ...support.without_torch import without_torch

if __name__ == "__main__":
    with without_torch():
        from tvm.exec.popen_worker import main

        main()
