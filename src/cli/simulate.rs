//! `postern simulate`: the simulated Refold alone, and the thread that it runs in.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::signals::Signals;
use super::{Failure, print};
use crate::clock::Clock;
use crate::log_events;
use crate::simulator::{Settings, Simulator};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// Equal seeds give equal executions.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Org API key that it accepts.
    #[arg(long, value_name = "KEY", default_value = "tk_simulated_org_key")]
    org_key: String,
    /// Answer any number of requests, instead of the published 20 a second.
    #[arg(long)]
    unlimited: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let mut settings =
        Settings { seed: arguments.seed, org_keys: vec![arguments.org_key.clone()], ..Settings::default() };
    if arguments.unlimited {
        settings.rate = None;
    }
    let simulator = Simulator::new(settings, Clock::system());
    let address = start(simulator.clone(), arguments.listen)?;
    print(format_args!("A simulated Refold listens on http://{address}. Its linked accounts:"));
    for (id, executions) in simulator.linked_accounts() {
        print(format_args!("  {id:<24} {executions:>6} executions"));
    }
    print(format_args!(
        "\n  curl -s 'http://{address}/api/v2/public/execution?page=1&limit=10' \\\n    --header 'x-api-key: {}' \\\n    --header 'linked_account_id: acme-1'",
        arguments.org_key
    ));
    signals.wait();
    Ok(())
}

/// Serves a simulator from a thread of its own, as long as the process lives; tells where.
pub(super) fn start(simulator: Simulator, listen: SocketAddr) -> io::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind(listen)?;
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
