"""Legacy entry point of training and of the check.

`python train_vae.py [DATA]` is `vaefit-cli train [DATA]`, and `python train_vae.py --overfit-batch [DATA]` is
`vaefit-cli overfit [DATA]`.
"""

from __future__ import annotations

import argparse
import sys

from vaefit.cli.main import run

EMBEDDED = object()
"""Value of `--overfit-batch` without DATA; an empty string is an error of the user's shell."""
QUICK = ("--epochs", "1", "--limit", "2000")
"""Options of `--quick-test`; the same option later on the command line overrides one of them."""


def main(arguments: list[str]) -> int:
    """Translate the arguments, pass unknown ones on to `vaefit-cli`, and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Every option of `vaefit-cli train`, or of `vaefit-cli overfit`, is accepted too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--overfit-batch",
        nargs="?",
        const=EMBEDDED,
        metavar="DATA",
        help="fit one fixed batch of file.h5 or file.h5:/dataset, or of the embedded corpus, instead of training",
    )
    parser.add_argument("--quick-test", action="store_true", help="train for one epoch on 2,000 grids")
    parser.add_argument("--no-class-weights", action="store_true", help="let every class count 1")
    parser.add_argument(
        "--use-cached-weights",
        action="store_true",
        help="never scan the dataset; exit 3 where its counts are not cached",
    )
    known, others = parser.parse_known_args(arguments)
    if known.overfit_batch is None:
        command = ["train", *(QUICK if known.quick_test else ()), *others]
    elif known.quick_test:
        parser.error("--quick-test is for training; `--overfit-batch` is quick by itself")
    else:
        command = ["overfit", *([] if known.overfit_batch is EMBEDDED else [known.overfit_batch]), *others]
    if known.no_class_weights:
        command += ["--weights", "none"]
    if known.use_cached_weights:
        command += ["--no-scan"]
    return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
