"""Every operator case of the tests through the importer, against PyTorch: which are right, refused, wrong.

    python benchmarks/importer_audit.py [--pipeline stock|fuse] [TEXT ...]

With TEXT only the cases that contain one of them. Ends with 1 where a case is wrong or crashes.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.auditing import RIGHT, WRONG, audit
from helpers.operator_cases import ALL
from tvm_shufflenet.graph import pipeline


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", choices=("stock", "fuse"), default="stock")
    parser.add_argument("--quiet", action="store_true", help="the cases that are wrong alone")
    parser.add_argument("text", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = [case for case in ALL if not options.text or any(text in case.expression for text in options.text)]
    counts = Counter()
    for outcome in audit(cases, getattr(pipeline, options.pipeline)):
        counts[outcome.verdict] += 1
        if outcome.verdict == WRONG or (outcome.verdict != RIGHT and not options.quiet):
            print(f"{outcome.verdict}: {outcome.case.expression} {outcome.case.shape}: {outcome.detail}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return 1 if counts[WRONG] else 0


if __name__ == "__main__":
    sys.exit(main())
