"""Configs are strict: typed overrides, no unknown key, one clear line for whatever is wrong."""

import json
import re
from pathlib import Path

import pytest

from glpi_jax.core import config as config_files
from glpi_jax.core.config import (
    CONFIGS_ROOT,
    differences,
    flatten,
    load_config,
    shipped_config,
    to_plain,
)
from glpi_jax.core.errors import GlpiError

DEMO = shipped_config("demo")
FORMS = {
    "authentic": [
        ":clive",
        ":koniq10k",
        ":bid",
        ":spaq",
        ":flive",
        ":agiqa3k",
        ":agiqa3k_alignment",
    ],
    "base": [""],
    "clive_cpu": [""],
    "cross": [":kadid10k-live,csiq", ":clive-bid", ":clive-agiqa3k"],
    "demo": ["", ":short", ":long"],
    "saqt_pretrain": [""],
    "shipped": [""],
    "synthetic": [":live", ":csiq", ":tid2013", ":kadid10k", ":livemd"],
}
SHARED = {"databases"}  # imported by configs


def test_every_shipped_config_has_its_forms_here():
    assert {path.stem for path in (CONFIGS_ROOT / "configs").glob("*.py")} == {*FORMS, *SHARED}


@pytest.mark.parametrize("name", FORMS)
def test_every_shipped_config_loads_in_every_form(name):
    base = flatten(to_plain(load_config(shipped_config("base"))))
    for form in FORMS[name]:
        config = load_config(f"{shipped_config(name)}{form}")
        assert config.is_locked
        assert not base.keys() - flatten(to_plain(config)).keys()


def test_shipped_configs_are_found_beside_the_package():
    assert Path(DEMO).is_file()
    assert load_config(f"{DEMO}:short").train.epochs < load_config(DEMO).train.epochs


def test_loading_leaves_the_import_path_alone():
    before = list(config_files.sys.path)
    load_config(DEMO)
    assert config_files.sys.path == before


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=7", 7),
        ("model.name=glpi_s16", "glpi_s16"),
        ("model.name=7", "7"),  # a name stays a name
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=3e-4", 3e-4),
        ("data.apply_orientation=true", True),
        ("data.resize=(384,512)", (384, 512)),
        ("data.resize=()", ()),
        ("model.batch_norm_inference_stages=('stem','layer1')", ("stem", "layer1")),
        ("optimizer.rules=(('vgfe/.*',None),('.*',0.5))", (("vgfe/.*", None), (".*", 0.5))),
        ("data.root=/some where/x=y", "/some where/x=y"),
    ],
)
def test_an_override_has_the_type_of_what_it_replaces(override, value):
    config = load_config(DEMO, [f"--config.{override}"])
    given = config
    for part in override.partition("=")[0].split("."):
        given = given[part]
    assert given == value
    assert type(given) is type(value)
    assert config.is_locked


def test_an_override_may_add_an_argument_of_the_optimizer():
    added = ("weight_decay=0.5", "nesterov=True", "mu_dtype=bfloat16", "weight_decay=0.25")
    config = load_config(DEMO, [f"--config.optimizer.arguments.{each}" for each in added])
    assert config.optimizer.arguments.to_dict() == {
        "weight_decay": 0.25,
        "nesterov": True,
        "mu_dtype": "bfloat16",
    }


def test_the_tree_is_locked():
    config = load_config(DEMO)
    with pytest.raises(AttributeError):
        config.train.batchsize = 3
    config.train.batch_size = 3  # what exists may change


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.nokey=1", r"--config\.nokey: .*no such key"),
        ("--config.train.nokey=1", r"--config\.train\.nokey: .*no such key"),
        ("--config.seed.nokey=1", r"--config\.seed\.nokey: .*no such key"),
        ("--config.train=3", r"--config\.train: this is a section.*batch_size"),
        ("--config.seed=abc", r"config\.seed=abc"),
        ("--config.seed=1.5", r"config\.seed=1\.5"),
        ("--config.train.batch_size=", r"config\.train\.batch_size="),
        ("--config.optimizer.learning_rate=fast", r"config\.optimizer\.learning_rate=fast"),
        ("--config.data.apply_orientation=maybe", r"config\.data\.apply_orientation=maybe"),
        ("--config.seed", r"--config\.seed: not of the form"),
        ("stray", r"stray: not of the form"),
        ("--bogus=1", r"--bogus=1: not of the form"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(override, words):
    with pytest.raises(GlpiError, match=words) as caught:
        load_config(DEMO, ["--config.seed=1", override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def get_config(form=None):\n    return 1 / 0\n", "ZeroDivisionError"),
        ("def get_config(form=None)\n", "SyntaxError"),
        ("import no_such_module\n", "no_such_module"),
        ("def get_config():\n    return open('/no/such/file')\n", "/no/such/file"),
        ("def get_config():\n    return undefined\n", "undefined"),
        ("settings = 1\n", "get_config"),
        ("def get_config():\n    return {'seed': 1}\n", "must return a ConfigDict"),
        ("\x00", "does not load"),
        (
            "from pathlib import Path\nfrom ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'data': {'root': Path('x')}})\n",
            "config.data.root is a PosixPath, which run.json cannot hold",
        ),
    ],
)
def test_a_failing_file_is_one_line_that_names_it(tmp_path, content, words):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(GlpiError, match=re.escape(str(path))) as caught:
        load_config(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("spec", [f"{DEMO}:tall", f"{DEMO}:", f"{shipped_config('base')}:short"])
def test_a_wrong_form_is_one_line_that_names_it(spec):
    with pytest.raises(GlpiError, match=re.escape(spec)) as caught:
        load_config(spec)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("name", ["no-such.py", "", "."])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(GlpiError, match="no such config file"):
        load_config(str(tmp_path / name))


def test_a_config_may_import_its_neighbours_and_the_projects_base(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from configs import base\n"
        "def get_config(form=None):\n"
        "    config = base.get_config()\n"
        "    config.seed = int(form or 5)\n"
        "    return config\n"
    )
    assert load_config(str(folder / "mine.py")).seed == 5
    assert load_config(f"{folder / 'mine.py'}:8", ["--config.model.dropout=0"]).seed == 8


def test_flatten_and_differences():
    saved = {"seed": 0, "data": {"root": "a", "resize": []}, "old": {"key": None}}
    assert flatten(saved) == {"seed": 0, "data.root": "a", "data.resize": [], "old.key": None}
    given = {"seed": 0, "data": {"root": "b", "resize": [], "new": 1}}
    assert differences(saved, saved) == []
    assert differences(saved, given) == [
        "config.data.new = 1 (was 'absent')",
        "config.data.root = 'b' (was 'a')",
        "config.old.key = 'absent' (was None)",
    ]


def test_plain_configs_survive_json():
    plain = to_plain(load_config(DEMO, ["--config.data.resize=(2,3)"]))
    assert plain["data"]["resize"] == [2, 3]
    assert json.loads(json.dumps(plain)) == plain
