"""Handwritten digits on as many processes as you like: a plain DDP training that knows nothing of runctl.

torchrun --nproc-per-node=2 examples/digits_ddp.py --epochs 30
runctl-launch trainer=ddp trainer.nproc_per_node=2 script=examples/digits_ddp.py args.epochs=30
"""

import argparse
import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


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

    step = 0
    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)
        for batch, target in loader:
            loss = nn.functional.cross_entropy(model(batch.to(device)), target.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        if rank == 0 and (epoch + 1) % 5 == 0:
            print(f"epoch={epoch + 1} step={step} loss={loss.item():.4f}")

    with torch.no_grad():
        logits = model(images[held_out].to(device)).cpu()
    accuracy = (logits.argmax(dim=1) == labels[held_out]).float().mean().item()
    if rank == 0:
        val_loss = nn.functional.cross_entropy(logits, labels[held_out]).item()
        print(f"step={step} accuracy={accuracy:.4f} val_loss={val_loss:.4f}")
        print(f"accuracy on {len(held_out)} digits never seen in training: {accuracy:.1%}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
