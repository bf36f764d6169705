# dpmi in a container, in the versions of constraints.txt (tested with Python 3.11):
#   docker build -t dpmi .
# Runs write as you, into a folder that is yours; what may be used again is kept in the volume dpmi-cache:
#   mkdir -p outputs
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/outputs:/data/outputs" -v dpmi-cache:/cache \
#     dpmi mechanism=dpsgd beta=1
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/outputs:/data/outputs" -v dpmi-cache:/cache \
#     -v /path/to/images:/images:ro dpmi data=folder data.root=/images mechanism=dpsgd beta=1
# Other commands: docker run ... --entrypoint python dpmi -m dpmi.report
# The image takes 6.6 GB, most of it CUDA, which PyTorch's wheels bring. Without: docker build with
# --build-arg PIP_EXTRA_INDEX_URL=ADDRESS, that of PyTorch's index of wheels for CPUs.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 dpmi \
    && install -d -m 1777 /cache /data /data/outputs

ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY conf conf
COPY dpmi dpmi
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt . \
    && rm -rf /src/*

USER 1000
# A user given by --user has no name and no home of their own.
ENV DPMI_CACHE=/cache HOME=/cache USER=dpmi
WORKDIR /data
VOLUME ["/cache"]
ENTRYPOINT ["dpmi"]
CMD ["--help"]
