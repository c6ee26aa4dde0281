"""`Recipe`: a YAML file that states one whole run.

Strict: unknown keys and wrong values are reported all together, each with the file, the
line, the key and the nearest valid name. A recipe is found by its file, or by name among
the ones that ship with the package.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from surgeon.errors import RecipeError, UnknownName, UsageError
from surgeon.record import Record

PACKAGED = Path(__file__).parent / "_recipes"
CHECKOUT = Path(__file__).parent.parent / "recipes"

Positive = Annotated[int, Field(ge=1)]


def _candidates(value: Any) -> Any:
    """`top1`, or how many of each scorer's best blocks; said once instead of per variant."""
    if isinstance(value, dict):
        if all(type(count) is int and count >= 0 for count in value.values()):
            return value
    elif value == "top1":
        return value
    raise ValueError("expected `top1` or a count for each scorer, such as {stability: 2}")


PROPOSALS = {"stability": 2, "anomaly": 2, "decisiveness": 1, "consensus": 1}

Candidates = Annotated[Literal["top1"] | dict[str, int], BeforeValidator(_candidates)]


class ProbeStep(Record):
    """How blocks are predicted; at most `limit` of the prompts are used, drawn by the seed."""

    prompts: str = "default"
    limit: Positive = 100
    scorers: tuple[str, ...] = ("stability", "anomaly", "decisiveness", "consensus")
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (3, 4, 5)


class SelectStep(Record):
    """How the block to duplicate is chosen among the predicted ones.

    `candidates` is how many of each scorer's best blocks are measured, or `top1`: no
    measurement, the first scorer's first block is taken. `budget` bounds the number of
    measured blocks, refinement included. A winner gains at least `min_gain`.
    """

    candidates: Candidates = Field(default_factory=lambda: dict(PROPOSALS))
    task: str = "deduction"
    documents: Positive = 300
    refine: bool = True
    budget: Positive = 24
    min_gain: Annotated[float, Field(ge=0, le=1)] = 0.02


class CheckStep(Record):
    """How the saved model is judged, on documents that chose nothing."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("deduction",)
    documents: Positive = 1000
    margin: Annotated[float, Field(gt=0, le=1)] = 0.02
    plan: Literal["fixed", "sequential"] = "sequential"
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class CostStep(Record):
    """How tokens per second and memory of base and new model are measured.

    Both generate `tokens` tokens after a prompt of `prompt` tokens, in turns: up to `repeats`
    times, and no turn begins after `seconds`.
    """

    enabled: bool = True
    prompt: Positive = 128
    tokens: Annotated[int, Field(ge=2)] = 32
    repeats: Positive = 5
    seconds: Annotated[float, Field(gt=0)] = 60.0


class Recipe(Record):
    """One whole run: model, probe, select, check, cost.

    With `sweep`, every block of the probe's sizes is measured on the documents of `select`;
    the best one is taken, and the scorers are held against what was measured. Then
    `select.candidates`, `refine` and `budget` mean nothing.

    Example:
        >>> import surgeon
        >>> recipe = surgeon.Recipe(model="demo:planted")
        >>> recipe.check.tasks, recipe.check.documents
        (('deduction',), 1000)
    """

    SCHEMA = "surgeon.recipe/1"

    name: str = "recipe"
    model: str
    probe: ProbeStep = ProbeStep()
    sweep: bool = False
    select: SelectStep = SelectStep()
    check: CheckStep = CheckStep()
    cost: CostStep = CostStep()
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0

    def to_yaml(self) -> str:
        """The recipe as a file that reads back as the same recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    """The wheel carries the recipes inside the package; a checkout has them beside it."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def find_recipe(name: str) -> Path:
    """Path of a recipe given as a file or by name.

    Raises:
        UsageError: it looks like a file and is not there.
        UnknownName: no recipe of that name ships with the package.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UsageError(f"no recipe file `{name}`", hint=f"by name: {', '.join(recipe_names())}")
    if name not in recipe_names():
        raise UnknownName("recipe", name, recipe_names())
    return _folder() / f"{name}.yaml"


def load_recipe(name: str, settings: dict[str, str] | None = None) -> Recipe:
    """Read and validate a recipe.

    Args:
        name: a file or a shipped recipe's name.
        settings: overrides by dotted key, values as YAML text: `{"check.documents": "500"}`.

    Example:
        >>> import surgeon
        >>> recipe = surgeon.load_recipe("demo", {"check.documents": "500"})
        >>> recipe.model, recipe.check.documents
        ('demo:planted', 500)

    Raises:
        RecipeError: not YAML, unknown keys or wrong values; all problems in one message.
        UsageError: no such recipe.
    """
    path = find_recipe(name)
    try:
        text = path.read_text(encoding="utf-8")
        data, lines = _parse(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"`{path}` is not a readable YAML recipe: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"`{path}` holds no recipe: expected keys such as `model:`")
    for key, value in (settings or {}).items():
        _override(data, key, value)
    data.setdefault("name", path.stem)
    return validate(data, str(path), lines)


def validate(data: dict[str, Any], origin: str, lines: dict[tuple[str, ...], int]) -> Recipe:
    """Build a recipe from parsed data, reporting every problem at once.

    Raises:
        RecipeError: with one line a problem.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        items = [
            item for item in error.errors() if item["type"] != "too_short" or not item["input"]
        ]
        problems = [_problem(origin, lines, item) for item in items]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise RecipeError(f"{count} in the recipe\n" + "\n".join(problems)) from error


def _problem(origin: str, lines: dict[tuple[str, ...], int], item: Any) -> str:
    keys = tuple(str(part) for part in item["loc"])
    line = next((lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), None)
    where = origin if line is None else f"{origin}:{line}"
    message = item["msg"]
    if item["type"] == "extra_forbidden":
        near = get_close_matches(keys[-1], _fields(keys[:-1]), n=1)
        message = "unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    elif item["type"] != "missing":
        message = f"{message.removeprefix('Value error, ')}, got `{item['input']}`"
    return f"  {where}: `{'.'.join(keys)}`: {message}"


def _fields(keys: tuple[str, ...]) -> list[str]:
    """Names that are valid under a dotted key."""
    model: Any = Recipe
    for key in keys:
        field = model.model_fields.get(key)
        annotation = field.annotation if field else None
        model = annotation if hasattr(annotation, "model_fields") else None
        if model is None:
            return [str(value) for value in get_args(annotation)]
    return list(model.model_fields)


def _override(data: dict[str, Any], key: str, value: str) -> None:
    *parents, leaf = key.split(".")
    level = data
    for parent in parents:
        level = level.setdefault(parent, {})
        if not isinstance(level, dict):
            raise RecipeError(f"--set {key}: `{parent}` is not a section")
    try:
        level[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {key}: `{value}` is not a YAML value") from error


def _parse(text: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The YAML value, and the line of every key path in it.

    Raises:
        yaml.YAMLError: not YAML, or a key given twice.
    """
    lines: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, str(key.value))
                if here in lines:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: `{key.value}` twice")
                lines[here] = key.start_mark.line + 1
                walk(value, here)

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        walk(root, ())
    return yaml.safe_load(text), lines
