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
