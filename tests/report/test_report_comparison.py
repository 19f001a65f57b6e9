"""Runs and benchmarks side by side: what is compared with what, tables, the page, the command."""

import copy
import io
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.report import (
    benchmark_markdown,
    rounds_markdown,
    write_benchmark_report,
    write_comparison,
)
from glpi_jax.report.comparison import group_workdirs, table_notes
from glpi_jax.report.tables import comparison_latex, comparison_markdown
from glpi_jax.results.workdirs import read_workdir, read_workdirs

METRICS = (
    "srocc", "plcc", "krcc", "rmse",
    "plcc_logistic4", "rmse_logistic4", "plcc_logistic5", "rmse_logistic5",
)  # fmt: skip


def with_metrics(results, **values):
    """A copy of the results whose test parts have these metrics, 0.5 for the others."""
    changed = copy.deepcopy(results)
    for name, part in changed["parts"].items():
        if name.startswith("test"):
            part["metrics"] |= dict.fromkeys(METRICS, 0.5) | values
    return changed


def as_official(results):
    changed = copy.deepcopy(results)
    changed["protocol"] = "official"
    del changed["parts"]["validation"]
    return changed


@pytest.fixture
def workdirs(tmp_path, results, crossed, write_run, write_benchmark):
    """Two strict benchmarks, an official run on the same database, and a cross-dataset run."""
    strict = copy.deepcopy(results)
    strict["protocol"], strict["config"]["targets"] = "strict", {}
    strict["parts"] = {"test": copy.deepcopy(crossed["parts"]["test live"])}
    strict["parts"]["validation"] = copy.deepcopy(crossed["parts"]["test csiq"])
    return [
        write_benchmark(
            tmp_path / "good",
            [with_metrics(strict, srocc=value, rmse=0.1) for value in (0.75, 0.875, 1.0)],
        ),
        write_benchmark(
            tmp_path / "poor",
            [with_metrics(strict, srocc=value, rmse=0.2) for value in (0.5, 0.25)],
        ),
        write_run(tmp_path / "official", with_metrics(as_official(strict), srocc=0.99)),
        write_run(tmp_path / "cross", with_metrics(crossed, srocc=-0.9)),
    ]


def test_protocols_and_training_databases_are_kept_apart(workdirs):
    groups = group_workdirs(read_workdirs(workdirs))
    assert [(group.title, [each.name for each in group.workdirs]) for group in groups] == [
        ("Strict protocol, within a database", ["good", "poor"]),
        ("Official protocol, within a database", ["official"]),
        ("Official protocol, trained on KADID-10k", ["cross"]),
    ]
    assert groups[0].databases == ("LIVE",)
    assert groups[2].databases == ("LIVE", "CSIQ")


def test_the_median_of_the_rounds_and_the_best_of_the_group(workdirs):
    group = group_workdirs(read_workdirs(workdirs))[0]
    good, poor = (group.cells[name, "LIVE", "srocc"] for name in ("good", "poor"))
    assert (good.spread["median"], good.spread["std"]) == (0.875, 0.125)
    assert (good.best, poor.best) == (True, False)
    rmse = [group.cells[name, "LIVE", "rmse"].best for name in ("good", "poor")]
    assert rmse == [True, False]  # the lowest
    # Equals share the first place.
    assert all(group.cells[name, "LIVE", "krcc"].best for name in ("good", "poor"))


@pytest.mark.parametrize(
    ("protocol", "values", "best"),
    [
        ("strict", (0.5, -0.9), (True, False)),
        ("official", (0.5, -0.9), (False, True)),  # labels that fall with quality
        ("strict", (0.90001, 0.90002), (True, True)),  # the same as they are shown
        ("strict", (0.5, None), (False, False)),  # no rival
        ("strict", (None, None), (False, False)),
    ],
)
def test_which_correlation_is_the_best(tmp_path, results, write_run, protocol, values, best):
    if protocol == "official":
        results = as_official(results)
    folders = [
        write_run(tmp_path / str(index), with_metrics(results, srocc=value))
        for index, value in enumerate(values)
    ]
    (group,) = group_workdirs(read_workdirs(folders))
    assert tuple(group.cells[str(i), "demo", "srocc"].best for i in range(2)) == best


def test_notes_tell_the_protocol_the_rounds_and_the_best(workdirs):
    strict, official, cross = map(table_notes, group_workdirs(read_workdirs(workdirs)))
    assert "Strict protocol: the epoch was selected without the test part" in strict[0]
    assert "over the rounds, whose numbers differ" in strict[1]
    assert "after a logistic function of four parameters" in strict[2]
    assert strict[3:] == ["The best of a column is bold."]
    assert "Official protocol: the test part itself selected the epoch" in official[0]
    assert official[1:] == [
        "Values of a single round.",
        "PLCC and RMSE are those of the raw predictions, without a logistic fit.",
    ]
    assert "the test databases themselves selected the epoch" in cross[0]


def test_notes_name_the_rows_whose_rmse_is_on_another_scale(tmp_path, results, write_run):
    official = as_official(results)
    stretched = {**official, "metrics_note": "RMSE of predictions on the scale 2·MOS − 50"}
    folders = [write_run(tmp_path / "plain", official), write_run(tmp_path / "wide", stretched)]
    (group,) = group_workdirs(read_workdirs(folders))
    assert "wide: RMSE of predictions on the scale 2·MOS − 50." in table_notes(group)
    assert "plain: " not in " ".join(table_notes(group))
    assert r"2$\cdot$MOS $-$ 50" in comparison_latex([group])


def test_rows_that_were_tested_on_other_images_or_crops_are_told(tmp_path, results, write_run):
    other = copy.deepcopy(results)
    other["parts"]["test"]["crops"] = 25
    folders = [write_run(tmp_path / "a", results), write_run(tmp_path / "b", other)]

    def warnings():
        (group,) = group_workdirs(read_workdirs(folders))
        return table_notes(group)[4:]

    assert warnings() == ["The rows of demo differ in the crops an image (a: 5, b: 25)."]
    other["parts"]["test"]["crops"] = 5
    other["parts"]["test"]["predictions"][0]["image"] = "elsewhere.png"
    write_run(tmp_path / "b", other)
    assert warnings() == ["The rows of demo were tested on different images."]


def test_the_markdown_table(workdirs):
    groups = group_workdirs(read_workdirs(workdirs))
    text = comparison_markdown(groups)
    tables = [section.split("\n\n")[1] for section in text.split("## ")[1:]]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in tables[0].splitlines()
    ]
    assert rows[0][:6] == ["workdir", "protocol", "model", "rounds", "LIVE: SROCC", "LIVE: PLCC"]
    assert rows[0][-2:] == ["LIVE: PLCC, fitted", "LIVE: RMSE, fitted"]
    assert rows[2][:5] == ["good", "strict", "glpi_demo", "3", "**0.8750 ± 0.1250**"]
    assert rows[3][:5] == ["poor", "strict", "glpi_demo", "2", "0.3750 ± 0.1768"]
    assert tables[1].splitlines()[2].split("|")[5].strip() == "0.9900"  # nothing to be better than
    assert "fitted" not in tables[1]
    assert "CSIQ: SROCC" in tables[2]
    assert {len(line) for line in tables[0].splitlines()} == {len(tables[0].splitlines()[0])}


def test_the_latex_table(workdirs):
    text = comparison_latex(group_workdirs(read_workdirs(workdirs)))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 3
    assert r"\begin{tabular}{llrcccccc}" in text
    assert r"& & & \multicolumn{4}{c}{LIVE} & \multicolumn{4}{c}{CSIQ} \\" in text
    assert r"\cmidrule(lr){4-7} \cmidrule(lr){8-11}" in text
    assert r"good & glpi\_demo & 3 & $\mathbf{0.8750}$ {\scriptsize $\pm$ 0.1250} & " in text
    assert r"cross & glpi\_demo & 1 & $-0.9000$ & " in text
    assert r"\caption{Trained and tested within a database. Official protocol: the test" in text
    assert r"\caption{Trained on KADID-10k, tested on other databases. Official" in text
    # Of six and of eight columns; four fit on a page.
    assert text.count(r"\resizebox{\textwidth}{!}{\begin{tabular}") == 2
    for character in "±–":
        assert character not in text
    # Braces close.
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_names_that_mean_something_to_latex_and_markdown(tmp_path, results, write_run):
    results["parts"]["test"]["database"] = r"50%_{a}|b\c~^#$&"
    groups = group_workdirs([read_workdir(write_run(tmp_path / "a|b", results))])
    latex = comparison_latex(groups)
    assert r"50\%\_\{a\}|b\textbackslash{}c\textasciitilde{}\textasciicircum{}\#\$\&" in latex
    lines = comparison_markdown(groups).splitlines()
    assert r"| a\|b " in lines[4]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:5]]
    assert cells == [11, 11, 11]


def test_undefined_values_are_words(tmp_path, results, write_run, write_benchmark):
    nothing = dict.fromkeys(METRICS)
    run = write_run(tmp_path / "run", with_metrics(results, **nothing))
    rounds = [with_metrics(results, **nothing), results]
    benchmark = write_benchmark(tmp_path / "benchmark", rounds)
    groups = group_workdirs(read_workdirs([run, benchmark]))
    for text in (comparison_markdown(groups), comparison_latex(groups)):
        assert "undefined in 1 of 2" in text
        assert re.search(r"1 +[|&] undefined +[|&]", text)
        assert "None" not in text
        assert "nan" not in text


def test_the_table_of_a_benchmark_for_the_terminal():
    def spread(median, std, undefined=0):
        return {"median": median, "std": std, "rounds": 2, "undefined": undefined}

    metrics = dict.fromkeys(
        ("srocc", "plcc", "krcc", "rmse", "plcc_logistic4", "rmse_logistic4"), spread(0.5, 0.25)
    )
    metrics["plcc"] = spread(None, None, 1)
    benchmark = {
        "model": {"name": "glpi_demo"},
        "protocol": "strict",
        "rounds": [{}, {}],
        "summary": {"test": {"database": "demo", "metrics": metrics}},
    }
    lines = benchmark_markdown(benchmark).splitlines()
    assert lines[0] == ("glpi_demo, protocol strict: median ± standard deviation of 2 rounds")
    assert lines[4].startswith("| test | demo     | 0.5000 ± 0.2500 | undefined in 1 of 2 | ")


def test_the_table_of_rounds_side_by_side():
    names = ("srocc", "plcc", "krcc", "rmse", "plcc_logistic4", "rmse_logistic4")
    spread = {"median": 0.5, "std": 0.25, "rounds": 2, "undefined": 0}
    rounds = [
        {"round": 1, "metrics": {"test": dict.fromkeys(names, 0.25)}},
        {"round": 2, "metrics": {"test": dict.fromkeys(names, 0.75) | {"plcc": None}}},
    ]
    summary = {"test": {"database": "demo", "metrics": dict.fromkeys(names, spread)}}
    header, _, srocc, plcc, *others = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in rounds_markdown({"rounds": rounds, "summary": summary}).splitlines()
    )
    assert header == ["part", "metric", "round 1", "round 2", "median ± std"]
    assert srocc == ["test", "SROCC", "0.2500", "0.7500", "0.5000 ± 0.2500"]
    assert plcc[2:4] == ["0.2500", "undefined"]
    assert len(others) == 4


@pytest.fixture
def page_of(tmp_path, parse_page, figures):
    """The comparison's page, without its plots."""

    def read(workdirs):
        page, _, _ = write_comparison(workdirs, tmp_path / "out")
        return parse_page(page.read_text(encoding="utf-8"))

    return read


def test_the_page_shows_groups_tables_and_plots(workdirs, page_of, figures):
    page = page_of(workdirs)
    for fact in [
        "4 workdirs side by side", "Protocols strict, official", "Test databases LIVE, CSIQ",
        "Strict protocol, within a database Strict protocol: the epoch was selected",
        "good strict glpi_demo 3 0.8750 ± 0.1250",
        "official official glpi_demo 1 0.9900",
        "CSIQ (Official protocol, trained on KADID-10k)",
        "Largest errors: good, round 2", "good: 3 rounds", "cross: 1 round",
        "Round Seed Split (SHA-256) Epoch selected SROCC, LIVE 1 3 abababababab 1 0.7500",
    ]:  # fmt: skip
        assert fact in page.text, fact
    # Scatter and bars of each group's databases, curves of each group; light and dark.
    assert len(figures) == 2 * (4 * 2 + 3)
    titles = [axes.get_title(loc="left") for axes in figures[0].axes if axes.get_visible()]
    assert titles == [
        "good, round 2\nSROCC 0.8750, 12 images",
        "poor, round 1\nSROCC 0.5000, 12 images",
    ]
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    assert all(address.startswith("data:image/png") for address in page.addresses())
    assert "None" not in page.text
    assert "nan" not in page.text


def test_bars_are_the_medians_of_the_rounds(tmp_path, results, write_benchmark, page_of, figures):
    rounds = []
    for jpeg, blur in ((0.25, 0.5), (0.75, 0.5), (0.5, None)):
        changed = copy.deepcopy(results)
        table = changed["parts"]["test"]["by_distortion"]
        table["jpeg"]["srocc"], table["gaussian_blur"]["srocc"] = jpeg, blur
        rounds.append(changed)
    page_of([write_benchmark(tmp_path / "b", rounds)])
    (axes,) = figures[2].axes
    assert [bar.get_width() for bar in axes.patches] == [0.5]
    assert [text.get_text() for text in axes.texts] == ["undefined", "0.500"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_distortion_that_a_round_lacks(
    tmp_path, results, remeasure, write_benchmark, figures, order
):
    other = copy.deepcopy(results)
    for entry in other["parts"]["test"]["predictions"]:
        if entry["distortion"] == "jpeg":
            entry["distortion"] = "white_noise"
    other["parts"]["test"]["predictions"].pop()  # so that the rounds have different counts
    remeasure(other["parts"]["test"])
    folder = write_benchmark(tmp_path / "b", [(results, other)[place] for place in order])
    write_benchmark_report(folder)
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert len(figures) == 4 * 3  # either page: scatter, bars and curves, light and dark
    for figure in (figures[2], figures[8]):
        (axes,) = figure.axes
        labels = {label.get_text() for label in axes.get_yticklabels()}
        assert labels == {"gaussian blur  (6)", "jpeg  (6)", "white noise  (5)"}
        assert [text.get_text() for text in axes.texts].count("undefined") == 2


def test_the_page_without_training_or_distortions(tmp_path, results, write_run, page_of, figures):
    for entry in results["parts"]["test"]["predictions"]:
        entry["distortion"] = entry["level"] = None
    results["parts"]["test"]["by_distortion"] = {}
    results["selection"] = None
    page = page_of([write_run(tmp_path / "a", results, metrics_csv=None)])
    assert len(figures) == 2 * 2
    assert "given weights, not selected" in page.text
    assert figures[2].axes[0].texts[0].get_text() == "not recorded"


def test_markup_in_names_stays_text(tmp_path, results, write_run, page_of):
    bad = "<script>alert(1)</script>"
    results["model"]["name"] = results["parts"]["test"]["database"] = bad
    results["selection"]["criterion"] = results["device"] = bad
    page = page_of([write_run(tmp_path / "<b>", results)])
    assert "script" not in {tag for tag, _ in page.tags}
    assert "b" not in {tag for tag, _ in page.tags}


@pytest.mark.usefixtures("figures")
def test_a_benchmark_has_a_page_of_its_own(tmp_path, results, write_benchmark, parse_page):
    folder = write_benchmark(tmp_path / "b", [results, results])
    path = write_benchmark_report(folder)
    assert path == folder / "report.html"
    text = parse_page(path.read_text(encoding="utf-8")).text
    assert "glpi_demo on demo: 2 rounds" in text
    assert "Median ± standard deviation of 2 rounds." in text
    assert "best of a column" not in text


def test_workdirs_of_one_name_are_told_apart(tmp_path, results, write_run):
    folders = [write_run(tmp_path / parent / "run", results) for parent in ("x", "y")]
    assert [each.name for each in read_workdirs(folders)] == [str(folder) for folder in folders]


def test_targets_of_one_database_are_told_apart(tmp_path, crossed, write_run):
    for part in crossed["parts"].values():
        part["database"] = "LIVE"
    workdir = read_workdir(write_run(tmp_path, crossed))
    assert [*workdir.tests] == ["test live", "test csiq"]


def test_the_round_nearest_to_the_median(tmp_path, results, write_benchmark):
    def nearest(*values):
        rounds = [with_metrics(results, srocc=value) for value in values]
        return read_workdir(write_benchmark(tmp_path, rounds)).median_round("test")

    assert nearest(0.1, 0.9, 0.6) == 2
    assert nearest(0.1, None) == 0


def test_workdirs_that_cannot_be_compared_are_named(tmp_path, results, write_run, write_benchmark):
    run = write_run(tmp_path / "run", results)
    benchmark = write_benchmark(tmp_path / "benchmark", [results, results])
    unfinished = write_run(tmp_path / "unfinished", results)
    (unfinished / "results.json").unlink()
    begun = tmp_path / "begun"
    shutil.copytree(run, begun / "round_01")
    (tmp_path / "empty").mkdir()
    untested = copy.deepcopy(results)
    del untested["parts"]["test"]
    cases = {
        "nowhere: no such workdir": [tmp_path / "nowhere"],
        r"empty: not a workdir \(no results\.json and no benchmark\.json\)": [tmp_path / "empty"],
        r"unfinished: this run is not finished .* 'glpi train' again": [unfinished],
        r"begun: this benchmark is not finished .* 'glpi benchmark' again": [begun],
        "run is given twice": [run, tmp_path / "empty/../run"],
        "untested: has no test part": [write_run(tmp_path / "untested", untested)],
    }
    for message, folders in cases.items():
        with pytest.raises(GlpiError, match=message) as caught:
            write_comparison([benchmark, *folders], tmp_path / "out")
        assert "\n" not in str(caught.value)
    with pytest.raises(GlpiError, match="run is one of the workdirs"):
        write_comparison([benchmark, run], tmp_path / "run")
    assert not (run / "report.html").exists()
    (tmp_path / "file").touch()
    with pytest.raises(GlpiError, match="file: cannot be made"):
        write_comparison([run], tmp_path / "file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda benchmark: {}, r"benchmark\.json has format None"),
        (lambda benchmark: benchmark | {"format": 2}, r"benchmark\.json has format 2, not 1"),
        (lambda benchmark: {"format": 1}, r"benchmark\.json lacks rounds"),
        (lambda benchmark: benchmark | {"rounds": []}, r"benchmark\.json has no rounds"),
        (lambda benchmark: benchmark | {"rounds": [3]}, r"rounds\[0\] is '3'"),
        (
            lambda benchmark: {
                "format": 1,
                "rounds": [benchmark["rounds"][0] | {"metrics": {}}],
            },
            r"benchmark\.json differs from .*round_01/results\.json",
        ),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_named(
    tmp_path, results, write_benchmark, change, message
):
    folder = write_benchmark(tmp_path / "b", [results])
    path = folder / "benchmark.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(GlpiError, match=rf"{message}.*: give the 'glpi benchmark' again"):
        read_workdir(folder)


def test_a_benchmark_whose_round_is_gone(tmp_path, results, write_benchmark):
    folder = write_benchmark(tmp_path / "b", [results, results])
    (folder / "round_02/results.json").unlink()
    with pytest.raises(GlpiError, match=r"round_02/results\.json is missing"):
        read_workdir(folder)


@pytest.mark.usefixtures("figures")
def test_the_command_writes_three_files(tmp_path, workdirs, capsys):
    out = tmp_path / "new/out"
    assert main(["report", *map(str, workdirs), "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "table.md", "table.tex"]
    assert output.out == (out / "table.md").read_text(encoding="utf-8")
    assert str(out / "report.html") in output.err
    assert main(["report", str(tmp_path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"glpi: error: {tmp_path}: not a workdir")


@pytest.mark.usefixtures("figures")
def test_a_folder_whose_name_is_no_utf8(tmp_path, results, write_run, monkeypatch):
    folder = write_run(tmp_path / os.fsdecode(b"run\xff"), results)
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8"))
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert printed.getvalue() == (tmp_path / "out/table.md").read_bytes()
    for name in ("report.html", "table.md", "table.tex"):
        assert b"run\xff" in (tmp_path / "out" / name).read_bytes()


def test_the_same_workdirs_give_the_same_bytes(tmp_path, workdirs):
    first, second = (
        [path.read_bytes() for path in write_comparison(workdirs[:1], tmp_path / name)]
        for name in ("x", "y")
    )
    assert first == second
    assert np.all([len(content) > 300 for content in first])
