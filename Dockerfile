# The version on which the tests run; the lock file fits every version from it on.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/pleo-proxy
WORKDIR /src
# First what changes seldom, so that it is built seldom.
# With the extras postgres, aws and otel.
COPY requirements-extras.lock ./
RUN /opt/pleo-proxy/bin/pip install --require-hashes -r requirements-extras.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN /opt/pleo-proxy/bin/pip install --no-deps --no-build-isolation . \
    && /opt/pleo-proxy/bin/pip uninstall --yes flit_core pip setuptools

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/pleo-proxy \
        --shell /usr/sbin/nologin pleo-proxy \
    && install -d -o pleo-proxy -g pleo-proxy -m 0700 /var/lib/pleo-proxy
COPY --from=build /opt/pleo-proxy /opt/pleo-proxy
# Loopback of a container is reachable by nobody, so both listeners are open here and the container's network is
# the fence: publish ports with care. These win over the configuration file.
ENV PATH=/opt/pleo-proxy/bin:$PATH \
    PLEO_PROXY__LISTEN__PROXY=0.0.0.0:8080 \
    PLEO_PROXY__LISTEN__ADMIN=0.0.0.0:8081
USER pleo-proxy
VOLUME /var/lib/pleo-proxy
EXPOSE 8080 8081
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/healthz', timeout=4)"]
# Exec form, so that SIGTERM reaches the proxy itself and it drains. Give it time: --stop-timeout 75.
ENTRYPOINT ["pleo-proxy"]
CMD ["serve"]
