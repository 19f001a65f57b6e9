"""The loop around a step: when it validates, what it keeps, and how it stops.

The step is replaced by one that counts, the state by one of a few numbers.
"""

import errno
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glpi_jax.cli.main import main
from glpi_jax.core.config import load_config
from glpi_jax.core.errors import GlpiError, Terminated
from glpi_jax.data.sources import load_database
from glpi_jax.data.splits import strict_split
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.models.glpi import build
from glpi_jax.results.metrics_file import read_metrics
from glpi_jax.training import bookkeeping, checkpoint_files, loop
from glpi_jax.training.bookkeeping import RunSetup, Validation, steps_per_epoch
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.loop import fit
from glpi_jax.training.state import TrainState, on_mesh

EPOCH = 4  # steps: sixteen training images in batches of four


@pytest.fixture
def fit_with(plan_run, tmp_path, monkeypatch):
    """`fit_with("--config.key=…", loss=…, srocc=…)` → (fit's result, steps, validated steps)."""
    database = load_database("csv", plan_run.database)
    mesh = make_mesh(-1)
    state = TrainState(
        step=jnp.int32(0),
        params={"dense": {"bias": jnp.zeros(3)}},
        batch_stats={"norm": {"mean": jnp.zeros(3)}},
        opt_state={"dense/bias": jnp.zeros(3)},
        dropout_key=jnp.zeros(2, jnp.uint32),
    )
    shapes = on_mesh(state, mesh)
    start = jax.device_put(state, shapes.step.sharding)
    monkeypatch.setattr(loop, "create_state", lambda *_, **__: start)
    monkeypatch.setattr(loop, "abstract_state", lambda *_, **__: shapes)
    monkeypatch.setattr(loop, "abstract_variables", lambda *_, **__: shapes.variables)

    def run(*overrides, loss=lambda step: 1.0, grad_norm=lambda step: 1.0, srocc=lambda step: 0.5):
        config = load_config(plan_run.config[1], [*plan_run.overrides, *overrides])
        model = build(config.model.name, dropout=config.model.dropout)
        split = strict_split(database, train_fraction=0.8, validation_fraction=0.2, seed=0)
        steps = []
        validated = []

        def compile_counting_step(*_, **__):
            def step(state, batch):
                images = config.train.batch_size
                assert batch["image"].shape == (images, model.size.crop, model.size.crop, 3)
                steps.append(int(state.step) + 1)
                outputs = {"loss": loss(steps[-1]), "grad_norm": grad_norm(steps[-1])}
                next_state = state.replace(step=state.step + 1)
                return next_state, {name: jnp.float32(x) for name, x in outputs.items()}

            return step

        def validate(variables):
            assert variables.keys() == {"params", "batch_stats"}
            validated.append(steps[-1] if steps else latest_step(tmp_path))
            value = srocc(validated[-1])
            return Validation({"validation/srocc": value, "validation/plcc": 0.25}, value)

        monkeypatch.setattr(loop, "compile_train_step", compile_counting_step)
        criterion = "SROCC on the validation part"
        setup = RunSetup(config, database, split.train, tmp_path, validate, criterion)
        return fit(setup, model=model, mesh=mesh), steps, validated

    return run


def latest_step(workdir):
    checkpoints = ResumeCheckpoints(workdir)
    try:
        return checkpoints.latest_step
    finally:
        checkpoints.close()


def selection(workdir):
    best = BestCheckpoint(workdir, read_only=True)
    try:
        return best.selection()
    finally:
        best.close()


def values(workdir, name):
    return {
        row.step: row.value for row in read_metrics(workdir / "metrics.csv") if row.name == name
    }


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"),
    [(16, 4, 4), (17, 4, 5), (3, 4, 1), (1, 1, 1), (8125, 32, 254)],
)
def test_an_epoch_sees_every_image(images, batch_size, steps):
    assert steps_per_epoch(images, batch_size) == steps
    assert (steps - 1) * batch_size < images <= steps * batch_size


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [(3, 1, [1, 2, 3]), (5, 2, [2, 4, 5]), (4, 2, [2, 4]), (2, 7, [2])],
)
def test_validation_comes_every_few_epochs_and_at_the_end(
    fit_with, tmp_path, epochs, every, expected
):
    trained, steps, validated = fit_with(
        f"--config.train.epochs={epochs}",
        f"--config.evaluation.every_epochs={every}",
        "--config.train.log_every_steps=1000",
        "--config.train.checkpoint_every_steps=1000",
    )
    assert trained
    assert steps == list(range(1, epochs * EPOCH + 1))
    assert validated == [epoch * EPOCH for epoch in expected]
    assert list(values(tmp_path, "validation/srocc")) == validated
    assert list(values(tmp_path, "train/loss")) == validated
    rows = read_metrics(tmp_path / "metrics.csv")
    assert {(row.step, row.epoch) for row in rows} == {(e * EPOCH, e) for e in expected}
    assert latest_step(tmp_path) == epochs * EPOCH


@pytest.mark.parametrize(
    ("sroccs", "kept"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.3, 0.1, 0.3], 1),  # the first of equals
        ([-0.5, -0.6, -0.4], 3),
        ([None, -1.0, None], 2),  # undefined is lower than anything
        ([None, None, None], 1),
        ([0.0, None, 0.1], 3),
    ],
)
def test_the_best_changes_only_if_srocc_rises(fit_with, tmp_path, sroccs, kept):
    fit_with("--config.train.epochs=3", srocc=lambda step: sroccs[step // EPOCH - 1])
    assert selection(tmp_path) == {
        "step": kept * EPOCH,
        "epoch": kept,
        "criterion": "SROCC on the validation part",
        "value": sroccs[kept - 1],
    }


def test_the_last_is_kept_if_that_is_what_is_asked_for(fit_with, tmp_path):
    sroccs = [0.1, 0.3, 0.2]
    fit_with(
        "--config.train.epochs=3",
        "--config.evaluation.select=last",
        srocc=lambda step: sroccs[step // EPOCH - 1],
    )
    assert (selection(tmp_path)["epoch"], selection(tmp_path)["value"]) == (3, 0.2)
    assert list(values(tmp_path, "validation/srocc").values()) == sroccs


def test_metrics_are_means_over_the_steps_since_the_last_row(fit_with, tmp_path):
    fit_with(
        "--config.train.log_every_steps=3",
        "--config.train.checkpoint_every_steps=1000",
        loss=lambda step: 2.0**step,
        grad_norm=lambda step: 10.0 * step,
    )
    # Rows at 3 and 6 are due to log_every_steps, at 4 and 8 to the validation.
    assert values(tmp_path, "train/loss") == {
        3: (2 + 4 + 8) / 3,
        4: 16,
        6: (32 + 64) / 2,
        8: (128 + 256) / 2,
    }
    assert values(tmp_path, "train/gradient_norm") == {3: 30, 4: 40, 6: 60, 8: 80}
    rates = values(tmp_path, "train/learning_rate")
    assert list(rates) == [3, 4, 6, 8]
    assert all(speed > 0 for speed in values(tmp_path, "train/images_per_second").values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [1, 5, 6, 8])
def test_a_loss_that_is_not_finite_ends_the_run_at_that_step(fit_with, tmp_path, step, value):
    with pytest.raises(GlpiError, match=rf"loss is {value} at step {step}: ") as caught:
        fit_with(loss=lambda at: value if at == step else 1.0)
    assert "config.optimizer.learning_rate" in str(caught.value)
    reached = latest_step(tmp_path)
    before = {1: None, 5: 4, 6: 4, 8: 6}[step]
    assert reached == before
    where = f"the last checkpoint from before is {tmp_path / 'checkpoints' / str(before)}; "
    assert (where if before else "there is no checkpoint from before; ") in str(caught.value)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_a_gradient_that_is_not_finite_is_never_saved(fit_with, tmp_path, log_every):
    """The loss is still finite, but the parameters that the step made are lost."""
    with pytest.raises(GlpiError, match="gradient is nan at step 5: its batch was"):
        fit_with(
            f"--config.train.log_every_steps={log_every}",
            grad_norm=lambda step: np.nan if step >= 5 else 1.0,
        )
    assert latest_step(tmp_path) == 4


@pytest.mark.parametrize(("step", "batch_size"), [(3, 4), (3, 6)])
def test_the_images_of_the_batch_are_named(fit_with, monkeypatch, step, batch_size):
    """Of sixteen images the third batch of six runs on into the next epoch."""
    scores = []

    def take(batch, mesh):
        scores.append(batch["score"])
        return batch

    monkeypatch.setattr(loop, "to_devices", take)
    with pytest.raises(GlpiError, match=f"loss is inf at step {step}") as caught:
        fit_with(
            f"--config.train.batch_size={batch_size}",
            loss=lambda at: np.inf if at == step else 1.0,
        )
    named = re.search(r"its batch was ([^;]*);", str(caught.value)).group(1).split(", ")
    # The label tells an image: 5 minus its level, plus a tenth of its scene.
    labels = [5 - int(n[7]) + int(n[5]) / 10 for n in named]
    assert labels == pytest.approx(list(dict.fromkeys(scores[step - 1].tolist())))


def test_of_many_images_thirty_two_are_named(fit_with, monkeypatch):
    monkeypatch.setattr(bookkeeping, "_NAMED", 3)
    with pytest.raises(GlpiError, match=r"its batch was (\S+\.png, ){2}\S+\.png and 1 more; "):
        fit_with(loss=lambda at: np.inf)


@pytest.mark.parametrize(("kept_checkpoints", "again"), [((6, 8), []), ((6,), [7, 8])])
def test_a_damaged_best_is_made_again(fit_with, tmp_path, kept_checkpoints, again, capsys):
    """From the state of its very step, or by taking the steps to it again."""
    rising = {"srocc": lambda step: step / 10}
    fit_with(**rising)
    expected = selection(tmp_path)
    assert expected["step"] == 8
    (tmp_path / "best/8/variables/_METADATA").write_text("{}")
    for step in {6, 8} - set(kept_checkpoints):
        shutil.rmtree(tmp_path / f"checkpoints/{step}")
    trained, steps, validated = fit_with(**rising)
    assert (trained, steps, validated) == (True, again, [8])
    assert selection(tmp_path) == expected
    assert "best/8: the checkpoint cannot be read" in capsys.readouterr().err
    assert fit_with() == (False, [], [])


def test_a_damaged_best_that_cannot_be_made_again_is_told(fit_with, tmp_path):
    fit_with(srocc=lambda step: -step)
    assert selection(tmp_path)["step"] == 4
    (tmp_path / "best/4/variables/_METADATA").write_text("{}")
    with pytest.raises(GlpiError, match=r"best/4 is damaged, .* or remove \S*/best to go on"):
        fit_with(srocc=lambda step: -step)
    shutil.rmtree(tmp_path / "best")  # as it says
    trained, steps, validated = fit_with(srocc=lambda step: -step)
    assert (trained, steps, validated) == (True, [], [8])
    assert selection(tmp_path)["step"] == 8


def test_a_full_disk_ends_the_run_at_the_next_save(fit_with, tmp_path, monkeypatch):
    """In the background, while the loop takes further steps; the same command goes on."""
    seal = checkpoint_files.seal

    def full(path):
        if path.name == "6":
            raise OSError(errno.ENOSPC, "No space left on device")
        seal(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "seal", full)
        with pytest.raises(GlpiError, match=r"checkpoints/6: .*it resumes from step 4"):
            fit_with()
    assert latest_step(tmp_path) == 4
    assert fit_with()[1] == [5, 6, 7, 8]


def test_a_damaged_checkpoint_is_passed_over_and_saved_again(fit_with, tmp_path, capsys):
    fit_with()
    (tmp_path / "checkpoints/8/data/metadata").write_text("{}")
    more = "--config.train.epochs=3"
    assert fit_with(more)[1] == [7, 8, 9, 10, 11, 12]
    assert "checkpoints/8: the checkpoint cannot be read (data/metadata is da" in (
        capsys.readouterr().err
    )
    for step in (9, 12):
        (tmp_path / f"checkpoints/{step}/data/metadata").write_text("{}")
    with pytest.raises(GlpiError, match=r"checkpoints/9: .*no whole checkpoint is left"):
        fit_with("--config.train.epochs=4")
    assert latest_step(tmp_path) == 12


def test_a_finished_run_is_left_alone(fit_with, tmp_path):
    assert fit_with()[0]
    assert fit_with() == (False, [], [])


@pytest.mark.parametrize("where", ["loss", "srocc"])
def test_sigterm_in_the_last_step_or_validation_ends_the_run_after_it(fit_with, tmp_path, where):
    """All is saved, and what would follow belongs to the next start."""

    def terminated(step):
        if step == 2 * EPOCH:
            signal.raise_signal(signal.SIGTERM)
        return 0.5

    with pytest.raises(Terminated):
        fit_with(**{where: terminated})
    assert latest_step(tmp_path) == 2 * EPOCH
    assert fit_with() == (False, [], [])


def test_a_stopped_run_goes_on_after_its_newest_checkpoint(fit_with, tmp_path):
    """Stopped between the best of epoch 1 and the checkpoint of that step."""
    save = ResumeCheckpoints.save

    def stopped(self, state, data_state):
        if int(state.step) == EPOCH:
            raise KeyboardInterrupt
        save(self, state, data_state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResumeCheckpoints, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit_with(srocc=lambda step: 0.9 if step == EPOCH else 0.8)
    assert latest_step(tmp_path) == 3
    assert selection(tmp_path)["step"] == EPOCH
    before = values(tmp_path, "train/images_per_second")
    _, steps, validated = fit_with(srocc=lambda step: 0.9 if step == EPOCH else 0.8)
    assert steps == [4, 5, 6, 7, 8]
    assert validated == [4, 8]
    assert selection(tmp_path)["step"] == EPOCH
    after = values(tmp_path, "train/images_per_second")
    assert list(after) == list(range(1, 9))
    assert [after[step] for step in (1, 2, 3)] == [before[step] for step in (1, 2, 3)]
    rows = read_metrics(tmp_path / "metrics.csv")
    assert len({(row.step, row.name) for row in rows}) == len(rows)


def test_a_batch_must_split_over_the_devices(fit_with, tmp_path):
    with pytest.raises(GlpiError, match=r"config\.train\.batch_size = 3 does not split evenly"):
        fit_with("--config.train.batch_size=3")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_beyond_float32_is_told_by_the_command(make_database, trained, tmp_path, capsys):
    """The real step, as with a learning rate far too high: here the labels are too large."""
    database = make_database(tmp_path / "database")
    header, *lines = (database / "labels.csv").read_text().splitlines()
    huge = [re.sub(r",[^,]*", ",3e38", line, count=1) for line in lines]
    (database / "labels.csv").write_text("\n".join([header, *huge]) + "\n")
    arguments = [*trained.config, f"--config.data.root={database}"]
    assert main(["train", "--workdir", str(tmp_path / "workdir"), *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("glpi: error: the loss is inf at step 1: ")
    assert latest_step(tmp_path / "workdir") is None
