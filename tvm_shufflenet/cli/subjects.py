"""Turns options into objects: a model and its target, a package, a device, a folder of records."""

from __future__ import annotations

from ..precision import PRECISIONS
from ..support.without_torch import without_torch


def package_and_device(options):
    """The package, and a device that can run it: refused here, before anything is uploaded."""
    from ..devices import find_device
    from ..hardware.targets import compiled_for, find_target
    from ..packages.package import Package

    package = Package(options.package)
    package.check_runnable()
    target = compiled_for(find_target(package.manifest.target), package.manifest.target_config)
    device = find_device(options.device, target, options.threads, match=False)
    package.check_machine(device.machine, device.name)
    return package, device


def target_and_model(options):
    from ..hardware.targets import find_target, targets

    if options.target not in targets():
        find_target(options.target)  # raises, before anything heavy is imported
    targets()[options.target].refuse(PRECISIONS[options.precision])
    # TVM before PyTorch: an error inside its import makes it read the symbols of all libraries that are loaded, and
    # those of PyTorch's take a second.
    with without_torch():
        from ..devices import find_device

    find_device(getattr(options, "device", None), targets()[options.target], getattr(options, "threads", 1))
    from ..models import find_model

    model = find_model(options.model, weights=options.weights, input_shape=options.input_shape, classes=options.classes)
    return find_target(options.target), model


def device_of(options, target):
    from ..devices import find_device

    return find_device(options.device, target, options.threads)


def records_of(options, target, console, must_exist: bool = False):
    from ..workflow.schedules import open_records

    store = open_records(target, options.records, must_exist)
    for line in store.skipped:
        console.print(f"skipped {store.folder}/{line}", markup=False)
    if store.refusal:
        console.print(store.refusal, markup=False)
    return store
