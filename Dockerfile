# The gateway and the local 100ms of the demo in one image. docker-compose.yml selects which one a container runs.

FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends binutils >/dev/null
# Without pip: the builder's pip installs into it, and only the venv is copied to the image.
RUN python -m venv --without-pip /opt/gateway
WORKDIR /src
# Before the code, so that a change of the code does not reinstall the dependencies.
COPY requirements/runtime.txt requirements/traces.txt requirements/
# `traces` adds the extra of that name, and 9 MB. Compose sets it if GATEWAY_TRACES is set.
ARG LOCK=runtime
# Removes what no process of the gateway uses: debug symbols (20 MB; not of libraries in *.libs and what loads them, whose
# layout strip would break), and the languages of faker (21 MB), which Litestar requires for made-up examples.
RUN pip --python /opt/gateway/bin/python install --no-compile --require-hashes -r "requirements/${LOCK:-runtime}.txt" \
 && cd /opt/gateway/lib/python3.13/site-packages \
 && find . -name '*.so' -not -path './psycopg_binary/*' -not -path './*.libs/*' -exec strip --strip-unneeded {} + \
 && find faker/providers -depth -type d -name '[a-z][a-z]_[A-Z]*' -not -name 'en_*' -exec rm -r {} +
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY auth auth
COPY limits limits
COPY gateway gateway
# Removes what built the gateway, and compiles all but what nothing imports.
RUN pip --python /opt/gateway/bin/python install --no-compile --no-deps --no-build-isolation . \
 && pip --python /opt/gateway/bin/python uninstall -qy editables hatchling packaging pathspec pluggy tomlkit trove-classifiers \
 && pip --python /opt/gateway/bin/python check \
 && /opt/gateway/bin/python -m compileall -q -x '/(faker|pygments)/' /opt/gateway/lib

FROM python:3.13-slim
ARG LOCK=runtime
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 GATEWAY_DATA=/data
# A fixed uid, because volumes outlive the image. A new named volume gets its owner from these folders.
RUN groupadd --gid 10001 gateway \
 && useradd --uid 10001 --gid gateway --home-dir / --no-create-home --shell /usr/sbin/nologin gateway \
 && install -d -o gateway -g gateway -m 0700 /data /emulator /archive
COPY --from=builder /opt/gateway /opt/gateway
# pip has compiled the venv, but the slim image lacks the .pyc files of the standard library, and the file system is
# read-only at run time. These imports create them, and prove that the image is complete.
RUN python -c 'import gateway.app, psycopg, gateway.demo.installation, gateway.emulator.app, gateway.server' \
 && python -c 'import prometheus_client' \
 && python -c 'from gateway.cli import archive, audit, doctor, emulator, init, keys, limits, peers, policy' \
 && python -c 'from gateway.cli import rooms, usage, users, webhooks' \
 && if [ "$LOCK" = traces ]; then python -c 'from gateway.traces.recorder import admit_sdk as a; a(); import gateway.traces.export'; fi
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
CMD ["gateway", "serve"]
# Last, because each build has others. A test holds them in step with pyproject.toml.
ARG VERSION=0.2.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="hms-gateway" \
      org.opencontainers.image.description="An authenticated, rate-limited gateway in front of 100ms live video" \
      org.opencontainers.image.source="https://github.com/hms-gateway/hms-gateway" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
