"""The zoo, and models from the user's own files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput, ImportFailed, UnknownName

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT = "shufflenet_v1_g3_x1_0"
IMAGENET_SHAPE = (1, 3, 224, 224)
# Complexity in MFLOPs (multiply-adds) as printed: ShuffleNet v1 (arXiv:1707.01083), Tables 1, 2 and 5;
# ShuffleNet v2 (arXiv:1807.11164), Table 5.
PAPER_MACS_M = {
    "shufflenet_v1_g1_x1_0": 143,
    "shufflenet_v1_g2_x1_0": 140,
    "shufflenet_v1_g3_x1_0": 137,
    "shufflenet_v1_g4_x1_0": 133,
    "shufflenet_v1_g8_x1_0": 137,
    "shufflenet_v1_g3_x0_5": 38,
    "shufflenet_v1_g3_x2_0": 524,
    "shufflenet_v2_x0_5": 41,
    "shufflenet_v2_x1_0": 146,
    "shufflenet_v2_x1_5": 299,
    "shufflenet_v2_x2_0": 591,
    # ShuffleNet v1, Table 6.
    "alexnet": 720,
    "squeezenet": 833,
    "googlenet": 1500,
    "vgg16": 15300,
    # MobileNet v1 (arXiv:1704.04861), Table 6; v2 (arXiv:1801.04381), Table 4.
    "mobilenet_v1": 569,
    "mobilenet_v1_x1_0": 569,
    "mobilenet_v1_x0_75": 325,
    "mobilenet_v1_x0_5": 149,
    "mobilenet_v1_x0_25": 41,
    "mobilenet_v2": 300,
    # ResNet (arXiv:1512.03385), Table 1; ResNeXt (arXiv:1611.05431), Table 1, which has ResNet-50 with our strides.
    "resnet18": 1800,
    "resnet50": 4100,
    "resnext50": 4200,
}
GROUPS = (1, 2, 3, 4, 8)
WIDTHS = {"0_25": 0.25, "0_5": 0.5, "1_0": 1.0, "1_5": 1.5, "2_0": 2.0}
V2_WIDTHS = {name: width for name, width in WIDTHS.items() if width >= 0.5}
# Groups and widths of the popular implementations that depart from the paper (shufflenet_v1.ARITHMETICS).
V1_VARIANTS = {"biased": (GROUPS, ("1_0",)), "relu": (GROUPS, tuple(WIDTHS)), "megvii": ((3, 8), tuple(V2_WIDTHS))}


@dataclass(frozen=True)
class Model:
    """A PyTorch model ready to export: ``module`` in eval mode, or an already exported ``program``."""

    name: str
    input_shape: tuple[int, ...]
    module: nn.Module | None = None
    program: torch.export.ExportedProgram | None = None

    def exported(self) -> torch.export.ExportedProgram:
        from ..graph.frontend import export

        return self.program or export(self.module, self.input_shape)

    def __call__(self, data):
        """PyTorch's own output for a NumPy array, as a NumPy array."""
        import torch

        module = self.module if self.module is not None else self.program.module()
        with torch.no_grad():
            output = module(torch.from_numpy(data))
        return (output[0] if isinstance(output, (tuple, list)) else output).numpy()


def names() -> list[str]:
    """Every zoo name."""
    from .baselines import BASELINES

    v1 = [f"shufflenet_v1_g{groups}_x{width}" for groups in GROUPS for width in WIDTHS]
    variants = [
        f"shufflenet_v1_g{count}_x{width}_{variant}"
        for variant, (groups, widths) in V1_VARIANTS.items()
        for count in groups
        for width in widths
    ]
    v2 = [f"shufflenet_v2_x{width}" for width in V2_WIDTHS]
    return v1 + variants + v2 + list(BASELINES)


def find_model(
    spec: str, *, weights: Path | None = None, input_shape: tuple[int, ...] | None = None, seed: int = 0
) -> Model:
    """The model that ``--model`` names: a zoo name, ``FILE.pt2``, or ``FILE.py:factory``.

    A zoo model has random weights drawn from ``seed``, and batch norm statistics as if it had been trained, unless
    ``weights`` names a checkpoint. Raises UnknownName, BadInput or ImportFailed.
    """
    if spec.endswith(".pt2"):
        return _exported(Path(spec), input_shape)
    path, _, factory = spec.rpartition(":")
    if path.endswith(".py"):
        return _from_factory(Path(path), factory, weights, input_shape or IMAGENET_SHAPE)
    if spec not in names():
        raise UnknownName("model", spec, names(), "tvm-shufflenet models")
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = _builder(spec)()
        randomise_batch_norms(module)
    return Model(spec, input_shape or IMAGENET_SHAPE, _ready(module, weights))


def _builder(name: str) -> Callable[[], nn.Module]:
    from .baselines import BASELINES
    from .shufflenet_v1 import ARITHMETICS, ShuffleNetV1
    from .shufflenet_v2 import ShuffleNetV2

    if name in BASELINES:
        return BASELINES[name]
    version, groups, width, variant = re.fullmatch(
        r"shufflenet_(v1|v2)_(?:g(\d)_)?x(\d_\d+)_?(biased|relu|megvii)?", name
    ).groups()
    if version == "v2":
        return lambda: ShuffleNetV2(WIDTHS[width])
    return lambda: ShuffleNetV1(int(groups), WIDTHS[width], arithmetic=ARITHMETICS[variant or ""])


def complexity(name: str) -> tuple[int, int]:
    """Multiply-adds and parameters of a zoo model at 224x224, counted without computing anything."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        module = _builder(name)().eval()
        data = torch.empty(IMAGENET_SHAPE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(data)
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())


def randomise_batch_norms(module: nn.Module) -> None:
    """Statistics and factors as after training, drawn from torch's random state: a fresh one is an identity."""
    import torch
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                layer.running_mean.uniform_(-0.1, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.1, 0.1)


def _ready(module: nn.Module, weights: Path | None) -> nn.Module:
    if weights is not None:
        from .checkpoints import load_weights

        load_weights(module, weights)
    return module.eval()


def _exported(path: Path, input_shape: tuple[int, ...] | None) -> Model:
    import logging

    import torch

    if not path.exists():
        raise BadInput(f"there is no file {path}", "", "write --model FILE.pt2")
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns with a traceback of what it raises anyway
    try:
        program = torch.export.load(path)
    except Exception as exc:
        raise ImportFailed(
            f"cannot load {path}: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}",
            "not a file of torch.export.save, or one of another torch version",
            f"export it again with torch {torch.__version__}",
        ) from exc
    finally:
        log.setLevel(level)
    inputs = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.nodes if node.name in inputs]
    if len(shapes) != 1:
        raise ImportFailed(f"{path} takes {len(shapes)} inputs", "only single-input networks are deployed here")
    shape = tuple(int(dim) for dim in shapes[0])
    if input_shape is not None and input_shape != shape:
        raise BadInput(f"{path} was exported for input {shape}, not {input_shape}", "", "export it for that shape")
    return Model(path.stem, shape, program=program)


def _from_factory(path: Path, factory: str, weights: Path | None, input_shape: tuple[int, ...]) -> Model:
    import importlib.util
    import sys
    import traceback

    from torch import nn

    if not path.exists():
        raise BadInput(f"there is no file {path}", "", "write --model FILE.py:factory")
    spec = importlib.util.spec_from_file_location(f"tvm_shufflenet_model_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(path.parent.resolve()))  # as when Python runs the file
    try:
        spec.loader.exec_module(module)
        made = getattr(module, factory)()
    except Exception as exc:
        where = "".join(traceback.format_exception(exc)[-3:]).strip()
        raise ImportFailed(f"{path}:{factory} raised\n{where}\n", "the model's own code", f"python {path}") from exc
    if not isinstance(made, nn.Module):
        raise ImportFailed(f"{path}:{factory} returned {type(made).__name__}", "", "return a torch.nn.Module")
    return Model(f"{path.stem}_{factory}", input_shape, _ready(made, weights))
