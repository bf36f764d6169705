# An image for CPUs with dpmi, in the versions of constraints.txt (tested with Python 3.11):
#   docker build -t dpmi .
#   docker run --rm -v "$PWD/outputs:/data/outputs" -v dpmi-cache:/cache dpmi mechanism=dpsgd beta=1
#   docker run --rm -v /path/to/images:/images:ro -v "$PWD/outputs:/data/outputs" -v dpmi-cache:/cache \
#     dpmi data=folder data.root=/images mechanism=dpsgd beta=1
# Other commands: docker run --rm --entrypoint python dpmi -m dpmi.report --help
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 dpmi \
    && install -d -o dpmi -g dpmi /cache /data /data/outputs

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY conf conf
COPY dpmi dpmi
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt . \
    && rm -rf /src/*

USER 1000
ENV DPMI_CACHE=/cache
WORKDIR /data
VOLUME ["/cache"]
ENTRYPOINT ["dpmi"]
CMD ["--help"]
