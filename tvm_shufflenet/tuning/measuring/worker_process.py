"""The main program of a worker: TVM without PyTorch, which starts in a third of the time with half the memory."""

from ...support.without_torch import without_torch

if __name__ == "__main__":
    with without_torch():
        from tvm.exec.popen_worker import main

        main()
