# One image for CPU and GPU hosts; docs/docker.md says how to run it.
#   docker build -t hookline .
#   without CUDA's libraries, for the CPU only; CPU_INDEX is the address of PyTorch's index of CPU wheels:
#   docker build -t hookline:cpu --build-arg PIP_EXTRA_INDEX_URL=$CPU_INDEX .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# without pip: nothing is installed in the image that runs
RUN python3 -m venv --without-pip /opt/hookline
WORKDIR /src
# what is needed changes seldom and is large: a layer of its own, which stays when only the source changes
COPY setup.py pyproject.toml ./
COPY hookline/__init__.py hookline/
RUN touch README.md && python3 -m pip --python /opt/hookline/bin/python install .
COPY . .
RUN python3 -m pip wheel --no-deps --wheel-dir /wheels . \
    && python3 -m pip --python /opt/hookline/bin/python install --no-deps --force-reinstall /wheels/*.whl

FROM ${BASE_IMAGE}
RUN useradd --uid 1000 --user-group --create-home --shell /usr/sbin/nologin hookline \
    && mkdir -p /data /cache /workspace/output \
    && chown -R hookline:hookline /cache /workspace \
    # another user (docker run --user, Kubernetes' runAsUser) may work here too
    && chmod 1777 /cache /workspace /workspace/output /home/hookline
COPY --from=build /opt/hookline /opt/hookline
# USER: what torch asks for where the user's number has no name. NVIDIA_*: for the NVIDIA container toolkit.
ENV PATH=/opt/hookline/bin:$PATH \
    HOME=/home/hookline \
    USER=hookline \
    PYTHONUNBUFFERED=1 \
    HOOKLINE_DATASETS=/data \
    XDG_CACHE_HOME=/cache \
    FVCORE_CACHE=/cache/fvcore \
    TORCH_HOME=/cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER hookline
# recipes write below ./output. No VOLUME: what is not mounted shall not be kept in nameless volumes
WORKDIR /workspace
# the exec form: SIGTERM reaches the trainer, which saves and leaves. `docker run IMAGE env` tells whether all is well.
ENTRYPOINT ["hookline"]
CMD ["--help"]
