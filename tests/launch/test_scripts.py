"""What holds for every script of launch/, and for its README."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(
    str(path.relative_to(LAUNCH))
    for path in LAUNCH.rglob("*.sh")
    if path.name not in ("common.sh", "make_venv.sh")
)
README = (LAUNCH / "README.md").read_text()
EXAMPLES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_scripts_are_there():
    assert {"local.sh", "tpu_vm/tpu_vm.sh", "xpk/xpk.sh", "slurm/many_nodes.sh"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_strictness(script, launch):
    assert "\nset -euo pipefail\n" in (LAUNCH / script).read_text()
    done = launch(script, "--help")
    assert done.returncode == 0
    assert f"launch/{script} " in done.stdout
    assert "--dry-run" in done.stdout
    assert "#" not in done.stdout.replace("# ", "").replace("    #", "")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("words", [("--no-such-option", "1"), ("stray",), ("--",), ()])
def test_bad_arguments_are_one_line(script, words, launch, tmp_path):
    done = launch(script, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"[a-z_]+\.sh: .+; --help says more\n", done.stderr)
    assert not (tmp_path / "calls").exists()


def test_shellcheck():
    # Beside the interpreter, where pip puts it.
    program = Path(sys.executable).with_name("shellcheck")
    scripts = [str(path.relative_to(ROOT)) for path in sorted(LAUNCH.rglob("*.sh"))]
    done = subprocess.run([program, *scripts], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_one_common_file_is_sourced():
    for path in LAUNCH.rglob("*.sh"):
        sourced = re.findall(r'^ *(?:source|\.) "?.*/(.+?)"?$', path.read_text(), re.MULTILINE)
        assert set(sourced) <= {"common.sh"}, path


def test_readme_links():
    for target in re.findall(r"\]\(([^):#]+)\)", README):
        assert (LAUNCH / target).exists(), target


def test_readme_examples_are_valid(launch):
    arrays = {"${tpu[@]}": "", "${cluster[@]}": "", "$image": "IMAGE:1"}
    tried = set()
    for line in EXAMPLES:
        name, equals, value = line.partition("=(")
        if equals:
            arrays[f"${{{name}[@]}}"] = value.rstrip(")")
            continue
        words = []
        for word in shlex.split(line):
            words += shlex.split(arrays[word]) if word in arrays else [word]
        scripts = [word for word in words if word.startswith("launch/")]
        if not scripts:
            continue
        script, rest = scripts[0], words[words.index(scripts[0]) + 1 :]
        at = rest.index("--") if "--" in rest else len(rest)
        done = launch(script.removeprefix("launch/"), *rest[:at], "--dry-run", *rest[at:])
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout, line
        tried.add(script.removeprefix("launch/"))
    assert tried == set(SCRIPTS)
