# The workbench in a container: JupyterLab, QEMU, and what builds kernels.
#   docker build -t acon_nb .
#   docker run --rm -p 127.0.0.1:8888:8888 -v acon_nb-cache:/home/workbench/.cache acon_nb
# JupyterLab prints its address with a token. --device /dev/kvm gives guests KVM; another command runs instead of it:
#   docker run --rm -v acon_nb-cache:/home/workbench/.cache -v "$PWD/reports:/home/workbench/acon_nb/reports" acon_nb make tour
ARG BASE=debian:13
FROM ${BASE}
# apt's lists stay: the kernel's source and the guests' packages are found in them.
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends ca-certificates git make \
 && useradd --create-home --shell /bin/bash --uid 1001 workbench
WORKDIR /home/workbench/acon_nb
COPY . .
RUN tools/setup.sh lab && mkdir -p reports /home/workbench/.cache && chown -R workbench: /home/workbench
USER workbench
ENV PATH=/home/workbench/acon_nb/.venv/bin:$PATH
EXPOSE 8888
CMD ["make", "lab", "LAB_ARGS=--ip=0.0.0.0 --no-browser"]
