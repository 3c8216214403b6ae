"""Training scripts of two ranks whose start costs what it must.

`DistributedDataParallel` and `torch.optim` import torch._dynamo: 1.3 s of processor time in every rank, and once more
half of that at its end (torch 2.13). Whether those two are saved and restored, test_resume.py and tests/training show;
who asks something else of a whole launch takes this.
"""

from __future__ import annotations

#: Sums gradients over the ranks and keeps a state of its own for each weight, as torch's do.
MOMENTUM = """
    class Momentum:
        def __init__(self, model):
            self.weights = list(model.parameters())
            self.speed = [torch.zeros_like(weight) for weight in self.weights]
        def step(self):
            for weight, speed in zip(self.weights, self.speed):
                dist.all_reduce(weight.grad)
                speed.mul_(0.9).add_(weight.grad, alpha=0.01)
                weight.data.sub_(speed)
                weight.grad = None
        def state_dict(self):
            return {"speed": self.speed}
        def load_state_dict(self, state):
            self.speed = [speed.clone() for speed in state["speed"]]
"""
#: Every generator and the optimizer's state take part in the weights that it ends with.
SCRIPT = f"""
    import hashlib, os, random, sys, time
    import torch, torch.distributed as dist
    from torch import nn
    import runctl
{MOMENTUM}
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    optimizer = Momentum(model)
    torch.manual_seed(rank), random.seed(rank)
    ck = runctl.attach(model=model, optimizer=optimizer)
    begin = ck.step
    for step in ck.steps(int(sys.argv[1].split("=")[1])):
        x = torch.randn(16, 8) + random.random()
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        ck.log(loss=loss)
        time.sleep(float(os.environ.get("STEP_S", "0")))
        if rank == 0 and step == begin + 3:
            open("begun", "w")
    if rank == 0:
        weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
        open("digest", "w").write(hashlib.sha256(weights).hexdigest())
    dist.destroy_process_group()
"""
