# The dashboard in a container, as a user without rights: docker build -t lsviz .
# For a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t lsviz:gpu .
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/lsviz
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt /src/
RUN /opt/lsviz/bin/pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" -r /src/requirements.txt
COPY . /src/
RUN /opt/lsviz/bin/pip install --no-cache-dir --no-deps /src

FROM ${BASE}
# gcc builds the kernel that counts exponents, once.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 lsviz \
 && install --directory --owner lsviz /runs
COPY --from=build /opt/lsviz /opt/lsviz
USER lsviz
ENV PATH=/opt/lsviz/bin:$PATH LSVIZ_RUNS=/runs PORT=8501
WORKDIR /home/lsviz
RUN lsviz doctor
VOLUME /runs
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/_stcore/health', timeout=4)"]
# A Hugging Face Space tells by which name it is reached.
CMD ["sh", "-c", "exec lsviz dash --no-browser --address 0.0.0.0 --port \"$PORT\" ${SPACE_HOST:+--host \"$SPACE_HOST\"}"]
