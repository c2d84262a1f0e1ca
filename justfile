# `just` lists what there is.
_:
    @just --list

# The gateway with an embedded simulated Refold.
demo:
    cargo run --release

# All tests.
test:
    cargo test

# Everything that a change has to pass.
check:
    .ci/run

# Format the code.
format:
    cargo fmt --all

# The JSON Schema, after a setting was added or changed.
schema:
    cargo run --quiet -- schema > target/schema.json && mv target/schema.json config/postern.schema.json

# The side-by-side run on this machine (needs nginx and wrk).
compare *arguments:
    benches/compare {{ arguments }}
