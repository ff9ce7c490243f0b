# Serving a bundle of marl_td: no torch, no compiler, not as root. Build and run from the repository:
#
#   docker build -f docker/serve.Dockerfile -t marl-td-serve .
#   docker run --rm -p 8000:8000 -v "$PWD/bundle:/bundle:ro" -e MARL_TD_TOKEN --read-only marl-td-serve
#
# Other machines can reach the port, so the server does not start without a token of 16 characters or more in
# MARL_TD_TOKEN (`export MARL_TD_TOKEN=$(python3 -c "import secrets; print(secrets.token_urlsafe())")`).

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY hydra_plugins ./hydra_plugins
COPY losses ./losses
COPY tasks ./tasks
COPY marl_td ./marl_td
# What the server needs (the extra `serve` and numpy), then marl_td alone: its other dependencies are for training.
RUN /opt/venv/bin/pip install -c constraints.txt \
    "numpy>=1.26" "fastapi>=0.115,<1" "onnxruntime>=1.20,<2" "uvicorn>=0.30,<1"
RUN /opt/venv/bin/pip install --no-deps .

FROM python:3.11-slim
RUN useradd --no-create-home --uid 10001 marl
COPY --from=build /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER marl
RUN marl-td --version
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["marl-td"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
