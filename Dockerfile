# Training with marl_td. Build and run:
#
#   docker build -t marl-td .
#   docker run --rm -v "$PWD/runs:/runs" marl-td train --out /runs/first algorithm=marl_td/mappo task=marl_td/banking
#
# For a GPU add `--gpus all` to `docker run`: the normal build of torch brings what it needs. A smaller image with the
# CPU build of torch: `--build-arg EXTRA_INDEX=URL`, an index that offers one. The folder that is mounted at /runs must
# be writable for user 10001, or add `--user "$(id -u)"`.

FROM python:3.11-slim AS build
ARG EXTRAS="vmas,mpe,export"
ARG EXTRA_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY hydra_plugins ./hydra_plugins
COPY losses ./losses
COPY tasks ./tasks
COPY marl_td ./marl_td
# One command for everything, with the versions that the tests run with: a later one could replace torch.
RUN /opt/venv/bin/pip install ${EXTRA_INDEX:+--extra-index-url "$EXTRA_INDEX"} -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim
# g++: compiled rollouts and updates on the CPU. The others: pictures of VMAS scenarios without a screen.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libegl1 libgl1 libglu1-mesa libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 marl && install -d -o marl /runs
COPY --from=build /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED=1 MPLBACKEND=Agg
USER marl
WORKDIR /runs
RUN marl-td --version && marl-td list tasks
ENTRYPOINT ["marl-td"]
CMD ["--help"]
