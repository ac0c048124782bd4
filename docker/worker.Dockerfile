# A worker of one device. torch's wheels bring CUDA's libraries, cuBLAS and cuDNN among them, and the host's
# container runtime brings the driver and nvidia-smi: a CUDA base would be gigabytes of the same again.
# On a host without a card it computes on the CPU.

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
RUN python requirements.py worker > requirements.txt \
    && pip install --requirement requirements.txt --constraint constraints.txt
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps /wheel/*.whl

# The same user in both images: they share a home. A new volume takes over owner and mode from here.
RUN useradd --uid 10001 --create-home stillroom \
    && install --directory --owner stillroom --group stillroom --mode 700 /data
USER stillroom
WORKDIR /data
# Of the driver: CUDA, and nvidia-smi, by which a worker finds its card.
ENV STILLROOM_HOME=/data NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /data

# No HEALTHCHECK: that a worker lives, its beats in the database tell, to /readyz and `stillroom workers`.
ENTRYPOINT ["stillroom"]
CMD ["worker", "--device", "cuda:0"]
