//! `postern simulate`: runs the simulated Refold alone; the demo uses its thread, too.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::output::{CommandError, print};
use super::shell::quoted;
use super::signals::Signals;
use crate::clock::Clock;
use crate::log_events;
use crate::simulator::{Simulator, SimulatorSettings};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Faults for all linked accounts, with `curl -X POST http://127.0.0.1:9090/simulate/FAULT`; `none` ends one:\n  latency=900ms, status=503, variant=404, html=502, empty=500, garbage, truncate, hang, reset, redirect\n  docs/operators.md has the others, under \"The simulated Refold\".\n\nExamples:\n  postern simulate\n  postern simulate --listen 127.0.0.1:9091 --seed 7 --unlimited"
)]
pub(super) struct SimulateArguments {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// Seed of the executions; equal seeds give equal executions.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Org API key that the simulated Refold accepts.
    #[arg(long, value_name = "KEY", default_value = "tk_simulated_org_key")]
    org_key: String,
    /// Switch off the published rate limit of 20 requests per second.
    #[arg(long)]
    unlimited: bool,
}

pub(super) fn run(arguments: &SimulateArguments) -> Result<(), CommandError> {
    let signals = Signals::register()?;
    let mut settings =
        SimulatorSettings { seed: arguments.seed, org_keys: vec![arguments.org_key.clone()], ..Default::default() };
    if arguments.unlimited {
        settings.rate = None;
    }
    let simulator = Simulator::new(settings, Clock::system());
    let address = start(simulator.clone(), arguments.listen)?;
    print(format_args!("A simulated Refold listens on http://{address}. Its linked accounts:"))?;
    for (id, executions) in simulator.linked_accounts() {
        print(format_args!("  {id:<24} {executions:>6} executions"))?;
    }
    print(format_args!(
        "\n  curl -s 'http://{address}/api/v2/public/execution?page=1&limit=10' \\\n    --header {} \\\n    --header 'linked_account_id: acme-1'\n\n{}",
        quoted(&format!("x-api-key: {}", arguments.org_key)),
        faults(address)
    ))?;
    signals.wait_for_termination();
    Ok(())
}

/// Instructions to make a simulated Refold fail.
pub(super) fn faults(address: SocketAddr) -> String {
    format!(
        r#"Make the simulated Refold fail, or slow, and end that:

  curl -X POST http://{address}/simulate/status=503
  curl -X POST http://{address}/simulate/latency=900ms
  curl -X POST http://{address}/simulate/none

A fault is for all linked accounts. Others: html=502, variant=404, empty=500, garbage, truncate, hang, reset, redirect;
docs/operators.md has them all, under "The simulated Refold"."#
    )
}

/// Starts a thread that serves a simulated Refold until the process ends, and returns the address that it listens on.
pub(super) fn start(simulator: Simulator, listen: SocketAddr) -> io::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind(listen)
        .map_err(|error| io::Error::new(error.kind(), format!("can't listen on {listen}: {error}")))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("simulator".to_owned()).spawn(move || {
        runtime.block_on(async {
            if let Err(error) = async { simulator.serve(TcpListener::from_std(socket)?).await }.await {
                tracing::error!(%error, message = log_events::SIMULATOR_FAILED);
            }
        });
    })?;
    Ok(address)
}
