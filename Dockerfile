# A service over a folder of bundles: docker build -t recfast . && docker run --read-only --tmpfs /tmp -v ./models:/models:ro -p 127.0.0.1:8000:8000 recfast
# Another package index: --build-arg PIP_INDEX_URL=... (and PIP_EXTRA_INDEX_URL, such as one with builds of torch for processors only)
ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY . .
RUN python -m venv /opt/recfast
RUN /opt/recfast/bin/python -m pip install --no-cache-dir ".[serve]"

FROM ${PYTHON}
COPY --from=build /opt/recfast /opt/recfast
RUN install -d -o 10001 -g 10001 /models /events
# what is compiled and cached goes to /tmp, the only place besides /events that is written to
ENV PATH=/opt/recfast/bin:$PATH HOME=/tmp USER=recfast PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["recfast", "serve", "/models", "--watch", "--host", "0.0.0.0", "--port", "8000"]
