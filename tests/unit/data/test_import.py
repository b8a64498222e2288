"""A hospital's folder goes in without a script, and what was left out is told."""

import json
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from PIL import Image
from run_verb import only_line, run_verb

from kdas_edge.data.coco import read_coco
from kdas_edge.data.discovery import MaskFinder, group_of, list_tree, propose
from kdas_edge.data.import_layout import Layout, read_layout
from kdas_edge.data.importing import import_folder
from kdas_edge.data.layout import find_pairs, find_sets, read_pair
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError

# a made-up run length string of 6 by 4 pixels: 5 background, 3 polyp, 10 background, 6 polyp
LENGTHS = [5, 3, 10, 6]


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Five patients of three images, labels 0/1, polyp-free frames, and what does not fit."""
    root = tmp_path / "hospital"
    for index in range(15):
        image, mask = scene(800 + index, 96, polyp=True)
        patient = root / f"patient_{index % 5}"
        _save(patient / "img" / f"{index}.jpg", image)
        _save(patient / "seg" / f"{index}_mask.png", mask.astype(np.uint8))
    for index in range(2):
        _save(root / "patient_0" / "normal" / f"n{index}.png", scene(850 + index, 96)[0])
    first = root / "patient_1" / "img" / "1.jpg"
    (root / "patient_1" / "img" / "again.jpg").write_bytes(first.read_bytes())
    mask = root / "patient_1" / "seg" / "1_mask.png"
    (root / "patient_1" / "seg" / "again_mask.png").write_bytes(mask.read_bytes())
    _save(root / "patient_2" / "img" / "lonely.jpg", scene(870, 96)[0])
    _save(root / "patient_2" / "img" / "small.jpg", scene(871, 96)[0])
    _save(root / "patient_2" / "seg" / "small_mask.png", np.eye(50, dtype=np.uint8))
    (root / "patient_3" / "img" / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    _save(root / "patient_3" / "seg" / "torn_mask.png", np.eye(96, dtype=np.uint8))
    (root / "notes.docx").write_bytes(b"x")
    return root


LAYOUT = Layout(
    images="patient_*/img/*.jpg",
    masks="{stem}_mask.png",
    group="patient_*",
    polyp_free="*/normal/*",
)


def test_a_hospital_is_taken_with_its_patients_and_a_test_part(
    hospital: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = import_folder(hospital, out, LAYOUT, test=0.2, seed=1)
    assert len(report.taken) == 17 and report.polyp_free == 2 and report.groups == 5
    assert {one.file: one.reason.split(":")[0][:20] for one in report.left} == {
        "patient_1/img/again.jpg": "the same picture as ",
        "patient_2/img/lonely.jpg": "no mask {stem}_mask.",
        "patient_2/img/small.jpg": "the mask is 50×50 pi",
        "patient_3/img/torn.jpg": str(hospital)[:20],
    }
    assert report.other_files == {".docx": 1}
    sets = find_sets(out)
    sides = {
        name: {pair.name.partition("__")[0] for pair in found.pairs} for name, found in sets.items()
    }
    assert report.test == len(sets["hospital"].pairs) > 0
    assert not sides["train"] & sides["hospital"]
    for found in sets.values():
        for pair in found.pairs:
            assert read_pair(pair)[1].any() == ("normal" not in pair.name)
    assert json.loads((out / "import.json").read_text())["taken"] == report.taken
    assert (out / "groups.csv").read_text().splitlines()[0] == "image,group"


def test_links_point_to_the_originals_and_nothing_is_copied(hospital: Path, tmp_path: Path) -> None:
    import_folder(hospital, tmp_path / "out", LAYOUT, link=True)
    images = tmp_path / "out" / "TrainDataset" / "images"
    linked = [path for path in images.iterdir() if path.is_symlink()]
    assert len(linked) == 17
    assert (images / "patient_0__0.jpg").resolve() == hospital / "patient_0" / "img" / "0.jpg"


def test_an_image_with_an_orientation_becomes_an_upright_one(tmp_path: Path) -> None:
    image, mask = scene(5, 96, polyp=True)
    exif = Image.Exif()
    exif[0x112] = 3
    for kind, pixels in (("img", image), ("seg", mask.astype(np.uint8) * 255)):
        (tmp_path / "a" / kind).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "a" / kind / "x.png", exif=exif)
    import_folder(tmp_path / "a", tmp_path / "out", Layout(images="img/*", masks="seg/{stem}.png"))
    (pair,) = find_pairs(tmp_path / "out" / "TrainDataset").pairs
    read = read_pair(pair)
    assert (read[0] == image[::-1, ::-1]).all() and (read[1] == mask[::-1, ::-1]).all()


@pytest.mark.parametrize(
    ("image", "mask", "template"),
    [
        ("images/7.jpg", "masks/7_segmentation.png", "masks/{stem}_segmentation.png"),
        ("images/7.jpg", "masks/mask_7.png", "masks/mask_{stem}.png"),
        ("images/7.jpg", "masks/7.jpg.png", "masks/{name}.png"),
        ("Original/7.jpg", "Ground Truth/7.tif", "Ground Truth/{stem}.tif"),
        ("a/7.jpg", "a/7_mask.png", "{stem}_mask.png"),
        ("p1/img/7.jpg", "p1/labels/7.png", "labels/{stem}.png"),
    ],
)
def test_usual_layouts_are_found_out(tmp_path: Path, image: str, mask: str, template: str) -> None:
    pixels, truth = scene(3, 96, polyp=True)
    _save(tmp_path / "in" / image, pixels)
    _save(tmp_path / "in" / mask, truth.astype(np.uint8) * 255)
    found = propose(list_tree(tmp_path / "in"))
    assert found is not None and (found.masks, found.pairs) == (template, 1)
    report = import_folder(tmp_path / "in", tmp_path / "out", Layout())
    assert list(report.taken.values()) == [image]


def test_the_nearest_of_several_masks_is_taken_and_a_tie_is_none() -> None:
    files = [PurePosixPath(f"p{i}/seg/7.png") for i in range(3)]
    finder = MaskFinder(files, "seg/{stem}.*")
    assert finder.find(PurePosixPath("p1/img/7.jpg")) == [files[1]]
    assert len(finder.find(PurePosixPath("q/img/7.jpg"))) == 3
    starred = MaskFinder(
        [PurePosixPath("a*b_mask.png"), PurePosixPath("axb_mask.png")], "{stem}_mask.png"
    )
    assert starred.find(PurePosixPath("a*b.jpg")) == [PurePosixPath("a*b_mask.png")]
    with pytest.raises(UserError, match="unknown"):
        MaskFinder(files, "{stme}.png")


def test_a_group_is_a_folder_or_what_an_expression_finds() -> None:
    path = PurePosixPath("ward/patient_12/img/case7_003.jpg")
    assert group_of(path, "patient_*") == "patient_12"
    assert group_of(path, r"case(\d+)") == "7"
    assert group_of(path, "video_*") is None
    with pytest.raises(UserError, match="regular expression"):
        group_of(path, "(")


def _compressed(lengths: list[int]) -> str:
    """The string form of run lengths, by the description of the COCO interface."""
    text = ""
    for index, length in enumerate(lengths):
        value = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(bits + (32 if more else 0) + 48)
    return text


def _coco(path: Path, segmentations: list, **sizes: int) -> None:
    size = {"width": 4, "height": 6, **sizes}
    annotations = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "segmentation": one}
        for i, one in enumerate(segmentations)
    ]
    images = [{"id": i, "file_name": f"{i}.png", **size} for i in range(len(segmentations) + 1)]
    categories = [{"id": 1, "name": "polyp"}, {"id": 2, "name": "tool"}]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def test_run_lengths_of_both_forms_and_polygons_become_masks(tmp_path: Path) -> None:
    expected = np.repeat([0, 1, 0, 1], LENGTHS).reshape(4, 6).T.astype(bool)
    plain = {"size": [6, 4], "counts": LENGTHS}
    packed = {"size": [6, 4], "counts": _compressed(LENGTHS)}
    polygon = [[0, 0, 2, 0, 2, 3, 0, 3]]
    _coco(tmp_path / "a.json", [plain, packed, polygon])
    first, second, third, fourth = read_coco(tmp_path / "a.json")
    assert (first.mask() == expected).all() and (second.mask() == expected).all()
    assert third.mask().sum() == 12 and third.mask()[:4, :3].all()
    assert not fourth.mask().any()
    chosen = read_coco(tmp_path / "a.json", ["polyp"])
    assert [one.mask().any() for one in chosen] == [True, False, True, False]
    big = np.random.default_rng(0).random((300, 200)) > 0.5
    big[0, 0] = False
    edges = np.flatnonzero(np.diff(big.T.ravel().astype(int), prepend=0, append=2))
    packed = {"size": [300, 200], "counts": _compressed(np.diff(edges, prepend=0).tolist())}
    _coco(tmp_path / "b.json", [packed], width=200, height=300)
    assert (read_coco(tmp_path / "b.json")[0].mask() == big).all()


def test_a_coco_export_is_imported_with_its_polyp_free_frames(tmp_path: Path) -> None:
    for index in range(3):
        _save(tmp_path / "in" / "images" / f"{index}.png", scene(index, 96)[0])
    box = [[20, 20, 60, 20, 60, 60, 20, 60]]
    _coco(tmp_path / "in" / "a.json", [box, box], width=96, height=96)
    report = import_folder(
        tmp_path / "in", tmp_path / "out", Layout(coco="a.json", categories=("polyp",))
    )
    assert len(report.taken) == 3 and report.polyp_free == 2
    masks = [read_pair(pair)[1].sum() for pair in find_pairs(tmp_path / "out/TrainDataset").pairs]
    assert masks == [41 * 41, 0, 0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "no COCO file"),
        ('{"images": [{"id": 1}], "annotations": []}', "no COCO file"),
        ('{"images": [], "annotations": [{"image_id": 1, "category_id": 1}]}', "no segmentation"),
        (
            '{"images": [{"id":1,"file_name":"a","height":1,"width":9000000000}],"annotations":[]}',
            "9000000000",
        ),
    ],
)
def test_a_damaged_coco_file_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=words):
        read_coco(tmp_path / "a.json")


@pytest.mark.parametrize("counts", ["\x1f", [3, -3, 24], [1], "!!!"])
def test_damaged_run_lengths_are_one_line(tmp_path: Path, counts) -> None:
    _coco(tmp_path / "a.json", [{"size": [6, 4], "counts": counts}])
    with pytest.raises(UserError, match=r"0.png: a segmentation cannot be read"):
        read_coco(tmp_path / "a.json")[0].mask()


def test_frames_of_a_video_with_a_few_masks_are_taken(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    writer = cv2.VideoWriter(
        str(tmp_path / "in" / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 96)
    )
    frames = [scene(20 + index, 96, polyp=True) for index in range(6)]
    for image, _ in frames:
        writer.write(image[..., ::-1].copy())
    writer.release()
    for number in (1, 4):
        _save(tmp_path / "in" / f"film_{number:03}.png", frames[number - 1][1].astype(np.uint8))
    layout = Layout(videos="*.avi", masks="{stem}_{frame}.png", first_frame=1)
    report = import_folder(tmp_path / "in", tmp_path / "out", layout)
    assert report.taken == {"film_000001": "film.avi#1", "film_000004": "film.avi#4"}
    for pair, (image, mask) in zip(
        find_pairs(tmp_path / "out/TrainDataset").pairs, (frames[0], frames[3]), strict=True
    ):
        found = read_pair(pair)
        assert np.abs(found[0].astype(int) - image).mean() < 12
        assert (found[1] == mask).all()
    assert (tmp_path / "out" / "groups.csv").read_text().count("film\n") == 2


def test_a_layout_file_says_the_same_as_options(hospital: Path, tmp_path: Path) -> None:
    file = tmp_path / "layout.yaml"
    file.write_text(
        "images: patient_*/img/*.jpg\nmasks: '{stem}_mask.png'\ngroup: patient_*\n"
        "polyp_free: '*/normal/*'\n"
    )
    assert read_layout(file) == LAYOUT
    file.write_text("image: x\n")
    with pytest.raises(UserError, match="'image' is no key"):
        read_layout(file)


def test_the_verb_reports_and_refuses_in_one_line(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["data", "import", hospital, out, "--json", tmp_path / "r.json"]
    done = run_verb(capsys, *arguments, "--masks", "{stem}_mask.png", "--group", "patient_*")
    assert done.code == 0 and "left out: " in done.out + done.err
    assert len(json.loads((tmp_path / "r.json").read_text())["taken"]) == 15
    for wrong, words in (
        (["--images", "*.tga"], "matches no picture"),
        (["--masks", "{stem}_nothing.png"], "try --images '*/img/*.jpg' --masks '{stem}_mask.png'"),
        (["--masks", "{a}"], "is unknown"),
        (["--test", "2"], "0 ≤ test < 1"),
        (["--videos", "*.mp4"], "matches no video"),
        (["--coco", "absent.json"], "absent.json"),
        (["--layout", "l.yaml", "--link", "--masks", "x"], "give one of the two"),
    ):
        line = only_line(run_verb(capsys, "data", "import", hospital, tmp_path / "none", *wrong))
        assert words in line
        assert not (tmp_path / "none").exists()
