"""Loading of experiment configs: strict, with overrides, and written beside the results."""

import ast
import json
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from glpi_jax.core.errors import GlpiError

# Sections whose keys are arguments of a function: an override may add one.
_OPEN_SECTIONS = ("optimizer.arguments",)

# What runs did before these keys were in the config: an old run.json or results.json without them
# means this. `with_later_keys` alone puts them in: for resuming, evaluating, exporting, reports.
_LATER_KEYS: dict[str, dict[str, Any]] = {
    "model": {"param_dtype": "float32", "plain_operators": []},
    "optimizer": {"name": "adam_l2", "arguments": {}},
    "train": {"loss": "l1", "huber_delta": 1.0},
}

# A checkout holds configs/ beside the package, an installed wheel inside it.
_PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS_ROOT = next(
    (folder for folder in (_PACKAGE.parent, _PACKAGE) if (folder / "configs/base.py").is_file()),
    _PACKAGE,
)


def shipped_config(name: str) -> str:
    """Path of a config that comes with the project, e.g. "demo"."""
    return str(CONFIGS_ROOT / "configs" / f"{name}.py")


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Load a config file and change single values.

    Args:
        spec: path of a Python file with `get_config(form=None)`, or `path.py:form`.
        overrides: `--config.section.key=value`, parsed by the type of the value they replace, or as
            a Python literal where they add a key to `optimizer.arguments`.

    Returns:
        The locked tree.

    Raises:
        GlpiError: missing or failing file, a value that JSON cannot hold, unknown key, or a value
            of another type.
    """
    config = _run_config_file(spec)
    overrides = [each for each in overrides if not _added_to_open_section(config, each)]
    for override in overrides:
        _check_override(config, override)
    values = flags.FlagValues()
    arguments = ["glpi", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise GlpiError(f"{spec}: {_one_line(error)}") from error
    return values.config


def _run_config_file(spec: str) -> ConfigDict:
    name, colon, form = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise GlpiError(f"{path}: no such config file; the project's own are in configs/")
    try:
        with importable(path.resolve().parent.parent, CONFIGS_ROOT):
            config = runpy.run_path(name)["get_config"](*[form] * bool(colon))
    except Exception as error:  # a config is a program, which may raise anything
        cause = f"{type(error).__name__}: {_one_line(error)}"
        raise GlpiError(f"{spec}: the config does not load ({cause})") from error
    if not isinstance(config, ConfigDict):
        raise GlpiError(f"{spec}: get_config() must return a ConfigDict, not {config!r}")
    for key, value in flatten(config.to_dict()).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise GlpiError(
                f"{spec}: config.{key} is a {type(value).__name__}, which run.json cannot hold;"
                " take numbers, texts, truth values and tuples of them"
            ) from error
    return config


def _added_to_open_section(config: ConfigDict, override: str) -> bool:
    """Add the key of an override to a section that takes new ones; return whether it did."""
    key, equals, text = override.partition("=")
    section, _, name = key.removeprefix("--config.").rpartition(".")
    if section not in _OPEN_SECTIONS or not (equals and name.isidentifier()):
        return False
    node: Any = config
    for part in section.split("."):
        node = node.get(part) if isinstance(node, ConfigDict) else None
    if not isinstance(node, ConfigDict) or name in node:
        return False
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
    except (ValueError, SyntaxError, TypeError):
        value = text
    with node.unlocked():
        node[name] = value
    return True


def _check_override(config: ConfigDict, override: str) -> None:
    """Raise a GlpiError unless an override has its form and names a value of the tree."""
    key, equals, _ = override.partition("=")
    if not key.startswith("--config.") or not equals:
        raise GlpiError(f"{override}: not of the form --config.section.key=value")
    node: Any = config
    for part in key.removeprefix("--config.").split("."):
        if not isinstance(node, ConfigDict) or part not in node:
            raise GlpiError(f"{key}: the config has no such key; its keys are in configs/base.py")
        node = node[part]
    if isinstance(node, ConfigDict):
        raise GlpiError(f"{key}: this is a section; override one of its keys: {', '.join(node)}")


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Let modules be imported from these folders first, meanwhile."""
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """The tree as JSON sees it: plain dictionaries, lists for tuples."""
    return json.loads(json.dumps(config.to_dict()))


def with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config, a plain tree, with the keys that it was too old to have."""
    later = {
        section: keys | config[section]
        for section, keys in _LATER_KEYS.items()
        if isinstance(config.get(section), dict)
    }
    return config | later


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level: {"section.key": value}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(
    saved: dict[str, Any], given: dict[str, Any], *, but_for: Sequence[str] = ()
) -> list[str]:
    """Where two plain trees differ, as `config.section.key = new (was old)`.

    `but_for` names keys, and sections, that may.
    """
    old, new = flatten(saved), flatten(given)
    missing = object()
    return [
        f"config.{key} = {new.get(key, 'absent')!r} (was {old.get(key, 'absent')!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
        and not any(f"{key}.".startswith(f"{free}.") for free in but_for)
    ]
