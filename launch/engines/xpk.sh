#!/bin/bash
# gentrain on GKE by XPK, which writes a JobSet like jobset.yaml: TPU v5e, 16 x 16 chips, 64 hosts, restarted until done.
#
#   bash launch/engines/xpk.sh                from the root of the repository
#
# Change: the cluster; the image, which holds this repository in its WORKDIR, its requirements and jax[tpu]; the
# storage, made by `xpk storage create` with --mount-point=/shared; the config.
set -euo pipefail

# Without --max-restarts there are none. XPK restarts after exit codes 42 and 127 to 255 and no other. exec makes
# python the process that XPK's wrapper passes TERM on to.
xpk workload create \
    --cluster=tpu-v5e \
    --workload=gentrain \
    --tpu-type=v5litepod-256 \
    --docker-image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/gentrain:latest \
    --storage=shared \
    --max-restarts=100 \
    --termination-grace-period-seconds=120 \
    --command="exec python -m launch --config=configs/lm1b_likelihood.py --config.mesh.data=-1 --workdir=/shared/lm1b"
