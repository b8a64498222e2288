"""Make one data set of each hospital in a training set, to see what a network is worth elsewhere.

A validation split is of the hospitals that the training is of, so that it cannot tell what helps in
another. This writes for each hospital a folder in PraNet's layout, of links: its images to train
on, those of every other hospital as test sets. What wins there may be chosen, because no test set
was looked at. The hospital of an image is told by its name; the default is for PraNet's training
set.

    python benchmarks/hospital_split.py --data DATA --out runs/hospitals
    python benchmarks/kdas_ablation.py --data runs/hospitals/Kvasir \
        --results benchmarks/results/unseen_hospital/Kvasir --only supervised colour \
        --encoder WEIGHTS/mobilenetv2_100.imagenet.safetensors data.epoch_images=1305
"""

import argparse
from pathlib import Path

from kdas_edge.console import info
from kdas_edge.data.centres import centres_of
from kdas_edge.data.layout import Pair, training_set
from kdas_edge.errors import UserError
from kdas_edge.files import staged_directory
from kdas_edge.process import one_line_errors

# Kvasir-SEG's names are random letters and digits after a c, CVC-ClinicDB's are numbers
PRANET = ["Kvasir=c[a-z0-9]{10,}", r"CVC-ClinicDB=\d+"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")
    parser.add_argument(
        "--hospital", action="append", metavar="NAME=PATTERN",
        help="regular expression for the whole stem of its images; default: PraNet's two",
    )  # fmt: skip
    arguments = parser.parse_args()
    hospitals = by_hospital(training_set(arguments.data).pairs, arguments.hospital or PRANET)
    with staged_directory(arguments.out, arguments.overwrite) as folder:
        for name, own in hospitals.items():
            link(own, folder / name / "TrainDataset")
            others = {other: pairs for other, pairs in hospitals.items() if other != name}
            for other, pairs in others.items():
                link(pairs, folder / name / "TestDataset" / other)
            count = sum(map(len, others.values()))
            info(f"{name}: {len(own)} images to train on, {count} of other hospitals")


def by_hospital(pairs: tuple[Pair, ...], patterns: list[str]) -> dict[str, list[Pair]]:
    """The images of each hospital.

    Raises:
        UserError: a pattern is none, an image is of no hospital or of two, or a hospital is empty.
    """
    if len(patterns) < 2:
        raise UserError("one hospital has no other to be tried on; name two with --hospital")
    centres = centres_of([pair.name for pair in pairs], patterns, "--hospital")
    found: dict[str, list[Pair]] = {pattern.partition("=")[0]: [] for pattern in patterns}
    for pair, centre in zip(pairs, centres, strict=True):
        found[centre].append(pair)
    return found


def link(pairs: list[Pair], folder: Path) -> None:
    """Links to images and masks, in PraNet's layout."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for pair in pairs:
        assert pair.mask is not None  # of a training set
        (folder / "images" / pair.image.name).symlink_to(pair.image.resolve())
        (folder / "masks" / pair.mask.name).symlink_to(pair.mask.resolve())


if __name__ == "__main__":
    with one_line_errors():
        main()
