# Builds in one stage with Rust and a C compiler; the image contains only the binary and the C library.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
COPY benches benches
COPY tests tests
RUN cargo build --profile dist --locked --bin postern

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/dist/postern /usr/local/bin/postern
USER nonroot:nonroot
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s CMD ["/usr/local/bin/postern", "health", "127.0.0.1:8080"]
ENTRYPOINT ["/usr/local/bin/postern"]
CMD ["serve", "--config", "/etc/postern/postern.toml"]
