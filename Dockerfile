# One static binary, and nothing else in the image. deploy/image/build makes the same without Docker.
FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends musl-tools
WORKDIR /build
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
COPY benches benches
COPY tests tests
RUN target="$(uname -m)-unknown-linux-musl" \
 && rustup target add "$target" \
 && env "CC_$(echo "$target" | tr - _)=musl-gcc" cargo build --profile dist --locked --target "$target" --bin postern \
 && mv "target/$target/dist/postern" /postern

FROM scratch
COPY --from=build /postern /usr/local/bin/postern
LABEL org.opencontainers.image.title="Postern" \
      org.opencontainers.image.description="An authenticating, caching sidecar gateway for the Refold executions API" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/postern-gateway/postern"
USER 65532:65532
EXPOSE 8080 9180
# The admin listener's /healthz: a probe leaves no log line, no count and no error.
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s CMD ["/usr/local/bin/postern", "health", "--admin", "127.0.0.1:9180"]
ENTRYPOINT ["/usr/local/bin/postern"]
CMD ["serve", "--config", "/etc/postern/postern.toml"]
