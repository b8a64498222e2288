"""Recipes: what a person can get wrong is named, with the nearest right word."""

from pathlib import Path

import pytest

from kdas_edge.errors import UserError
from kdas_edge.recipe import QuantizeRecipe, TrainRecipe, dump_recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = {"data": {"root": "data"}, "schedule": {"epochs": 3}}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_committed_recipe_is_valid_once_data_and_teacher_are_named(path: Path) -> None:
    kind = QuantizeRecipe if path.stem.startswith("int8") else TrainRecipe
    named = ["data.root=data"]
    if "supervised" not in path.read_text():
        named.append("teacher=runs/teacher")
    if kind is QuantizeRecipe:
        named.append("student=runs/student")
    recipe = load_recipe(kind, path, named)
    assert recipe.name == path.stem


def test_every_line_of_a_committed_recipe_that_decides_something_says_why() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert path.read_text().startswith("# "), path
        assert path.read_text().count("#") >= 3, path


def test_a_dumped_recipe_reads_back_the_same() -> None:
    recipe = load_recipe(TrainRecipe, MINIMAL, ["augment.scale=[0.5, 2]", "loss.temperature=4"])
    import yaml

    assert load_recipe(TrainRecipe, yaml.safe_load(dump_recipe(recipe)), []) == recipe


def test_an_override_reaches_into_sections_that_the_file_does_not_have() -> None:
    recipe = load_recipe(TrainRecipe, MINIMAL, ["model.backbone=mobilenetv2_100", "seed=5"])
    assert recipe.model.backbone == "mobilenetv2_100"
    assert recipe.seed == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.epoch=4", r"unknown key 'schedule.epoch'; did you mean 'epochs'"),
        ("learning_rat=1", "unknown key 'learning_rat'"),
        ("schedule.epochs=many", "schedule.epochs = 'many'"),
        ("schedule.epochs=0", "schedule.epochs = 0"),
        ("data.size=100", "data.size = 100"),
        ("loss.variant=kdsa", "loss.variant = 'kdsa'"),
        ("loss.variant=kdas", "needs a teacher"),
        ("engine.precision=fp8", "engine.precision = 'fp8'"),
        ("schedule.epochs", "not key=value"),
        ("seed.deep=1", "seed"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(TrainRecipe, {**MINIMAL, "seed": 0}, [override])
    assert "\n" not in str(caught.value)


def test_a_missing_value_is_named_with_the_way_to_set_it() -> None:
    with pytest.raises(UserError, match=r"'data' is missing; set it .* data=VALUE"):
        load_recipe(TrainRecipe, {"schedule": {"epochs": 1}}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not YAML"), ("- 1\n- 2\n", "holds no keys"), ("", "holds no keys")],
)
def test_a_file_that_is_no_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(TrainRecipe, path, [])
    assert "\n" not in str(caught.value)


def test_an_absent_recipe_is_named() -> None:
    with pytest.raises(UserError, match=r"absent\.yaml"):
        load_recipe(TrainRecipe, Path("absent.yaml"), [])


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch hacked']\n")
    with pytest.raises(UserError, match="not YAML"):
        load_recipe(TrainRecipe, path, [])
    assert not (tmp_path / "hacked").exists()


def test_the_variant_is_kdas_with_a_teacher_and_supervised_without() -> None:
    assert load_recipe(TrainRecipe, MINIMAL, []).loss.variant == "supervised"
    assert load_recipe(TrainRecipe, MINIMAL, ["loss.temperature=4"]).loss.variant == "supervised"
    assert load_recipe(TrainRecipe, MINIMAL, ["teacher=runs/t"]).loss.variant == "kdas"
    with pytest.raises(UserError, match="does not use the teacher"):
        load_recipe(TrainRecipe, MINIMAL, ["teacher=runs/t", "loss.variant=supervised"])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("name", "007"),
        ("name", "no"),
        ("name", "2024-05-01"),
        ("data.root", "2024"),
        ("data.root", "c #d"),
        ("data.root", "e: f"),
        ("data.root", "[old]"),
        ("data.unlabelled", "on"),
        ("model.pretrained", "1e5"),
    ],
)
def test_names_and_paths_on_the_command_line_are_text(key: str, text: str) -> None:
    recipe = load_recipe(TrainRecipe, MINIMAL, [f"{key}={text}", "teacher=t"])
    value = recipe
    for part in key.split("."):
        value = getattr(value, part)
    assert value == text


def test_null_and_true_keep_their_meaning_where_a_key_takes_them() -> None:
    overrides = ["data.unlabelled=null", "model.pretrained=true", "teacher=~"]
    recipe = load_recipe(TrainRecipe, {**MINIMAL, "teacher": "t"}, overrides)
    assert (recipe.data.unlabelled, recipe.model.pretrained, recipe.teacher) == (None, True, None)
    assert load_recipe(TrainRecipe, MINIMAL, ["name=null"]).name == "null"
    assert load_recipe(TrainRecipe, MINIMAL, ['name="a b"']).name == "a b"


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_CYCLE = "name: &a [*a]\n"
_CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: t\xe9\n", "not UTF-8"),
        (b"name: a\nname: b\n", "'name' is there twice"),
        (b"schedule: {epochs: 1, epochs: 2}\n", "'epochs' is there twice"),
        (_BOMB.encode(), "aliases unfolded"),
        (_CYCLE.encode(), "deeper than|aliases unfolded"),
        (_CHAIN.encode(), "aliases unfolded"),
        (b"[" * 20_000, "deeper than"),
        (b"a: " * 3, "not YAML"),
        (b"seed: " + b"9" * 5000, "not YAML"),
        (b"seed: " + b"9" * 4000, "seed = 9999"),
        (b"name: 2024\n", "put it into quotes"),
        (b"name: no\n", "put it into quotes"),
        (b"schedule: 2001-99-99\n", "schedule = '2001-99-99'"),
        (b"\0", "not YAML"),
        (b"seed: .nan\n", "seed"),
    ],
)
def test_a_hostile_or_broken_recipe_file_is_one_short_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(TrainRecipe, path, ["data.root=d"])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": 1, "a": 2}', "twice"), (b"[" * 100_000, "too deep"), (b"{", "not JSON")],
)
def test_a_broken_json_recipe_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_recipe(TrainRecipe, path, [])


def test_a_recipe_as_windows_writes_it_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-8-sig"):
        path = tmp_path / f"{encoding}.yaml"
        path.write_text("name: température\ndata: {root: d}\nschedule: {epochs: 1}\n", encoding)
        assert load_recipe(TrainRecipe, path, []).name == "température"


def test_what_is_no_recipe_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_100_000)
    for path, message in (
        (tmp_path, "regular file|directory"),
        (Path("/dev/zero"), "not a regular file"),
        (large, "at most 1000000"),
        (Path("a\0b.yaml"), "cannot read"),
        (tmp_path / ("x" * 5000), "cannot read|too long"),
    ):
        with pytest.raises(UserError, match=message):
            load_recipe(TrainRecipe, path, [])


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "data.split_seed=-1",
        f"seed={2**63}",
        "data.epoch_images=100000000000",
        "schedule.scales=[100]",
        "schedule.scales=[0]",
        "schedule.batch_size=1000000000",
        "engine.threads=1000000",
        "data.size=1000000000",
        "teacher_size=1000000000",
        "model.width=4096",
        "model.width=-8",
        "loss.temperature=.inf",
        "loss.teacher_weight=.nan",
    ],
)
def test_a_value_beyond_its_limit_is_refused_and_named(override: str) -> None:
    with pytest.raises(UserError, match=override.partition("=")[0]):
        load_recipe(TrainRecipe, MINIMAL, ["teacher=t", override])


OLD = {
    "teacher_mirrors": (4, "teacher_tta"),
    "teacher_once": (True, "cache_teacher"),
    "data.masks": (0.5, "data.labelled_fraction"),
    "data.unlabelled_agreement": (0.7, "data.pseudo_label_consistency"),
    "model.start": ("runs/a", "model.init_from"),
    "model.decoder": ("runs/a", "model.init_decoder_from"),
    "schedule.fit_bias": (True, "schedule.calibrate_threshold"),
    "loss.variant": ("soft_mask", "soft_labels"),
}


@pytest.mark.parametrize("old", OLD)
def test_a_key_of_the_first_release_is_refused_with_its_new_name(old: str) -> None:
    value, new = OLD[old]
    with pytest.raises(UserError, match=f"{old}.* is now called .*{new}"):
        load_recipe(TrainRecipe, MINIMAL, ["teacher=t", f"{old}={value}"])


@pytest.mark.parametrize("old", OLD)
def test_a_recorded_recipe_of_the_first_release_is_read_under_its_new_names(old: str) -> None:
    value, new = OLD[old]
    section, _, key = old.rpartition(".")
    values = {**MINIMAL, "teacher": "t", "loss": {"variant": "soft_mask"}}
    inner = {key: value}
    values |= {section: {**values.get(section, {}), **inner}} if section else inner
    found = load_recipe(TrainRecipe, values, [], recorded=True)
    assert found.loss.variant == "soft_labels"
    if old != "loss.variant":
        dumped = found.model_dump()
        for part in new.split("."):
            dumped = dumped[part]
        assert dumped == value
    # what a run records today is read as it is
    assert load_recipe(TrainRecipe, found.model_dump(), [], recorded=True) == found


RUNS = sorted((ROOT / "benchmarks" / "results" / "runs").glob("*/recipe.yaml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_the_recipes_of_committed_runs_are_read_as_they_are(path: Path) -> None:
    kind = QuantizeRecipe if "student:" in path.read_text() else TrainRecipe
    assert load_recipe(kind, path, [], recorded=True).name
