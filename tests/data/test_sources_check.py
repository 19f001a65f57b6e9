from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from miniatures import build_miniature, read_sample
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import read_image
from glpi_jax.data.sources import CheckReport, check_database
from glpi_jax.data.sources import check as check_module
from glpi_jax.data.sources.database import Facts


def check(kind: str, root: Path, labels: Path | None = None) -> CheckReport:
    return check_database(kind, root, labels, threads=2, progress=False)


def own_database(root: Path, scores: tuple[str, ...] = ("1", "2")) -> Path:
    root.mkdir()
    lines = ["image,score"]
    for number, score in enumerate(scores):
        pixels = np.random.default_rng(number).integers(
            0, 256, (20, 30 + number, 3), dtype=np.uint8
        )
        Image.fromarray(pixels).save(root / f"{number}.jpg")
        lines.append(f"{number}.jpg,{score}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_whole_database(tmp_path: Path) -> None:
    root = own_database(tmp_path / "mine")
    report = check("csv", root)
    assert (report.name, report.root) == ("mine", root)
    assert report.problems == ()
    assert dict(report.facts) == {
        "images": "2",
        "references": "2",
        "scores": "MOS 1 to 2, higher is better",
        "image sizes": "30×20 to 31×20",
    }


def test_published_database_is_compared_with_its_facts(tmp_path: Path) -> None:
    root = build_miniature("bid", tmp_path / "bid", references=586, size=(4, 3))
    report = check("bid", root)
    assert report.problems == ()
    assert dict(report.facts) == {
        "images": "586 (published: 586)",
        "references": "586 (published: 586)",
        "scores": "MOS 0.163806 to 4.91975, higher is better (published: 0.16 to 4.92)",
        "image sizes": "4×3",
    }


def test_counts_that_differ(tmp_path: Path) -> None:
    root = build_miniature("kadid10k", tmp_path / "kadid", references=2, size=(4, 3))
    assert check("kadid10k", root).problems == (
        "10 images, but kadid10k has 10125",
        "2 references, but kadid10k has 81",
    )


def test_images_that_cannot_be_decoded(tmp_path: Path) -> None:
    root = own_database(tmp_path / "mine", ("1", "2", "3", "4"))
    whole = (root / "0.jpg").read_bytes()
    (root / "0.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (root / "1.jpg").write_bytes(b"")
    (root / "2.jpg").unlink()
    with (root / "labels.csv").open("a") as file:
        file.write("\n3.jpg,high\n")
    report = check("csv", root)
    assert len(report.problems) == 4
    assert report.problems[0].endswith("line 4: the image '2.jpg' is missing")
    assert report.problems[1].endswith("line 6: score 'high' is not a finite number")
    assert report.problems[2].startswith(f"{root / '0.jpg'}: corrupt or truncated image")
    assert report.problems[3] == f"{root / '1.jpg'}: the file is empty"
    assert dict(report.facts)["image sizes"] == "33×20"


@pytest.mark.parametrize("cause", ["truncated", "checksum"])
def test_image_that_decodes_but_is_damaged(tmp_path: Path, cause: str) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(root / "a.png")
    content = bytearray((root / "a.png").read_bytes())
    if cause == "checksum":
        content[-13] ^= 1  # the last byte before the closing chunk
    else:
        content = content[:-12]  # without the closing chunk
    (root / "a.png").write_bytes(content)
    read_image(root / "a.png", apply_orientation=False)
    (root / "labels.csv").write_text("image,score\na.png,1\n")
    (problem,) = check("csv", root).problems
    assert problem.startswith(f"{root / 'a.png'}: damaged image (")
    assert cause in problem


def test_scores_of_another_scale(tmp_path: Path) -> None:
    # LIQE's list of LIVE, turned so that higher is better, in the place of the published scores.
    root = build_miniature(
        "live", tmp_path / "live", references=29, images_per_reference=99, size=(2, 2)
    )
    assert check("live", root).problems == ()
    path = root / "dmos_realigned.mat"
    arrays = scipy.io.loadmat(path)
    turned = {name: arrays[name] for name in ("dmos_new", "dmos_std", "orgs")}
    turned["dmos_new"] = 111.774694 - turned["dmos_new"]
    scipy.io.savemat(path, turned)
    (problem,) = check("live", root).problems
    assert problem.startswith("scores from 0 to 114.415, but live's run from -2.64 to 111.77; is")


def test_scores_that_do_not_reach_the_published_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_miniature("koniq10k", tmp_path / "koniq", references=20, size=(4, 3))
    scores = [25 * (float(row["score"]) - 1) for row in read_sample("koniq10k")[:20]]
    low, high = min(scores), max(scores)
    read = check_module.READERS["koniq10k"].read

    def read_as(low: float, high: float, images: int) -> tuple[str, ...]:
        facts = Facts(images, images, (low, high))
        reader = check_module.READERS["koniq10k"]
        monkeypatch.setitem(
            check_module.READERS,
            "koniq10k",
            replace(reader, read=lambda source: replace(read(source), facts=facts)),
        )
        return check("koniq10k", root).problems

    assert read_as(low, high, 20) == ()
    (problem,) = read_as(low, high + 10, 20)
    assert "is this the published label file?" in problem
    # Of a part of the images nobody can tell, but above the published end is wrong.
    assert read_as(low, high + 10, 30) == tuple(
        f"20 {what}, but koniq10k has 30" for what in ("images", "references")
    )
    assert len(read_as(low, high - 10, 30)) == 3


def test_splits_and_names_in_another_case_are_facts(tmp_path: Path) -> None:
    root = build_miniature("koniq10k", tmp_path / "koniq", references=10, size=(4, 3))
    (root / "512x384/10004473376.jpg").rename(root / "512x384/10004473376.JPG")
    facts = dict(check("koniq10k", root).facts)
    assert facts["split official"] == "7 train, 1 validation, 2 test"
    assert facts["names in another case"] == (
        "1 (512x384/10004473376.JPG on disk for 512x384/10004473376.jpg), all found"
    )


def test_label_file_of_another_project(tmp_path: Path) -> None:
    root = own_database(tmp_path / "mine")
    labels = tmp_path / "list.txt"
    labels.write_text("0.jpg\t3\t0.5\n1.jpg\t4\t0.5\n")
    report = check("liqe", root, labels)
    assert (report.name, report.problems) == ("list", ())


def test_wrong_folder_is_an_error_not_a_report(tmp_path: Path) -> None:
    with pytest.raises(GlpiError, match="the label file is missing"):
        check("spaq", tmp_path)


def test_threads_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(GlpiError, match="threads 0: must be at least 1"):
        check_database("csv", own_database(tmp_path / "mine"), threads=0, progress=False)


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = own_database(tmp_path / "mine")
    check_database("csv", root, threads=1, progress=True)
    captured = capsys.readouterr()
    assert "check mine: 2/2 images" in captured.err
    assert captured.out == ""
