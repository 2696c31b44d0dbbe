# One image for the operator, the migration Jobs and the plugin. Every installed package is verified against a hash: uv by
# image/uv.txt, all others by uv.lock. Build it with `make image`, or with `docker build .`.
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=true PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY image/uv.txt image/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r image/uv.txt
COPY pyproject.toml uv.lock README.md ./
# Dependencies first: they change less often, and the layer is cached.
RUN UV_PROJECT_ENVIRONMENT=/opt/build /opt/uv/bin/uv sync --frozen --no-cache --only-group build \
 && UV_PROJECT_ENVIRONMENT=/opt/session-rollout /opt/uv/bin/uv sync --frozen --no-cache --no-default-groups --extra tracing --group image --no-install-project
COPY operator operator
# No bytecode for the models of the Kubernetes client: the operator never imports them.
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /tmp/wheel \
 && /opt/uv/bin/pip --python /opt/session-rollout/bin/python install --no-cache-dir --no-deps --no-index --no-compile /tmp/wheel/*.whl \
 && find /opt/session-rollout -type d -name tests -path '*/site-packages/*' -prune -exec rm -r {} + \
 && /opt/session-rollout/bin/python -m compileall -q --invalidation-mode unchecked-hash -x '/kubernetes/(aio/)?client/(api|models)/[a-z]' /opt/session-rollout/lib

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="session-rollout" \
      org.opencontainers.image.description="Kubernetes operator for progressive feature-flag rollouts with database migrations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/session-rollout /opt/session-rollout
ENV PATH=/opt/session-rollout/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["session-rollout-operator"]
