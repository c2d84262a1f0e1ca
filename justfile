# Lists the recipes.
_:
    @just --list

# Start the gateway with an embedded simulated Refold.
demo:
    cargo run -- demo

# Format the code.
fmt:
    cargo fmt --all

# Run clippy on everything; warnings are errors.
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Build the documentation of all items, private ones included; warnings are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Run all tests, or those that the arguments name: `just test --lib cache`, `just test --test it drain`.
test *args:
    cargo test --locked {{ args }}

# Check the shape of the code: `just house-rules --only circles src/cache`.
house-rules *args:
    .ci/house-rules {{ args }}

# Run every check that needs no network.
check: && lint doc house-rules test
    cargo fmt --all --check
    .ci/house-rules --self-test

# Run every check that a change has to pass; downloads the tools that are missing.
ci:
    .ci/run

# Run what is too slow for every change, or the named steps of it: `just full prism`, `just full --list`.
full *args:
    .ci/full {{ args }}

# Fuzz for so many seconds a target, or only the named targets: `just fuzz 600 tokens queries`.
fuzz seconds="600" *targets:
    FUZZ_SECONDS={{ seconds }} FUZZ_TARGETS="{{ targets }}" .ci/full.d/fuzz

# Run concurrent code under a scheduler that tries interleavings, and flawed copies of it, which have to be caught.
interleavings *flaws:
    .ci/full.d/interleavings {{ flaws }}

# Write the software bill of materials (CycloneDX) to target/postern.cdx.json.
sbom:
    PATH="$(.ci/cargo-tools cargo-cyclonedx@0.5.9):$PATH" cargo cyclonedx --format json --spec-version 1.5 --target all
    mv postern.cdx.json target/

# Measure Postern beside nginx, haproxy and Varnish, for about ten minutes; with --write into BENCHMARKS.md.
bench *args:
    benches/compare/run {{ args }}

# Run the load experiment with 1,000 dashboards; takes about four minutes. The arguments pick variants.
load *args:
    cargo bench --bench load -- table {{ args }}

# Reload, replace and drain a gateway under traffic; no request may fail.
rollout *args:
    cargo build --release --locked
    benches/rollout {{ args }}

# Send SIGTERM to a gateway with thousands of open connections; it has to end in time and cut no answer off.
drain *args:
    cargo build --release --locked
    benches/drain {{ args }}

# Open 10,000 connections that send or read slowly; callers have to be served as before, within the memory bound.
strangers *args:
    cargo build --release --locked
    benches/strangers {{ args }}

# Run a gateway for an hour, or so many minutes, with faults, reloads, strangers and webhooks: `just soak --minutes 20`.
soak *args:
    cargo build --release --locked
    benches/soak {{ args }}

# Measure hits, memory and capacity with many accounts, tenants, entries and connections (needs nginx).
scale *args:
    cargo build --profile dist --locked
    benches/scale {{ args }}

# Start one to eight replicas on a real Redis, break it in every way, and print what the upstream saw (needs redis-server).
fleet *args:
    cargo build --release --locked
    benches/fleet/run {{ args }}

# Write the JSON Schema anew, after a setting was added or changed.
schema:
    cargo run --quiet -- schema > target/schema.json && mv target/schema.json config/postern.schema.json
