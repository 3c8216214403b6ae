"""The part of RunPod's GraphQL schema that is used, with its own names: queries are parsed and checked against it.

From graphql-spec.runpod.io and the queries of RunPod's SDK 1.12.0. What stands in a string of a query stays in it: a
value that would add a field to a query does so here as well.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from runctl.drill.runpod.account import Account, Refused
from runctl.drill.runpod.pods import Pod

_INPUT = """
  name: String  imageName: String  gpuTypeId: String  gpuTypeIdList: [String]  gpuCount: Int  cloudType: CloudTypeEnum
  containerDiskInGb: Int  volumeInGb: Int  volumeMountPath: String  networkVolumeId: String  dataCenterId: String
  countryCode: String  minVcpuCount: Int  minMemoryInGb: Int  minDownload: Int  minUpload: Int  minDisk: Int
  allowedCudaVersions: [String]  cudaVersion: String  dockerArgs: String  env: [EnvironmentVariableInput]
  ports: String  templateId: String  startSsh: Boolean  startJupyter: Boolean  supportPublicIp: Boolean
  stopAfter: DateTime  terminateAfter: DateTime  volumeKey: String
"""
SDL = f"""
scalar DateTime
scalar Void
enum CloudTypeEnum {{ SECURE COMMUNITY ALL }}
input EnvironmentVariableInput {{ key: String!  value: String! }}
input PodFindAndDeployOnDemandInput {{ {_INPUT} }}
input PodRentInterruptableInput {{ {_INPUT} bidPerGpu: Float! }}
input PodFilter {{ podId: String! }}
input PodTerminateInput {{ podId: String! }}
input PodStopInput {{ podId: String! }}
input GpuTypeFilter {{ id: String  ids: [String] }}
input GpuLowestPriceInput {{
  gpuCount: Int  minDisk: Int  minMemoryInGb: Int  minVcpuCount: Int  secureCloud: Boolean  dataCenterId: String
}}
type LowestPrice {{ minimumBidPrice: Float  uninterruptablePrice: Float }}
type GpuType {{
  id: String  displayName: String  manufacturer: String  memoryInGb: Int  cudaCores: Int  maxGpuCount: Int
  secureCloud: Boolean  communityCloud: Boolean  securePrice: Float  communityPrice: Float
  secureSpotPrice: Float  communitySpotPrice: Float  lowestPrice(input: GpuLowestPriceInput): LowestPrice
}}
type PodRuntimePorts {{ ip: String  isIpPublic: Boolean  privatePort: Int  publicPort: Int  type: String }}
type PodRuntime {{ uptimeInSeconds: Int  ports: [PodRuntimePorts] }}
type PodMachineInfo {{ podHostId: String  gpuDisplayName: String  dataCenterId: String  secureCloud: Boolean }}
type Pod {{
  id: String  name: String  imageName: String  desiredStatus: String  podType: String  costPerHr: Float
  containerDiskInGb: Int  volumeInGb: Int  volumeMountPath: String  networkVolumeId: String  dockerArgs: String
  dockerId: String  env: [String]  gpuCount: Int  lastStatusChange: String  machineId: String  memoryInGb: Int
  vcpuCount: Int  port: Int  ports: String  uptimeSeconds: Int  createdAt: DateTime
  runtime: PodRuntime  machine: PodMachineInfo
}}
type NetworkVolume {{ id: String  name: String  size: Int  dataCenterId: String }}
type User {{
  id: String  email: String  clientBalance: Float  currentSpendPerHr: Float  networkVolumes: [NetworkVolume]
  pods: [Pod]
}}
type Query {{ gpuTypes(input: GpuTypeFilter): [GpuType]  myself: User  pod(input: PodFilter): Pod }}
type Mutation {{
  podFindAndDeployOnDemand(input: PodFindAndDeployOnDemandInput): Pod
  podRentInterruptable(input: PodRentInterruptableInput!): Pod
  podStop(input: PodStopInput!): Pod
  podTerminate(input: PodTerminateInput!): Void
}}
"""
MARKETS = {"podRentInterruptable": "spot", "podFindAndDeployOnDemand": "on_demand"}
_WORDS = {"running": "RUNNING", "exited": "EXITED", "terminated": "TERMINATED"}
_NOT_YOURS = "Unauthorized: this key may not do that"


@functools.cache
def _schema() -> Any:
    from graphql import build_schema

    return build_schema(SDL)


def action_of(query: str) -> str:
    """The first field that a query asks for, such as podTerminate; empty for one that is no GraphQL."""
    from graphql import FieldNode, GraphQLError, OperationDefinitionNode, parse

    try:
        found = parse(query)
    except GraphQLError:
        return ""
    for one in found.definitions:
        if isinstance(one, OperationDefinitionNode):
            for field in one.selection_set.selections:
                if isinstance(field, FieldNode):
                    return str(field.name.value)
    return ""


def execute(account: Account, query: str, variables: dict[str, Any] | None, of_pod: Pod | None) -> dict[str, Any]:
    """Carry a query out, and answer as GraphQL does.

    Args:
        account: of whom.
        query: GraphQL's text.
        variables: of the query.
        of_pod: the pod whose own key signed; None for a key of the account's.
    """
    from graphql import graphql_sync

    told = graphql_sync(_schema(), query, _root(account, of_pod), variable_values=variables)
    # As RunPod does: a refusal's words, and a null where the answer would be.
    return told.formatted  # type: ignore[return-value]


def _root(account: Account, of_pod: Pod | None) -> dict[str, Callable[..., Any]]:
    def owned(pod_id: str) -> Pod | None:
        if of_pod is not None and pod_id != of_pod.id:
            raise Refused(_NOT_YOURS)
        return next((one for one in account.living() if one.id == pod_id), None)

    def gpu_types(_info: object, input: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        named = (input or {}).get("ids") or [(input or {}).get("id")]
        return [one.told() for one in account.gpus.values() if named == [None] or one.id in named]

    def myself(_info: object) -> dict[str, Any]:
        if of_pod is not None:
            raise Refused(_NOT_YOURS)
        return {
            "id": "user_drill", "email": "drill@localhost", "clientBalance": account.balance,
            "currentSpendPerHr": round(account.spending(), 4), "networkVolumes": list(account.volumes.values()),
            "pods": [_told(one) for one in account.living()],
        }  # fmt: skip

    def pod(_info: object, input: dict[str, Any] | None = None) -> dict[str, Any] | None:
        found = owned((input or {}).get("podId") or "")
        return None if found is None else _told(found)

    def rent(info: Any, input: dict[str, Any]) -> dict[str, Any]:
        if of_pod is not None:
            raise Refused(_NOT_YOURS)
        return _told(account.rent(input, MARKETS[info.field_name]))

    def end(info: Any, input: dict[str, Any]) -> dict[str, Any] | None:
        found = owned(input["podId"])
        if found is None:
            raise Refused(f"pod {input['podId']} not found to {info.field_name}")
        if info.field_name == "podTerminate":
            found.end("terminated", "terminated by request", answer_first=True)
            return None
        if found.wanted.volume is not None:
            raise Refused("Pods with a network volume cannot be stopped, only terminated.")
        found.end("exited", "stopped by request", answer_first=True)
        return _told(found)

    return {
        "gpuTypes": gpu_types, "myself": myself, "pod": pod, "podTerminate": end, "podStop": end,
        **dict.fromkeys(MARKETS, rent),
    }  # fmt: skip


def _told(pod: Pod) -> dict[str, Any]:
    """As GraphQL's Pod."""
    wanted = pod.wanted
    age_s = int(time.time() - pod.created_at)
    ports = pod.ports
    created = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(pod.created_at))
    return {
        "id": pod.id, "name": wanted.name, "imageName": wanted.image, "desiredStatus": _WORDS[pod.state],
        "podType": "INTERRUPTABLE" if wanted.market == "spot" else "RESERVED", "costPerHr": wanted.price,
        "containerDiskInGb": wanted.asked.get("containerDiskInGb"), "volumeInGb": wanted.asked.get("volumeInGb"),
        "volumeMountPath": wanted.volume_mount_path, "networkVolumeId": wanted.asked.get("networkVolumeId"),
        "dockerArgs": wanted.docker_args, "env": [f"{name}={value}" for name, value in wanted.env.items()],
        "gpuCount": wanted.gpu_count, "lastStatusChange": f"Rented by User: {created}", "machineId": f"m{pod.id}",
        "memoryInGb": 31, "vcpuCount": 8, "ports": ",".join(wanted.ports),
        "uptimeSeconds": age_s, "createdAt": created,
        "runtime": None if ports is None else {"uptimeInSeconds": age_s, "ports": ports},
        "machine": {
            "podHostId": f"{pod.id}-drill", "gpuDisplayName": wanted.gpu, "dataCenterId": wanted.data_center,
            "secureCloud": wanted.cloud == "secure",
        },
    }  # fmt: skip
