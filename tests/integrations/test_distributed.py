"""Both callbacks under DistributedDataParallel: one run, with the numbers of one process."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.record.test_distributed import free_port
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import open_run

pytest.importorskip("lightning.pytorch")
pytest.importorskip("transformers")
SETTINGS = {"every": 2, "threshold": 1e-3}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def data(repeat):
    """Eight batches; two processes that share them in turn must see each twice."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 4, 6, generator=g), torch.randint(3, (8, 4), generator=g)
    return x.repeat_interleave(repeat, 0).flatten(0, 1), y.repeat_interleave(repeat, 0).flatten(0, 1)


def train_in_lightning(folder, ranks):
    import lightning.pytorch as pl

    from phenoscope.integrations.lightning import Record

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[Record(folder / "lightning", **SETTINGS)],
    )
    trainer.fit(Classifier(), DataLoader(TensorDataset(*data(1)), 4))


class Loss(nn.Module):
    """What the Trainer expects: a model that computes its loss."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        outputs = self.net(x)
        return {"loss": nn.functional.cross_entropy(outputs, labels), "logits": outputs}


def train_in_transformers(folder, ranks):
    import transformers

    from phenoscope.integrations.transformers import Record

    args = transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        num_train_epochs=1,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        train_sampling_strategy="sequential",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        use_cpu=True,
        ddp_backend="gloo" if ranks > 1 else None,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    items = [{"x": x, "labels": y} for x, y in zip(*data(ranks), strict=True)]
    record = Record(folder / "transformers", **SETTINGS)
    transformers.Trainer(Loss(), args, train_dataset=items, callbacks=[record]).train()


def _trains(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
    torch.set_num_threads(1)
    train_in_transformers(folder, 2)
    train_in_lightning(folder, 2)
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # Lightning's own call of torch
def test_two_processes_write_one_run_with_the_numbers_of_one(tmp_path):
    for train in (train_in_transformers, train_in_lightning):
        train(tmp_path / "one", 1)
    mp.start_processes(_trains, (free_port(), tmp_path / "two"), nprocs=2, start_method="spawn")
    for name in ("lightning", "transformers"):
        one, two = open_run(tmp_path / "one" / name), open_run(tmp_path / "two" / name)
        assert two.steps.tolist() == one.steps.tolist() == [2, 4, 6, 8] and list(one) == list(two)
        for layer in one:  # 1e-4: averaging gradients rounds, and differences of weights magnify that
            np.testing.assert_allclose(two[layer].distance, one[layer].distance, rtol=1e-4)
        assert float(one["net.0"].distance.min()) > 0
