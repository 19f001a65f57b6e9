"""The command line: exit codes, one line for each problem, results on stdout alone."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import glpi_jax
from glpi_jax import scoring
from glpi_jax.cli import score
from glpi_jax.cli.main import main
from glpi_jax.models.glpi import SIZES
from glpi_jax.scoring import MIN_SIDE, score_file
from glpi_jax.workflow import runs

CROP = SIZES["glpi_demo"].crop


def glpi(*arguments, env=None, cwd=None):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "glpi_jax", *map(str, arguments)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def picture(path, height, width, mode="RGB"):
    """Save a picture whose pixels depend on its size alone."""
    rng = np.random.default_rng(height * 1000 + width)
    Image.frombytes(mode, (width, height), rng.bytes(height * width * len(mode))).save(path)
    return path


def errors_of(output):
    return [line for line in output.err.splitlines() if "error" in line]


# Scoring


@pytest.fixture
def odd_paths(tmp_path):
    """Images of every unusual kind, with what should become of each: "score", "note" or "error"."""
    side = CROP + 20
    (tmp_path / "no images here").mkdir()
    (tmp_path / "corrupt.png").write_bytes(
        picture(tmp_path / "a.png", side, side).read_bytes()[:-900]
    )
    (tmp_path / "text.jpg").write_text("not an image\n")
    (tmp_path / "nothing.png").touch()
    deep = np.random.default_rng(0).integers(0, 65536, (side, side), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    return [
        (tmp_path / "corrupt.png", "error"),
        (picture(tmp_path / "grey.png", side, side, "L"), "score"),
        (tmp_path / "text.jpg", "error"),
        (tmp_path / "no images here", "error"),
        (picture(tmp_path / "alpha.png", side, side, "RGBA"), "score"),
        (tmp_path / "deep.png", "score"),
        (tmp_path / "missing.png", "error"),
        (picture(tmp_path / "cmyk.jpg", side, side, "CMYK"), "score"),
        (picture(tmp_path / "dot.png", 1, 1), "error"),
        (picture(tmp_path / "thin.png", MIN_SIDE - 1, 3 * side), "error"),
        (picture(tmp_path / "small.png", CROP - 1, MIN_SIDE), "note"),
        (tmp_path / "nothing.png", "error"),
        (picture(tmp_path / "large.png", 2 * side, 3 * side), "score"),
    ]


def test_bad_images_are_named_and_the_others_scored(trained, odd_paths, capsys):
    arguments = [str(path) for path, _ in odd_paths]
    assert main(["score", str(trained.workdir), "--json", *arguments]) == 2
    output = capsys.readouterr()
    results = json.loads(output.out)
    assert [result["image"] for result in results] == arguments
    for result, (path, fate) in zip(results, odd_paths, strict=True):
        fields = {"score": set(), "note": {"note"}}.get(fate)
        if fields is None:
            assert result.keys() == {"image", "error"}
            assert str(path) in result["error"]
        else:
            numbers = {"image", "score", "crop_std", "standard_error", "crops"}
            assert result.keys() == numbers | fields
            assert np.isfinite(result["score"])
            assert result["crop_std"] >= 0
    # On stderr, one line for each bad path and no more.
    bad = [str(path) for path, fate in odd_paths if fate == "error"]
    assert len(errors_of(output)) == len(bad)
    for path, line in zip(bad, errors_of(output), strict=True):
        assert line.startswith("glpi: error: ")
        assert path in line
    assert "Traceback" not in output.err
    assert f"small.png: {MIN_SIDE}×{CROP - 1}, smaller than the crop" in output.err


def test_the_table_and_the_csv_file_agree_with_json(trained, odd_paths, tmp_path, capsys):
    paths = [str(path) for path, fate in odd_paths]
    assert main(["score", str(trained.workdir), "--json", *paths]) == 2
    expected = json.loads(capsys.readouterr().out)
    file = tmp_path / "scores.csv"
    file.write_text("image,score,crop_std,standard_error,crops,note,error\nolder.png,1,,,,,\n")
    assert main(["score", str(trained.workdir), "--csv", str(file), *paths]) == 2
    output = capsys.readouterr()
    scored = [result for result in expected if "score" in result]
    assert output.out.splitlines() == [
        f"{result['score']:8.3f} ± {result['standard_error']:.3f}  {result['image']}"
        for result in scored
    ]
    assert "MOS, higher is better; training labels: 5 minus the level of noise" in output.err
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["image"] for row in rows] == paths
    for row, result in zip(rows, expected, strict=True):
        assert {key: value for key, value in row.items() if value} == {
            key: str(value) for key, value in result.items()
        }
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_csv_file_that_cannot_be_written_is_named(trained, tmp_path, capsys):
    photo = picture(tmp_path / "a.png", CROP, CROP)
    file = tmp_path / "no such folder" / "scores.csv"
    assert main(["score", str(trained.workdir), "--csv", str(file), str(photo)]) == 2
    output = capsys.readouterr()
    assert output.out == ""  # before anything is scored
    assert errors_of(output) == [
        f"glpi: error: {file}: cannot be written (No such file or directory)"
    ]


def test_scores_depend_on_the_pixels_alone(trained, tmp_path, capsys):
    """Not on the name, the order, or what else is scored; a folder is its images, sorted."""
    for name in ("b.png", "z.png", "deep/er.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name, CROP + 30, CROP + 50)
    picture(tmp_path / "other.png", CROP + 7, CROP + 9)

    def score(*paths):
        arguments = [str(tmp_path / path) for path in paths]
        assert main(["score", str(trained.workdir), "--json", *arguments]) == 0
        results = json.loads(capsys.readouterr().out)
        return [(os.path.relpath(r["image"], tmp_path), r["score"]) for r in results]

    first = score("z.png", "other.png", "b.png")
    assert [name for name, _ in first] == ["z.png", "other.png", "b.png"]
    (_, same), (_, different), (_, again) = first
    assert same == again != different
    assert score("b.png") == [("b.png", same)]
    folder = score("other.png", ".")
    assert folder == [
        ("other.png", different),
        ("b.png", same),
        ("deep/er.png", same),
        ("z.png", same),
    ]


def test_file_names_of_any_bytes(trained, tmp_path, monkeypatch, capsys):
    names = [b"new\nline.png", b"latin \xe9.png", "日本.png".encode(), b"-dash.png"]
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in names]
    try:
        for path in paths:
            shutil.copy(picture(tmp_path / "a.png", CROP, CROP), path)
    except OSError:
        pytest.skip("this file system takes no such names")
    arguments = [os.fsdecode(path) for path in paths]
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", printed)
    file = tmp_path / "scores.csv"
    assert main(["score", str(trained.workdir), "--csv", str(file), *arguments]) == 0
    printed.seek(0)
    table = printed.buffer.getvalue()
    # Each in a line, whatever is in the name.
    assert [line.partition(b"  ")[2] for line in map(bytes.strip, table.splitlines())] == [
        path.replace(b"\n", b"\\n") for path in paths
    ]
    assert all(path in file.read_bytes() for path in paths)


def test_a_reader_that_stops_early_is_no_error(trained, tmp_path, monkeypatch, capfd):
    photo = picture(tmp_path / "a.png", CROP, CROP)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["score", str(trained.workdir), str(photo)]) == 141
    assert "Broken pipe" not in capfd.readouterr().err


@pytest.mark.parametrize("file", ["checkpoint", "run.json"])
def test_score_with_a_damaged_workdir_is_one_line(trained, tmp_path, capsys, file):
    workdir = shutil.copytree(trained.workdir, tmp_path / "workdir")
    if file == "checkpoint":
        largest = max((workdir / "best").rglob("d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    else:
        (workdir / "run.json").write_text("{}")
    photo = picture(tmp_path / "a.png", CROP, CROP)
    assert main(["score", str(workdir), str(photo)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert str(workdir / {"checkpoint": "best", "run.json": "run.json"}[file]) in output.err


def test_python_api_scores_like_the_command(trained, tmp_path, capsys):
    photo = picture(tmp_path / "a.png", CROP + 4, CROP + 60)
    assert main(["score", str(trained.workdir), "--json", str(photo)]) == 0
    (expected,) = json.loads(capsys.readouterr().out)
    scorer = glpi_jax.load(trained.workdir)
    (result,) = scorer.score([photo])
    assert (result.score, result.crop_std) == (expected["score"], expected["crop_std"])
    assert (scorer.score_name, scorer.higher_is_better) == ("MOS", True)
    assert scorer.score([]) == []
    missing, again = scorer.score([tmp_path / "missing.png", photo])
    assert "no such image file" in missing.error
    assert again == result


# Arguments and errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["train"],
        ["train", "--config", "a.py"],
        ["train", "--config", "a.py", "--workdir", "w", "stray"],
        ["train", "--config", "a.py", "--workdir", "w", "--seed=1"],
        ["train", "--conf", "a.py", "--workdir", "w"],
        ["score"],
        ["score", "w.pth"],
        ["score", "w", "a.png", "--unknown"],
        ["score", "w", "a.png", "--config.seed=1"],
        ["score", "w", "a.png", "--json", "--csv", "x.csv"],
        ["data"],
    ],
)
def test_wrong_arguments_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: glpi")


@pytest.mark.parametrize(
    "wrong", ["--config.nokey=1", "--config.train.epochs=many", "--config.seed"]
)
@pytest.mark.parametrize("command", ["train", "evaluate", "demo", "data demo"])
def test_a_wrong_override_is_one_line(command, wrong, plan_run, tmp_path, capsys):
    workdir = ["--workdir", str(tmp_path / "new")] if command != "data demo" else []
    assert main([*command.split(), *workdir, *plan_run.config, wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("glpi: error: ")
    assert wrong.removeprefix("--").partition("=")[0] in line
    assert not (tmp_path / "new").exists()


def test_a_workdir_that_is_a_file_is_one_line(plan_run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "--workdir", str(tmp_path / "file"), *plan_run.config]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"glpi: error: {tmp_path / 'file'}: File exists"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "some/file"), "some/file: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
    ],
)
def test_an_error_of_the_system_is_one_line(error, words, plan_run, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runs, "train_run", fail)
    assert main(["train", "--workdir", "new", *plan_run.config]) == 2
    assert capsys.readouterr().err == f"glpi: error: {words}\n"


@pytest.mark.parametrize(
    ("arguments", "stage", "resumes"),
    [
        (["train", "--workdir", "w"], (runs, "train_run"), True),
        (["score"], (scoring, "load"), False),
    ],
)
def test_an_interruption_ends_with_130(arguments, stage, resumes, plan_run, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*stage, interrupted)
    rest = plan_run.config if resumes else ["w.pth", "a.png"]
    assert main([*arguments, *rest]) == 130
    error = capsys.readouterr().err
    assert error.startswith("glpi: interrupted")
    assert ("the same command resumes where it stopped" in error) == resumes


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_interrupted_scoring_goes_on_if_told_to(
    number, code, resume, monkeypatch, tmp_path, capsys
):
    def interrupted(*_, **__):
        signal.raise_signal(number)

    monkeypatch.setattr(score, "scorer_of", lambda *_, **__: None)
    monkeypatch.setattr(score_file, "open_scores", interrupted)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # or a failure would end the tests
    try:
        assert main(["score", "a.png", "--csv", str(tmp_path / "scores.csv"), *resume]) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    error = capsys.readouterr().err
    assert ("the same command resumes where it stopped" in error) == bool(resume)


def test_the_demo_needs_a_config_that_renders(tmp_path, capsys):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "plain.py").write_text(
        "from configs import base\n\ndef get_config(form=None):\n    return base.get_config()\n"
    )
    for command in (["demo", "--workdir", str(tmp_path / "w")], ["data", "demo"]):
        assert main([*command, "--config", str(folder / "plain.py")]) == 2
        assert errors_of(capsys.readouterr()) == [
            "glpi: error: this config has no section `render`: use configs/demo.py"
        ]


# In a process of its own


def test_the_module_is_the_command(tmp_path, shared_compilations):
    version = glpi("--version", env=shared_compilations, cwd=tmp_path)
    assert (version.returncode, version.stdout) == (0, f"glpi_jax {glpi_jax.__version__}\n")
    missing = glpi("score", "no-such-workdir", "a.png", env=shared_compilations, cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == (
        "glpi: error: no-such-workdir: no such image, folder or model; a model is a workdir of"
        " `glpi train`, a hub folder, a checkpoint (.pth, .pt, .safetensors) or hf://owner/name\n"
    )


def test_stdout_holds_results_alone(trained, shared_compilations, tmp_path):
    """With no test framework around: no warning, log line or traceback on either stream."""
    good, bad = picture(tmp_path / "good.png", CROP, CROP), tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    done = glpi("score", "--json", trained.workdir, good, bad, env=shared_compilations)
    assert done.returncode == 2
    assert [result["image"] for result in json.loads(done.stdout)] == [str(good), str(bad)]
    scale, line = done.stderr.splitlines()
    assert scale.startswith("glpi: MOS, higher is better")
    assert line.startswith(f"glpi: error: {bad}: ")


def test_interrupted_training_says_so(plan_run, shared_compilations, tmp_path):
    """Ctrl-C in the middle of a run: one line at the end, and no traceback."""
    with subprocess.Popen(
        [sys.executable, "-m", "glpi_jax", "train", "--workdir", tmp_path, *plan_run.config],
        env=shared_compilations,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in range(2400):  # two minutes
            if (tmp_path / "metrics.csv").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "glpi: interrupted; the same command resumes where it stopped"
