"""Official files against a GLPI made of torch.nn: numbers, names, and training that goes on."""

import dataclasses
import functools
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from glpi_jax.cli.main import main
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.interop.adam import recipe_of
from glpi_jax.models.glpi import SIZES
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.loss import l1
from glpi_jax.training.state import abstract_state, create_state
from glpi_jax.training.step import train_step
from glpi_jax.weights.convert import load_torch
from glpi_jax.workflow import runs
from glpi_jax.workflow.model import model_of
from glpi_jax.workflow.workdir import read_run

pytestmark = pytest.mark.torch

LEARNING_RATE, HALF_PERIOD = 1e-3, 4
OVERRIDES = (
    f"--config.optimizer.learning_rate={LEARNING_RATE}",
    f"--config.optimizer.cosine_half_period={HALF_PERIOD}",
    "--config.model.dropout=0.0",
)


def port(*arguments):
    return main(["port", *map(str, arguments)])


def tensors(state):
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def channels_first(images):
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def assert_same(ours, theirs, where=""):
    """Nested dictionaries, lists, numbers and tensors, bit for bit and in the same order."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}.{i}")
    elif hasattr(theirs, "numpy"):
        assert ours.dtype == theirs.dtype, where
        assert ours.shape == theirs.shape, where
        assert ours.numpy().tobytes() == theirs.numpy().tobytes(), where
    else:
        assert ours == theirs, where


@pytest.fixture(scope="module")
def small(torch_glpi):
    """`small(state, dropout)`: a torch GLPI of the size `glpi_demo`."""

    def make(state, dropout=0.0):
        model = torch_glpi.TorchGLPI(**dataclasses.asdict(SIZES["glpi_demo"]), dropout=dropout)
        model.load_state_dict(tensors(state), strict=True)
        return model

    return make


@pytest.fixture(scope="module")
def batches():
    """Six of four images with labels that the model does not have yet."""
    rng = np.random.default_rng(3)
    crop = SIZES["glpi_demo"].crop
    return [
        (
            rng.uniform(-1, 1, (4, crop, crop, 3)).astype(np.float32),
            rng.uniform(0, 5, 4).astype(np.float32),
        )
        for _ in range(6)
    ]


@functools.cache
def recipe():
    """Model, optimizer and compiled step of the trainings here."""
    config = ConfigDict(get_config())
    config.model.name, config.model.dropout = "glpi_demo", 0.0
    config.optimizer.learning_rate = LEARNING_RATE
    config.optimizer.cosine_half_period = HALF_PERIOD
    model = model_of(config)
    own = recipe_of(config, model)
    parts = (model, own.optimizer, own.multipliers)
    step = jax.jit(functools.partial(train_step, *parts, loss=l1))
    return model, own, step


def train_in_jax(state, batches):
    _, _, step = recipe()
    losses = []
    for images, scores in batches:
        state, metrics = step(state, images, scores)
        losses.append(float(metrics["loss"]))
    return state, losses


def torch_training(torch_glpi, model, checkpoint=None):
    """The official optimizer and its schedule, at the step of a checkpoint."""
    import torch

    optimizer = torch_glpi.official_adam(model.freeze(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HALF_PERIOD)
    if checkpoint is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        (step,) = {int(state["step"]) for state in optimizer.state_dict()["state"].values()}
        schedule.last_epoch = step
    return optimizer, schedule


def train_in_torch(torch_glpi, model, optimizer, schedule, batches):
    import torch

    losses = []
    for images, scores in batches:
        images, scores = channels_first(images), torch.from_numpy(scores)
        losses.append(torch_glpi.train_step(model, optimizer, images, scores))
        schedule.step()
    return losses


# The torch model itself


def test_golden_torch_model_has_the_official_entries(torch_glpi, golden_shapes):
    state = torch_glpi.TorchGLPI().state_dict()
    assert [(name, tuple(tensor.shape)) for name, tensor in state.items()] == list(
        golden_shapes.items()
    )


def test_golden_torch_model_computes_what_the_authors_does(torch_glpi, model_golden):
    import torch

    golden = model_golden("forward_vit_tiny")
    model = torch_glpi.TorchGLPI(**dataclasses.asdict(SIZES["glpi_ti16"]))
    model.load_state_dict(tensors(golden.state_dict), strict=True)
    model.eval()
    with torch.inference_mode():
        stages = model.stages(channels_first(golden.images(golden.facts["batch"], 7)))
    for name, expected in golden.arrays.items():
        ours = stages[name].numpy()
        if name not in ("pooled", "score"):
            ours = ours[0, ::7, ::5]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * expected.std() + 1e-6)


def test_golden_torch_model_freezes_what_the_authors_does(torch_glpi, model_golden):
    trains = model_golden("train_vit_tiny").facts["requires_grad"]
    model = torch_glpi.TorchGLPI(**dataclasses.asdict(SIZES["glpi_ti16"]))
    model.freeze()
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == list(trains.items())


# Numbers


@pytest.mark.parametrize("name", ["glpi_demo", "glpi_ti16", "glpi_small"])
def test_every_stage_is_the_same(torch_glpi, official_state, name):
    import torch

    state = official_state(SIZES[name], salt=9)
    theirs = torch_glpi.TorchGLPI(**dataclasses.asdict(SIZES[name]))
    theirs.load_state_dict(tensors(state), strict=True)
    theirs.eval()
    crop = SIZES[name].crop
    images = np.random.default_rng(1).uniform(-1, 1, (2, crop, crop, 3)).astype(np.float32)
    with torch.inference_mode():
        stages = theirs.stages(channels_first(images))
    model, variables = load_torch(state)
    score, taps = jax.jit(model.apply)(variables, images)
    ours = {**taps, "score": score}
    assert ours.keys() == stages.keys()
    for stage, expected in stages.items():
        expected = expected.numpy()
        difference = np.abs(np.asarray(ours[stage]) - expected).max()
        assert difference <= 1e-4 * max(expected.std(), 0.1), stage


# Both ways


def test_weights_of_a_jax_run_fill_the_torch_model_and_come_back(
    trained, small, tmp_path, torch_glpi
):
    import torch

    out = tmp_path / "jax.pth"
    assert port("to-torch", trained.workdir / "checkpoints", out) == 0
    checkpoint = torch.load(out, weights_only=True)
    model = small({name: t.numpy() for name, t in checkpoint["state_dict"].items()})
    assert checkpoint["epoch"] == 2

    again = tmp_path / "torch.pth"
    content = {**checkpoint, "state_dict": model.state_dict()}
    torch.save(content, again)
    overrides = trained.config
    more = "--config.train.epochs=3"  # or the file would be at the end of training
    assert port("from-torch", again, tmp_path / "workdir", *overrides, more) == 0
    assert port("to-torch", tmp_path / "workdir", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert_same(back["state_dict"], checkpoint["state_dict"])
    assert_same(back["optimizer"]["state"], checkpoint["optimizer"]["state"])
    assert (back["epoch"], back["best_srocc"]) == (checkpoint["epoch"], checkpoint["best_srocc"])


def test_a_run_goes_on_through_an_official_file_to_the_same_bits(trained, tmp_path):
    """Step 6 of 8, through torch's file, to the end that the run had."""
    file, workdir = tmp_path / "step6.pth", tmp_path / "workdir"
    assert port("to-torch", trained.workdir / "checkpoints/6", file) == 0
    assert port("from-torch", file, workdir, *trained.config) == 0
    assert main(["train", "--workdir", str(workdir), *trained.config]) == 0
    config = ConfigDict(read_run(workdir)["config"])
    model = model_of(config)
    own = recipe_of(config, model)
    target = abstract_state(model, own.optimizer, own.multipliers, mesh=make_mesh(1))
    states = []
    for folder in (workdir, trained.workdir):
        shutil.copytree(folder / "checkpoints", tmp_path / "copy" / "checkpoints")
        checkpoints = ResumeCheckpoints(tmp_path / "copy")
        states.append(checkpoints.restore(target))
        checkpoints.close()
        shutil.rmtree(tmp_path / "copy")
    (ours, our_position), (theirs, their_position) = states
    assert int(ours.step) == int(theirs.step) == 8
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert our_position == their_position


def test_training_goes_on_in_torch_with_the_same_losses(
    torch_glpi, small, demo_state, batches, tmp_path
):
    import torch
    from safetensors.numpy import save_file

    save_file(demo_state, tmp_path / "start.safetensors")
    workdir = tmp_path / "workdir"
    assert port("from-torch", tmp_path / "start.safetensors", workdir, *OVERRIDES) == 0
    model, own, _ = recipe()
    _, variables = load_torch(demo_state)
    state = create_state(
        model, own.optimizer, own.multipliers, seed=0, mesh=make_mesh(1), variables=variables
    )
    state, _ = train_in_jax(state, batches[:3])
    checkpoints = ResumeCheckpoints(workdir)
    checkpoints.save(state, {"next_index": 3})
    checkpoints.close()
    best = BestCheckpoint(workdir, read_only=False)
    best.save(state.variables, {"step": 3, "epoch": 1, "criterion": "a test's", "value": 0.5})
    best.close()
    _, expected = train_in_jax(state, batches[3:])

    assert port("to-torch", workdir, tmp_path / "out.pth") == 0
    checkpoint = torch.load(tmp_path / "out.pth", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["best_srocc"]) == (1, 0.5)
    theirs = small({name: t.numpy() for name, t in checkpoint["state_dict"].items()})
    optimizer, schedule = torch_training(torch_glpi, theirs, checkpoint)
    losses = train_in_torch(torch_glpi, theirs, optimizer, schedule, batches[3:])
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert max(losses) - min(losses) > 0.05  # they are not one loss again and again
    # The same without the moments is another training: this test would see them missing.
    fresh = small({name: t.numpy() for name, t in checkpoint["state_dict"].items()})
    optimizer, schedule = torch_training(torch_glpi, fresh)
    schedule.last_epoch = 3
    for group, saved in zip(
        optimizer.param_groups, checkpoint["optimizer"]["param_groups"], strict=True
    ):
        group["lr"] = saved["lr"]
    other = train_in_torch(torch_glpi, fresh, optimizer, schedule, batches[3:])
    assert not np.allclose(other, expected, rtol=1e-3)


@pytest.fixture
def torch_trained(torch_glpi, small, demo_state, batches, tmp_path):
    """An official file after three steps in torch, and the losses of three more there."""
    import torch

    model = small(demo_state)
    optimizer, schedule = torch_training(torch_glpi, model)
    train_in_torch(torch_glpi, model, optimizer, schedule, batches[:3])
    path = tmp_path / "official.pth"
    content = {
        "epoch": 5,
        "state_dict": model.state_dict(),
        "best_srocc": np.float64(0.75),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, path)
    losses = train_in_torch(torch_glpi, model, optimizer, schedule, batches[3:])
    return path, losses


def test_training_goes_on_in_jax_with_the_same_losses(torch_trained, batches, tmp_path, capsys):
    path, expected = torch_trained
    assert port("from-torch", path, tmp_path / "workdir", *OVERRIDES) == 0
    assert "Adam at step 3; torch's random numbers" in capsys.readouterr().err
    model, own, _ = recipe()
    target = abstract_state(model, own.optimizer, own.multipliers, mesh=make_mesh(1))
    checkpoints = ResumeCheckpoints(tmp_path / "workdir")
    state, position = checkpoints.restore(target)
    checkpoints.close()
    assert position == {"next_index": 3}
    assert int(state.step) == 3
    _, losses = train_in_jax(state, batches[3:])
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


def test_an_official_file_comes_back_whole(torch_trained, tmp_path):
    import torch

    path, _ = torch_trained
    assert port("from-torch", path, tmp_path / "workdir", *OVERRIDES) == 0
    assert port("to-torch", tmp_path / "workdir", tmp_path / "back.pth") == 0
    theirs = torch.load(path, weights_only=False)
    ours = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(ours) == list(theirs)
    assert_same(dict(ours["state_dict"]), dict(theirs["state_dict"]))
    assert_same(ours["optimizer"]["state"], theirs["optimizer"]["state"])
    (our_group,), (their_group,) = (x["optimizer"]["param_groups"] for x in (ours, theirs))
    assert our_group["params"] == their_group["params"]
    assert our_group["lr"] == pytest.approx(their_group["lr"], rel=1e-6)
    same = our_group.keys() & their_group.keys() - {"params", "lr"}
    assert {"betas", "eps", "weight_decay", "initial_lr", "amsgrad"} <= same
    assert all(our_group[key] == their_group[key] for key in same)
    assert (ours["epoch"], ours["best_srocc"]) == (5, 0.75)
    assert {int(n) for k, n in ours["state_dict"].items() if "num_batches" in k} == {8 + 3}


def test_another_recipe_is_told_with_its_remedy(torch_trained, tmp_path, capsys):
    path, _ = torch_trained
    assert port("from-torch", path, tmp_path / "workdir") == 2
    error = capsys.readouterr().err
    assert "--config.optimizer.learning_rate=0.001 (config: 1e-05)" in error
    assert not (tmp_path / "workdir").exists()
    assert port("from-torch", path, tmp_path / "workdir", "--weights-only") == 0
    assert runs.load_best(tmp_path / "workdir", make_mesh(1))[2]["value"] is None


def test_a_training_that_would_be_over_is_refused(trained, tmp_path, capsys):
    file = tmp_path / "end.pth"
    assert port("to-torch", trained.workdir / "checkpoints", file) == 0
    assert port("from-torch", file, tmp_path / "workdir", *trained.config) == 2
    assert "Adam is at step 8, but training ends at step 8" in capsys.readouterr().err
    assert not (tmp_path / "workdir").exists()


def test_optimizer_is_left_out_where_it_is_of_another_step(trained, tmp_path, capsys):
    import torch

    workdir, out = tmp_path / "workdir", tmp_path / "out.pth"
    shutil.copytree(trained.workdir, workdir)
    step = runs.load_best(workdir, make_mesh(1))[2]["step"]
    shutil.rmtree(workdir / f"checkpoints/{step}", ignore_errors=True)
    assert port("to-torch", workdir, out) == 0
    assert f"no optimizer: the state of step {step}" in capsys.readouterr().err
    assert list(torch.load(out, weights_only=True)) == ["epoch", "state_dict", "best_srocc"]
    assert port("to-torch", workdir / "checkpoints", out, "--force", "--weights-only") == 0
    assert "optimizer" not in torch.load(out, weights_only=True)


# Verification


def stand_in(folder, module, class_name, body=""):
    """A clone of the authors' code: a class that needs no arguments."""
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("torch_glpi.py"), folder / f"{module}_parts.py")
    package = folder / module / "models"
    package.mkdir(parents=True)
    (package / "glintiqa.py").write_text(
        f"from {module}_parts import TorchGLPI\n"
        f"class {class_name}(TorchGLPI):\n"
        "    def __init__(self):\n"
        f"        super().__init__(**{dataclasses.asdict(SIZES['glpi_demo'])})\n"
        f"{body}"
        "    def forward(self, images):\n"
        "        return super().forward(images)[:, None]\n"
    )
    return folder


def test_verify_runs_both(demo_state, tmp_path, capsys):
    import torch
    from PIL import Image

    file, workdir = tmp_path / "official.pth", tmp_path / "workdir"
    torch.save({"state_dict": tensors(demo_state)}, file)
    assert port("from-torch", file, workdir) == 0
    repository = stand_in(tmp_path / "clone", "glintiqa", "GlintIQA")
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (90, 70 + i, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
    capsys.readouterr()
    images = ("--images", tmp_path / "images")
    for arguments in ((), images):
        command = ("verify", file, workdir, "--torch-repo", repository, *arguments)
        assert port(*command, "--tolerance=1e-4") == 0
        rows = capsys.readouterr().out.split("in standard deviations\n")[1].splitlines()
        expected = [f"vgfe_{i}" for i in range(4)] + [f"clfe_{i}" for i in range(3)]
        expected += ["local", *(f"stage_{i}" for i in range(4)), "pooled", "score"]
        assert [row.split()[0] for row in rows] == expected
        assert all(float(row.split()[2]) < 1e-4 for row in rows)

    # Other weights in the file: the stages behind them differ, those before do not.
    moved = dict(demo_state) | {"siem2.conv.weight": demo_state["siem2.conv.weight"] + 0.5}
    torch.save(tensors(moved), tmp_path / "moved.pth")
    assert port("verify", tmp_path / "moved.pth", workdir, "--torch-repo", repository) == 2
    rows = capsys.readouterr().out.split("in standard deviations\n")[1].splitlines()
    apart = {row.split()[0] for row in rows if float(row.split()[2]) > 1e-3}
    assert apart == {"stage_1", "stage_2", "stage_3", "pooled", "score"}


def test_verify_tells_what_the_authors_code_does_wrong(demo_state, tmp_path, capsys):
    import torch

    file, workdir = tmp_path / "official.pth", tmp_path / "workdir"
    torch.save(tensors(demo_state), file)
    assert port("from-torch", file, workdir) == 0
    body = "        raise OSError('no weights\\nto download')\n"
    clone = stand_in(tmp_path / "clone", "offline", "Model", body)
    for repository, name, reason in (
        (clone, "offline.models.glintiqa:Model", "OSError: no weights to download"),
        (clone, "offline.models.glintiqa:None", "AttributeError"),
        (clone, "no_such_module:Model", "ModuleNotFoundError"),
        (clone, "Model", "must be module:Class"),
        (tmp_path / "none", "a:B", "no such folder"),
    ):
        capsys.readouterr()
        options = ("--torch-repo", repository, "--torch-class", name)
        assert port("verify", file, workdir, *options) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_verify_refuses_other_sizes(official_state, demo_state, tmp_path, capsys):
    import torch

    torch.save(tensors(demo_state), tmp_path / "demo.pth")
    torch.save(tensors(official_state(SIZES["glpi_ti16"])), tmp_path / "tiny.pth")
    assert port("from-torch", tmp_path / "demo.pth", tmp_path / "workdir") == 0
    assert port("verify", tmp_path / "tiny.pth", tmp_path / "workdir") == 2
    assert "are of different sizes" in capsys.readouterr().err


def test_layers_equal_torchs(torch_glpi):
    """CWSA alone on a shape where channels and tokens differ, random weights."""
    import jax.numpy as jnp
    import torch

    from glpi_jax.models.integration import CWSA

    torch.manual_seed(0)
    theirs = torch_glpi.CWSA(9, 0.5).eval()
    params = {
        name: {"kernel": module.weight.detach().numpy().T, "bias": module.bias.detach().numpy()}
        for name, module in theirs.named_children()
        if name.startswith("c_")
    }
    params["norm"] = {
        "scale": theirs.norm.weight.detach().numpy(),
        "bias": theirs.norm.bias.detach().numpy(),
    }
    x = np.random.default_rng(0).normal(size=(2, 12, 9)).astype(np.float32)
    ours = CWSA(dropout=0.5, dtype=jnp.float32).apply({"params": params}, x, None)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)
