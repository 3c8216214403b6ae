"""The same training as digits_ddp.py, and three lines more: stopped at any moment, it goes on where it was.

runctl-launch trainer=ddp trainer.nproc_per_node=2 script=examples/digits_resume.py run.name=digits
runctl-launch +platform=aws drill=spot trainer=ddp trainer.nproc_per_node=2 script=examples/digits_resume.py

At its end it prints a digest of its weights: bit by bit the same, however often it was interrupted.
"""

import argparse
import hashlib
import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import runctl


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=64, help="over all ranks together")
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    if "RANK" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else "cpu"

    torch.manual_seed(options.seed)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16  # 1797 × 64, grey values of 0 to 1
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, held_out = order[:1500], order[1500:]
    data = TensorDataset(images[train], labels[train])
    sampler = DistributedSampler(data, ranks, rank, seed=options.seed)
    loader = DataLoader(data, options.batch_size // ranks, sampler=sampler)

    model: nn.Module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    if ranks > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), options.learning_rate)

    ck = runctl.attach(model=model, optimizer=optimizer, loader=loader)
    for epoch in ck.epochs(options.epochs):
        sampler.set_epoch(epoch)
        for batch, target in ck.batches():
            loss = nn.functional.cross_entropy(model(batch.to(device)), target.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ck.log(loss=loss)
        if rank == 0 and (epoch + 1) % 5 == 0:
            print(f"epoch={epoch + 1} step={ck.step} loss={ck.loss:.4f}")

    with torch.no_grad():
        guesses = model(images[held_out].to(device)).argmax(dim=1).cpu()
    accuracy = (guesses == labels[held_out]).float().mean().item()
    if rank == 0:
        digest = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in model.state_dict().values()))
        print(f"step={ck.step} accuracy={accuracy:.4f}")
        print(f"weights {digest.hexdigest()[:16]}")
        print(f"accuracy on {len(held_out)} digits never seen in training: {accuracy:.1%}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
