# lwq's images. docker build --target server -t lwq-server . ; targets:
#   server      lwq-server
#   worker-cpu  lwq-worker
#   worker-cuda lwq-worker for NVIDIA GPUs; nothing else needs CUDA, or fetches it
#   lwqctl      the client alone
#   lwq         server, worker and client, for one user on one machine (the default)
# deploy/images/build.sh builds them with buildah, also where no registry is reachable.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS sources
WORKDIR /src
COPY scripts/install_packages.sh scripts/
RUN scripts/install_packages.sh
COPY . .

# --build-context build=DIR takes DIR/out, binaries that are there already, instead of this stage. What was compiled
# is kept beside the images, so that the next build compiles what has changed.
FROM sources AS build
RUN --mount=type=cache,target=/root/.cache/ccache export CCACHE_SLOPPINESS=pch_defines,time_macros && \
    scripts/build.sh release lwq-server lwq-worker lwqctl && mkdir /out && \
    strip --strip-unneeded -o /out/lwq-server build/release/bin/lwq-server && \
    strip --strip-unneeded -o /out/lwq-worker build/release/bin/lwq-worker && \
    strip --strip-unneeded -o /out/lwqctl build/release/bin/lwqctl && \
    strip --strip-unneeded -o /out/lwq-sentencepiece.so build/release/bin/lwq-sentencepiece.so

# The worker with the CUDA device, and of CUDA's libraries those that it opens. --build-context build-cuda=DIR as above.
FROM sources AS build-cuda
RUN scripts/install_cuda.sh /usr/local/cuda
RUN --mount=type=cache,target=/root/.cache/ccache export CCACHE_SLOPPINESS=pch_defines,time_macros && \
    CUDACXX=/usr/local/cuda/bin/nvcc scripts/build.sh release-cuda lwq-worker && mkdir -p /out/cuda && \
    strip --strip-unneeded -o /out/lwq-worker build/release-cuda/bin/lwq-worker && \
    strip --strip-unneeded -o /out/lwq-sentencepiece.so build/release-cuda/bin/lwq-sentencepiece.so && \
    scripts/install_cuda.sh --runtime /usr/local/cuda /out/cuda

# What all of them stand on: libraries, a user without rights, folders of its own.
FROM ${BASE} AS common
ARG VERSION=0.1.0
# The revision is given with --label: here it would have all packages installed anew at each commit.
LABEL org.opencontainers.image.title="lwq" \
      org.opencontainers.image.description="Quantizes language models to a memory budget" \
      org.opencontainers.image.version="${VERSION}"
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libgrpc++1.51 libspdlog1.10 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/* && \
    useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin lwq && \
    install -d -o lwq -g lwq /data /run/lwq
COPY deploy/images/healthy /usr/local/bin/
ENV HOME=/data
WORKDIR /data

FROM common AS server
RUN apt-get update && \
    apt-get install -y --no-install-recommends libsqlite3-0 libpq5 libcurl4 \
      libprometheus-cpp-core1.0 libcivetweb1 openssl && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/* && \
    install -d -o lwq -g lwq /authority /tls/server /tls/worker /tls/user
COPY --from=build /out/lwq-server /usr/local/bin/
# The step of docker-compose.yml that makes credentials is this image too.
COPY deploy/kubernetes/make_credentials.sh /usr/local/bin/make_credentials
USER 10001:10001
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["healthy", "9464"]
ENTRYPOINT ["lwq-server"]
CMD ["--listen", "unix:/run/lwq/server.sock", "--data-dir", "/data", "--metrics-listen", "0.0.0.0:9464", \
     "--log-format", "json"]

FROM common AS worker
RUN apt-get update && \
    apt-get install -y --no-install-recommends libdnnl2 libopenblas0-pthread libhwy1 libgomp1 ocl-icd-libopencl1 \
      libsentencepiece0 libpcre2-8-0 libprometheus-cpp-core1.0 libcivetweb1 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/*
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["healthy", "9464"]
ENTRYPOINT ["lwq-worker"]
CMD ["--server", "unix:/run/lwq/server.sock", "--work-dir", "/data", "--metrics-listen", "0.0.0.0:9464", \
     "--log-format", "json"]

FROM worker AS worker-cpu
COPY --from=build /out/lwq-worker /out/lwq-sentencepiece.so /usr/local/bin/
USER 10001:10001

# Runs where NVIDIA's container toolkit brings the driver in; it says which GPU in --device=cuda:N.
FROM worker AS worker-cuda
COPY --from=build-cuda /out/cuda /usr/local/cuda/lib
RUN echo /usr/local/cuda/lib > /etc/ld.so.conf.d/cuda.conf && ldconfig
COPY --from=build-cuda /out/lwq-worker /out/lwq-sentencepiece.so /usr/local/bin/
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

FROM common AS lwqctl
RUN apt-get update && \
    apt-get install -y --no-install-recommends libcurl4 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/*
COPY --from=build /out/lwqctl /usr/local/bin/
USER 10001:10001
ENV LWQ_SERVER=unix:/run/lwq/server.sock
ENTRYPOINT ["lwqctl"]
CMD ["help"]

FROM worker-cpu AS lwq
USER root
RUN apt-get update && \
    apt-get install -y --no-install-recommends libsqlite3-0 libpq5 libcurl4 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/*
COPY --from=build /out/lwq-server /out/lwqctl /usr/local/bin/
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["lwqctl"]
CMD ["help"]
