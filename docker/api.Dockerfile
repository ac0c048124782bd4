# The API, the migrations and the command line. No torch: a few hundred MB, and it starts in a second.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY core core
COPY worker worker
COPY migrations migrations
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.11-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
WORKDIR /opt/stillroom
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN python requirements.py > requirements.txt \
    && pip install --requirement requirements.txt --constraint constraints.txt
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps /wheel/*.whl

# The same user in both images: they share a home. A new volume takes over owner and mode from here.
RUN useradd --uid 10001 --create-home stillroom \
    && install --directory --owner stillroom --group stillroom --mode 700 /data
USER stillroom
WORKDIR /data
ENV STILLROOM_HOME=/data STILLROOM_HOST=0.0.0.0
VOLUME /data
EXPOSE 8400

# The process, not /readyz: an API without a worker still takes jobs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8400/healthz', timeout=4)"]
ENTRYPOINT ["stillroom"]
CMD ["api"]
