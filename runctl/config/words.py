"""The words that a key may be, where it may be no other."""

from __future__ import annotations

from enum import Enum


class ArgsStyle(Enum):
    argparse = "argparse"
    hydra = "hydra"
    env = "env"
    none = "none"


class SecretScope(Enum):
    setup = "setup"
    worker = "worker"
    both = "both"


class RetryOn(Enum):
    interrupted = "interrupted"
    host_fault = "host_fault"


class ArgsKeys(Enum):
    keep = "keep"
    dashes = "dashes"


class ArgsBooleans(Enum):
    value = "value"
    flag = "flag"


class ArgsLists(Enum):
    repeat = "repeat"
    space = "space"
    comma = "comma"


class DrillS3(Enum):
    moto = "moto"
    swift = "swift"


class ScalingRule(Enum):
    explicit = "explicit"
    linear = "linear"
    sqrt = "sqrt"
    none = "none"


class Output(Enum):
    text = "text"
    json = "json"


class Show(Enum):
    all = "all"
    rank0 = "rank0"
    none = "none"


class Prefix(Enum):
    others = "others"
    all = "all"
    none = "none"


class Reduce(Enum):
    last = "last"
    best = "best"
    mean = "mean"


class Changed(Enum):
    refuse = "refuse"
    accept = "accept"


class PythonEnv(Enum):
    auto = "auto"
    system = "system"
    uv = "uv"
    conda = "conda"
    docker = "docker"


class TrainerKind(Enum):
    single = "single"
    ddp = "ddp"
