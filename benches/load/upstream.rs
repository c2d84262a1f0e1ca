//! The simulated Refold of one variant. It has a runtime of its own, so that it can be stopped with all its connections and
//! restarted at the same address.

use std::net::SocketAddr;

use postern::clock::Clock;
use postern::simulator::{Simulator, SimulatorSettings};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::BenchError;

pub(crate) const ORG_KEY: &str = "tk_load";

pub(crate) struct SimulatedUpstream {
    pub(crate) simulator: Simulator,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl SimulatedUpstream {
    pub(crate) fn start(clock: &Clock) -> Result<Self, BenchError> {
        let settings = SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], ..SimulatorSettings::default() };
        let simulator = Simulator::new(settings, clock.clone());
        let mut upstream = Self { simulator, address: SocketAddr::from(([127, 0, 0, 1], 0)), stop: None };
        upstream.restart()?;
        Ok(upstream)
    }

    /// Starts serving at the address of the last start; the first start picks a port.
    pub(crate) fn restart(&mut self) -> Result<(), BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (simulator, address) = (self.simulator.clone(), self.address);
        let (stop, stopped) = oneshot::channel();
        let (bound_sender, bound) = std::sync::mpsc::channel();
        // The end of the thread drops the runtime, which closes every connection.
        std::thread::spawn(move || {
            runtime.block_on(async {
                let serving = async {
                    let listener = TcpListener::bind(address).await?;
                    let _ = bound_sender.send(listener.local_addr()?);
                    simulator.serve(listener).await
                };
                tokio::select! {
                    _ = serving => {}
                    _ = stopped => {}
                }
            });
        });
        self.address = bound.recv()?;
        self.stop = Some(stop);
        Ok(())
    }

    /// Closes the listener and all connections.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for SimulatedUpstream {
    fn drop(&mut self) {
        self.stop();
    }
}
