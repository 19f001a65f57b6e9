"""One side of `model_speed.py`: a process that holds a model and takes a step when told to.

Started with a JSON object as its argument. It answers with a line of JSON when the model is ready
(facts: compile time, FLOPs, …), for each line on its standard input with the milliseconds of a
step, and at the end of the input with its peak memory. What fails is answered as {"error": …}.
"""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Facts = dict[str, Any]
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK_SIDE = {"cpu": 2048, "gpu": 8192}  # of the square matrices whose product gives the peak


class JaxSide:
    """The step of this project, compiled as training and scoring compile it, on one device."""

    def __init__(self, spec: Facts):
        import jax

        from glpi_jax.core.config import load_config, shipped_config
        from glpi_jax.distributed.mesh import make_mesh, to_devices
        from glpi_jax.evaluation.predict import compile_scorer
        from glpi_jax.models.glpi import build
        from glpi_jax.training.loop import make_recipe
        from glpi_jax.training.state import (
            abstract_state,
            abstract_variables,
            create_state,
            init_variables,
            key_of,
        )
        from glpi_jax.training.step import compile_train_step

        config = load_config(shipped_config("base"))
        mesh = make_mesh(1)
        self.device = jax.devices()[0]
        self._wait = jax.block_until_ready
        model = build(
            spec["model"],
            dropout=config.model.dropout,
            dtype=spec["dtype"],
            attention=spec["attention"],
        )
        recipe = make_recipe(config, model, mesh)
        parts = (model, recipe.optimizer, recipe.multipliers)
        images, scores = _batch(spec)
        batch = {"image": images, "score": scores, "example": np.arange(len(images), dtype="int32")}
        batch = to_devices(batch, mesh)
        if spec["what"] == "train":
            function = compile_train_step(
                *parts, mesh, loss=recipe.loss, accumulation=spec["accumulation"]
            )
            arguments = (abstract_state(*parts, mesh=mesh), batch)
        else:
            function = compile_scorer(model, mesh)
            arguments = (abstract_variables(model, mesh=mesh), batch["image"])

        begin = time.perf_counter()
        lowered = function.lower(*arguments)
        lowering = time.perf_counter() - begin
        compiled = lowered.compile()
        whole = time.perf_counter() - begin
        self.facts = {
            "lower_seconds": lowering,
            "compile_seconds": whole,
            "flops_by_hand": _by_hand(model.size, recipe.multipliers, spec),
            "flops_by_xla": _cost(compiled, "flops"),
            "flops_by_xla_before_compilation": _cost(lowered, "flops"),
            "bytes_by_xla": _cost(compiled, "bytes accessed"),
            "planned_bytes": _planned(compiled),
        }
        if not spec["steps"]:
            return
        if spec["what"] == "train":
            self._state = create_state(*parts, seed=0, mesh=mesh)

            def step() -> Any:
                self._state, outputs = compiled(self._state, batch)
                return outputs["loss"]
        else:
            variables = jax.jit(functools.partial(init_variables, model))(key_of(0))

            def step() -> Any:
                return compiled(variables, batch["image"])

        self._step: Callable[[], Any] = step

    def run(self, times: int) -> None:
        """Take steps, dispatched one behind the other as in training, and wait for the last."""
        for _ in range(times):
            last = self._step()
        self._wait(last)

    def peak_bytes(self) -> int | None:
        """Of the device, since the start; None where it does not count (the CPU)."""
        stats = self.device.memory_stats()
        return stats["peak_bytes_in_use"] if stats else None


class TorchSide:
    """The PyTorch model of tests/interop/torch_glpi.py, eager, on the same device."""

    def __init__(self, spec: Facts):
        import torch

        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/interop"))
        import torch_glpi

        torch.manual_seed(0)
        cuda = spec["platform"] == "gpu"
        if cuda and not torch.cuda.is_available():
            raise RuntimeError("JAX has a GPU, and this PyTorch none: install one with CUDA")
        device = torch.device("cuda" if cuda else "cpu")
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        # As JAX does unless told otherwise.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        autocast = cuda and spec["dtype"] == "bfloat16"
        layout = torch.channels_last if spec["channels_last"] else torch.contiguous_format
        self._torch = torch
        self._synchronize = torch.cuda.synchronize if cuda else lambda: None
        self.facts = {"autocast": autocast, "threads": torch.get_num_threads()}

        model = torch_glpi.TorchGLPI(**spec["size"]).to(device)
        trained = model.freeze()
        optimizer = torch_glpi.official_adam(trained)
        model = model.to(memory_format=layout)
        images, scores = _batch(spec)
        images = torch.from_numpy(images).to(device)
        scores = torch.from_numpy(scores).to(device)

        def forward() -> Any:
            x = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
            x = (x.float() / 255 - 0.5) / 0.5
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                return model(x).float()

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.l1_loss(forward(), scores).backward()
            optimizer.step()

        def score() -> None:
            with torch.inference_mode():
                forward()

        model.train(spec["what"] == "train")
        self._step = train if spec["what"] == "train" else score

    def run(self, times: int) -> None:
        """Take steps and wait for the last."""
        for _ in range(times):
            self._step()
        self._synchronize()

    def peak_bytes(self) -> int | None:
        """Of the GPU since the start; None on the CPU."""
        cuda = self._torch.cuda
        return cuda.max_memory_allocated() if cuda.is_initialized() else None


class PeakSide:
    """One product of two square matrices; says what the device is, too."""

    def __init__(self, spec: Facts):
        import jax
        import jax.numpy as jnp

        self.device = jax.devices()[0]
        side = PEAK_SIDE["cpu" if self.device.platform == "cpu" else "gpu"]
        self._wait = jax.block_until_ready
        self._product = jax.jit(jnp.matmul)
        keys = jax.random.split(jax.random.key(0))
        self._factors = [jax.random.normal(key, (side, side), spec["dtype"]) for key in keys]
        self.facts = {
            "platform": self.device.platform,
            "device": self.device.device_kind,
            "matmul_side": side,
        }

    def run(self, times: int) -> None:
        """Multiply, and wait for the last."""
        for _ in range(times):
            last = self._product(*self._factors)
        self._wait(last)

    def peak_bytes(self) -> int | None:
        """Nothing that matters."""
        return None


SIDES = {"jax": JaxSide, "torch": TorchSide, "peak": PeakSide}


def _batch(spec: Facts) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    side = spec["size"]["crop"]
    images = rng.integers(0, 256, (spec["batch"], side, side, 3), np.uint8)
    return images, rng.uniform(1, 5, spec["batch"]).astype(np.float32)


def _by_hand(size: Any, multipliers: dict[str, float | None], spec: Facts) -> int:
    from flops import count, flops_of

    return spec["batch"] * flops_of(count(size, multipliers), spec["what"])


def _cost(stage: Any, name: str) -> float | None:
    """A figure of XLA's cost analysis; None where the backend has none."""
    cost = stage.cost_analysis()
    return cost.get(name) if cost else None


def _planned(compiled: Any) -> int | None:
    """What XLA plans to hold at once: arguments, results and everything between."""
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return held - plan.alias_size_in_bytes


def _forget_resident_peak() -> bool:
    """Start the kernel's count of this process's peak anew, so that compiling is not in it."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _resident_peak() -> int | None:
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Serve one side; standard output is for answers alone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    spec = json.loads(sys.argv[1])
    try:
        side = SIDES[spec["kind"]](spec)
        if spec["steps"]:
            begin = time.perf_counter()
            side.run(1)
            side.facts["first_step_seconds"] = time.perf_counter() - begin
            side.run(1)
        side.facts["peak_without_compilation"] = _forget_resident_peak()
        answer(side.facts)
        for _ in sys.stdin:
            # Untimed: memory freed before may have gone back to the system while others stepped,
            # which it does not between the steps of a training.
            side.run(1)
            begin = time.perf_counter()
            side.run(spec["chain"])
            answer(1e3 * (time.perf_counter() - begin) / spec["chain"])
        answer({"peak_device_bytes": side.peak_bytes(), "peak_resident_bytes": _resident_peak()})
    except Exception as error:  # out of memory, no such attention, …: the other runs go on
        text = str(error).strip().splitlines() or [""]
        answer({"error": f"{type(error).__name__}: {text[0]}"})
        raise


if __name__ == "__main__":
    main()
