"""Train a small GPT-2 on the bytes of a text file with Hugging Face's Trainer, and record how it evolves.

    pip install 'phenoscope[transformers]'
    python examples/huggingface_gpt2.py book.txt --run runs/book

Nothing is downloaded: the network is made from its config, and a token is a byte. `--resume` goes on from the last
checkpoint with the same run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from phenoscope import open_run
from phenoscope.integrations.transformers import Record


def pieces(file: Path, length: int) -> list[dict[str, torch.Tensor]]:
    """The bytes of a file, cut into pieces of one length."""
    text = torch.from_numpy(np.frombuffer(file.read_bytes(), dtype=np.uint8).astype(np.int64))
    rows = text[: len(text) // length * length].view(-1, length)
    if not len(rows):
        raise SystemExit(f"{file} has {len(text)} bytes, fewer than one piece of {length}")
    return [{"input_ids": row, "labels": row} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small GPT-2 on a text file, recorded.")
    parser.add_argument("file", type=Path, help="any text")
    parser.add_argument("--run", type=Path, default=Path("runs/gpt2"), help="where to record")
    parser.add_argument("--steps", type=int, default=500, help="updates")
    parser.add_argument("--every", type=int, default=10, help="updates between records")
    parser.add_argument("--length", type=int, default=128, help="bytes of a piece")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    given = parser.parse_args()

    set_seed(0)
    config = GPT2Config(
        vocab_size=256,
        n_positions=given.length,
        n_embd=given.width,
        n_layer=given.layers,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    arguments = TrainingArguments(
        output_dir=str(given.run.parent / f"{given.run.name}-checkpoints"),
        max_steps=given.steps,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        warmup_steps=given.steps // 10,
        logging_steps=given.every,
        save_steps=max(given.steps // 2, 1),
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(
        GPT2LMHeadModel(config),
        arguments,
        train_dataset=pieces(given.file, given.length),
        callbacks=[Record(given.run, every=given.every)],
    )
    trainer.train(resume_from_checkpoint=given.resume)

    run = open_run(given.run)
    print("changed share of the weights, mean over the run:")
    for name, share in run.means.changed.mean("step").to_series().items():
        print(f"  {name:32} {share:6.1%}")
    print(f"pages with figures: phenoscope report {given.run}")


if __name__ == "__main__":
    main()
