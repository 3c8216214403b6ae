#!/bin/sh
# An interpreter that is a container: called as `python3 ARGS…` would be, it has Python of the image
# RUNCTL_DOCKER_IMAGE called so. It lies in <root>/<run>/a<n>/docker, is called from a folder beside that, and
# <root> has the same path inside: all paths hold there. The whole agent runs inside, for what holds it and its ranks
# together, descriptors and the death of a parent, does not cross the border of a container.
set -eu
set -f

here=$(cd "$(dirname "$0")" && pwd -P)
attempt=${here%/*}
run=${attempt%/*}
RUNCTL_HOST_ROOT=${run%/*}
TMPDIR=$RUNCTL_HOST_ROOT/tmp
export RUNCTL_HOST_ROOT TMPDIR
mkdir -p "$TMPDIR"

fail() {
  echo "runctl: $1" >&2
  exit 1
}

# shellcheck disable=SC2016 # for another shell, on the host or inside: FOLDER PACKAGE ARGS…
become='
folder=$1 package=$2
shift 2
case ":${PYTHONPATH:-}:" in
  *":$package:"*) ;;
  *) PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH}; export PYTHONPATH ;;
esac
for python in python3 /opt/conda/bin/python /opt/pytorch/bin/python \
  python3.14 python3.13 python3.12 python3.11 python3.10; do
  if "$python" -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null; then
    exec "$python" -m runctl.hosts.own_python "$folder" "$@"
  fi
done
echo "runctl: there is no Python 3.10 or newer for the agent" >&2
exit 1
'

if [ "${1:-} ${2:-}" = "-m runctl.hosts.secrets" ]; then
  # Setup lines prepare the host: with a secret they log in to the image's registry.
  [ -z "${RUNCTL_AGENT_PYTHON:-}" ] || exec "$RUNCTL_AGENT_PYTHON" "$@"
  exec sh -c "$become" sh "$attempt/venv" "$attempt/runctl" "$@"
fi

image=$RUNCTL_DOCKER_IMAGE
command -v docker >/dev/null || fail "python_env=docker: this host has no docker; platform.ami must have docker, \
as the images that platform.ami=auto takes, or a platform.setup line install it"
docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" ||
  fail "docker.image=$image could not be pulled; is the name right, and does a platform.setup line log in where it lies?"

name=$RUNCTL_DOCKER_NAME-$$
set -- "$image" -c "$become" sh "$attempt/venv-image" "$attempt/runctl" "$@"
for variable in $(awk 'BEGIN { for (name in ENVIRON) print name }'); do
  case $variable in
    # Paths of the host's own interpreters, and what is secret: the container has its role from the metadata.
    RUNCTL_AGENT_PYTHON | RUNCTL_IMAGE_PYTHON | AWS_*SECRET* | AWS_*KEY* | AWS_*TOKEN*) ;;
    AWS_* | RUNCTL_* | LANG | TMPDIR | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | http_proxy | https_proxy | no_proxy)
      # By its name: a command line is for everybody to see.
      set -- --env "$variable" "$@"
      ;;
  esac
done
# An image may have nvidia-smi and the host no GPU, and then docker refuses to give it one.
if [ -e /dev/nvidia0 ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  set -- --gpus all "$@"
fi
set -- run --rm --init --name "$name" --user "$(id -u):$(id -g)" --ipc=host --ulimit memlock=-1 \
  --ulimit stack=67108864 --volume "$RUNCTL_HOST_ROOT:$RUNCTL_HOST_ROOT" --workdir "$(pwd -P)" --entrypoint sh "$@"

# The client hands signals on to the container, and ends with the code of what runs inside.
client='' asked=0
stop() {
  asked=$((asked + 1))
  [ -z "$client" ] || kill -TERM "$client" 2>/dev/null || :
}
trap stop TERM INT HUP
docker "$@" &
client=$!
[ "$asked" = 0 ] || kill -TERM "$client" 2>/dev/null || :
while :; do
  before=$asked
  code=0
  wait "$client" || code=$?
  [ "$asked" != "$before" ] || break # a signal ends the waiting, not the client
done
# Above are codes of docker's own, and of a client that was killed and left the container behind.
[ "$code" -lt 125 ] || docker rm --force "$name" >/dev/null 2>&1 || :
exit "$code"
