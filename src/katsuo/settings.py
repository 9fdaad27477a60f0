"""Settings of any kind: groups that are checked when built, laid over one another, read from YAML and written back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from katsuo.errors import RecipeError


class Settings(BaseModel):
    """A group of settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    def to_yaml(self) -> str:
        """Write every setting as YAML, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


Group = TypeVar("Group", bound=Settings)


def build(group: type[Group], values: Mapping[str, Any], *, where: str = "", listed: str) -> Group:
    """
    Build a group from plain values; raise `RecipeError` for the first that cannot be.

    `where` follows the setting in the message (` in "recipe.yaml"`), `listed` says where all settings are listed.
    """
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        steps = [str(step) for step in first["loc"]]
        key, given = ".".join(steps), first["input"]
        if first["type"] == "extra_forbidden":
            raise RecipeError(f'unknown setting "{key}"{where}', hint=_nearest(group, steps)) from None
        cannot = "" if isinstance(given, Mapping | Settings) else f" cannot be {given!r}"
        raise RecipeError(
            f'setting "{key or "recipe"}"{where}{cannot}: {first["msg"].lower()}', hint=f"{listed} lists every setting"
        ) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe's settings, none from an empty file; raise `RecipeError` that names the file."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f'cannot read the recipe "{path}": {error.strerror}', hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f'the recipe "{path}" is not YAML: {error}', hint="check the indentation") from error
    if not isinstance(loaded or {}, dict):
        raise RecipeError(f'the recipe "{path}" is not a table of settings', hint="write `key: value` lines")
    return loaded or {}


def read_pairs(pairs: Iterable[str], *, such_as: str) -> dict[str, Any]:
    """Read `key=value` as people write it on a command line, the value as YAML; `such_as` is a pair for the hint."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            found[key.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f'the value of "{pair}" is not YAML', hint="quote what holds a bracket") from error
        if not equals:
            raise RecipeError(f'"{pair}" is not a setting', hint=f"write `--set key=value`, such as `--set {such_as}`")
    return found


def lay_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give `base` with `changes` in it; dotted keys and tables reach into groups, which keep the rest."""
    merged = dict(base)
    for key, value in changes.items():
        group, _, inner = key.partition(".")
        if inner:
            merged[group] = {**(merged.get(group) or {}), inner: value}
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give every setting under its dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def known_keys(group: type[Settings]) -> list[str]:
    """List every setting of a group, those of groups in it as dotted keys."""
    return list(_known(group))


def _known(group: type[Settings]) -> Iterator[str]:
    for name, info in group.model_fields.items():
        if isinstance(info.annotation, type) and (inner := _group_of(info.annotation)):
            yield from (f"{name}.{key}" for key in inner.model_fields)
        else:
            yield name


def _nearest(group: type[Settings], steps: list[str]) -> str:
    """Say which setting may have been meant."""
    known = known_keys(group)
    inner = group
    for step in steps[:-1]:
        field = inner.model_fields.get(step)  # a name in a table of groups is no field
        inner = (field and _group_of(field.annotation)) or inner
    beside = [".".join([*steps[:-1], name]) for name in inner.model_fields]
    near = difflib.get_close_matches(".".join(steps), [*beside, *known], n=1, cutoff=0.4)
    return f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"


def _group_of(annotation: Any) -> type[Settings] | None:
    """Give the group of settings that a type is, or a table or a choice of it."""
    if inside := get_args(annotation):
        return next((found for one in inside if (found := _group_of(one))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None
