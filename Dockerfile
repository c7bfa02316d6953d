# The gateway and the local 100ms of the demo, in one image; docker-compose.yml says which of them a container runs.

FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# Without a pip of its own: the builder's installs into it, and only the venv goes on to the image.
RUN python -m venv --without-pip /opt/gateway
WORKDIR /src
# Before the code, so that a change of code installs no dependency again.
COPY requirements/runtime.txt requirements/
RUN pip --python /opt/gateway/bin/python install --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY auth auth
COPY limits limits
COPY gateway gateway
RUN pip --python /opt/gateway/bin/python install --no-deps --no-build-isolation .

FROM python:3.13-slim
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 GATEWAY_PORT=8000 GATEWAY_DATA=/data
# A fixed uid: volumes outlive the image. A fresh named volume takes its owner from these folders.
RUN groupadd --gid 10001 gateway \
 && useradd --uid 10001 --gid gateway --home-dir / --no-create-home --shell /usr/sbin/nologin gateway \
 && install -d -o gateway -g gateway -m 0700 /data /emulator
COPY --from=builder /opt/gateway /opt/gateway
# pip has compiled the venv; the slim image comes without the standard library's .pyc files, and at run time the file
# system is read-only. Importing what the commands import leaves those behind, and proves that the image can.
RUN python -c 'import gateway.app, gateway.cli, gateway.demo.installation, gateway.emulator.app, gateway.server'
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
CMD ["gateway", "serve"]
