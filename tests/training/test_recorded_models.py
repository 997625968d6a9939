"""``lsviz.record`` on models that nobody here wrote, and in distributed processes: every count is right."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

import lsviz
from tests.conftest import PATIENCE, REPOSITORY, clean_environment
from tests.training.test_recording import assert_row


def gradients_by_autograd(model: nn.Module, loss_of: Callable[[], Tensor]) -> dict[str, list[Tensor]]:
    """Return every module's output gradients from ``torch.autograd.grad`` at the outputs' edges."""
    edges: list[tuple[str, Any]] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output.values() if isinstance(output, dict) else output
            edges.extend(
                (name, get_gradient_edge(value))
                for value in (values if not isinstance(values, Tensor) else [values])
                if isinstance(value, Tensor) and value.requires_grad
            )

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if name]
    loss = loss_of()
    for handle in handles:
        handle.remove()
    found = torch.autograd.grad(loss, [edge for _, edge in edges], allow_unused=True)
    gradients: dict[str, list[Tensor]] = {}
    for (name, _), gradient in zip(edges, found, strict=True):
        if gradient is not None:
            gradients.setdefault(name, []).append(gradient)
    return gradients


def assert_recorded_as_autograd_has_it(
    model: nn.Module, loss_of: Callable[[], Tensor], path: Path
) -> pd.DataFrame:
    """Record one step of a model and compare every count with an independent one."""
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    expected = gradients_by_autograd(model, loss_of)
    model.load_state_dict(state)
    torch.manual_seed(3)
    with lsviz.record(model, path) as rec:
        loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        rec.step(loss)
    rows = lsviz.open_run(rec.path).exponents()
    activations = rows[rows["kind"] == "activation_grad"].set_index("tensor")
    assert set(activations.index) - {""} == set(expected)
    for name, gradients in expected.items():
        assert_row(activations.loc[name].to_dict(), torch.cat([g.flatten() for g in gradients]))
    weights = rows[rows["kind"] == "weight_grad"].set_index("tensor")
    named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert list(weights.index) == list(named)
    for name, gradient in named.items():
        assert_row(weights.loc[name].to_dict(), gradient)
    return rows


def test_a_small_gpt2_is_counted_as_autograd_has_it(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    # Without a cache: older versions return it from every block, in a tuple in a tuple, which counts too.
    sizes = {"vocab_size": 96, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, use_cache=False))
    words = torch.randint(96, (3, 24))
    rows = assert_recorded_as_autograd_has_it(
        model, lambda: model(input_ids=words, labels=words).loss, tmp_path / "gpt2"
    )
    assert {"transformer.h.1.attn.c_attn", "lm_head", "transformer.wte.weight"} <= set(rows["tensor"])
    assert "" not in set(rows["tensor"])  # its outputs are the loss and what lm_head gives


def test_a_small_bert_is_counted_as_autograd_has_it(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=96,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=24,
        )
    )
    words, labels = torch.randint(96, (3, 24)), torch.tensor([0, 1, 1])
    rows = assert_recorded_as_autograd_has_it(
        model, lambda: model(input_ids=words, labels=labels).loss, tmp_path / "bert"
    )
    assert {"bert.encoder.layer.1.attention.self.query", "classifier"} <= set(rows["tensor"])


RESNET = """
import sys
from pathlib import Path
try:
    import torchvision
except (ImportError, RuntimeError):  # its compiled part is built for another torch; resnet18 needs none of it
    for name in [n for n in sys.modules if n.startswith("torchvision")]:
        del sys.modules[name]
    sys.path.insert(0, sys.argv[2])
    import torch
    from torch import library as torch_library
    operations = torch_library.Library("torchvision", "DEF")
    for operation in ("nms", "qnms"):
        operations.define(operation + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
import torch
from torch import nn
from tests.training.test_recorded_models import assert_recorded_as_autograd_has_it
torch.manual_seed(0)
model = torchvision.models.resnet18(num_classes=5)
images, labels = torch.randn(2, 3, 64, 64), torch.tensor([1, 4])
rows = assert_recorded_as_autograd_has_it(
    model, lambda: nn.functional.cross_entropy(model(images), labels), Path(sys.argv[1]) / "resnet"
)
assert {"layer4.1.bn2", "layer1.0.relu", "fc.weight"} <= set(rows["tensor"])
print(len(set(rows["tensor"])), "tensors")
"""


def test_torchvisions_resnet18_is_counted_as_autograd_has_it(tmp_path: Path) -> None:
    # In a process of its own: a torchvision that can't be imported breaks transformers and lightning.
    done = subprocess.run(
        [sys.executable, "-c", RESNET, str(tmp_path), str(Path(sys.prefix) / "torchvision")],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "tensors" in done.stdout


DISTRIBUTED = """
import sys, time
from pathlib import Path
import torch
from torch import nn
import lsviz
rank, root = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{root}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(10 + rank)  # each has a batch of its own
outputs = []
def look(module, inputs, output):
    output.register_hook(lambda gradient: outputs.append(gradient.clone()))
model.module[0].register_forward_hook(look)
with lsviz.record(model, root / "run") as rec:
    assert rec.active == (rank == 0)
    for step in range(3):
        time.sleep(rank * step)  # the first one is ahead at its end
        loss = model(torch.randn(16, 4)).pow(2).mean()
        loss.backward()
        torch.save([p.grad.clone() for p in model.parameters()], root / f"grad{rank}.pt")
        optimizer.step()
        optimizer.zero_grad()
        rec.step(loss)
torch.save(outputs, root / f"outputs{rank}.pt")
assert rec.path.name == "run"
torch.distributed.destroy_process_group()
"""


def test_of_distributed_processes_the_first_writes_what_all_have_averaged(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", DISTRIBUTED, str(rank), str(tmp_path)],
            cwd=REPOSITORY,
            env=clean_environment(OMP_NUM_THREADS="1"),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert "stopped recording" not in errors
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["run"]
    run = lsviz.open_run(tmp_path / "run")
    assert run.recorded_steps() == [0, 1, 2]
    gradients = [torch.load(tmp_path / f"grad{rank}.pt") for rank in range(2)]
    rows = run.exponents(kind="weight_grad", steps=[2])
    assert rows["tensor"].tolist() == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for row, mine, other in zip(rows.to_dict("records"), *gradients, strict=True):
        assert torch.equal(mine, other)  # averaged
        assert_row(row, mine)
    outputs = zip(*(torch.load(tmp_path / f"outputs{rank}.pt") for rank in range(2)), strict=True)
    rows = run.exponents(kind="activation_grad", tensor="0").to_dict("records")
    for row, (mine, other) in zip(rows, outputs, strict=True):
        assert not torch.equal(mine, other)
        assert_row(row, torch.cat([mine, other]))


def test_a_sparse_gradient_is_recorded(tmp_path: Path) -> None:
    with torch.sparse.check_sparse_tensor_invariants():
        model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2))
        with lsviz.record(model, tmp_path / "run") as rec:
            model(torch.tensor([1, 3, 3])).sum().backward()
            rec.step()
        gradient = model[0].weight.grad
        assert gradient is not None
        rows = lsviz.open_run(rec.path).exponents(tensor="0.weight")
        assert rows["zero"].tolist() == [int((gradient.to_dense() == 0).sum())]
        assert rows["numel"].tolist() == [40]


def test_jagged_batches_are_recorded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    batch = torch.nested.nested_tensor([torch.randn(5, 3), torch.randn(2, 3)], layout=torch.jagged)
    with lsviz.record(model, tmp_path / "run") as rec:
        model(batch).values().square().sum().backward()
        rec.step()
    rows = lsviz.open_run(rec.path).exponents()
    assert rows.set_index("tensor").loc["0", "numel"] == 7 * 4


def test_gradients_that_were_asked_for_may_be_changed(tmp_path: Path) -> None:
    model = nn.Linear(64, 1024)
    weights = torch.randn(256, 1024)
    with lsviz.record(model, tmp_path / "run") as rec:
        for _ in range(10):
            output = model(torch.randn(256, 64))
            loss = (output * weights).sum()
            for again in (True, False):  # the second pass has no forward pass before it
                (gradient,) = torch.autograd.grad(loss, output, retain_graph=again)
                gradient.zero_()  # as for an adversarial example: no hook of a parameter saw this pass
            rec.step()
    rows = lsviz.open_run(rec.path).exponents(kind="activation_grad")
    assert rows["numel"].tolist() == [2 * weights.numel()] * 10
    assert rows["zero"].tolist() == [2 * int((weights == 0).sum())] * 10
