//! The simulated Refold of one variant, in a runtime of its own, so that it can be killed with all its connections and come
//! back at the same address.

use std::net::SocketAddr;

use postern::clock::Clock;
use postern::simulator::{Settings, Simulator};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::Failure;

pub(crate) const ORG_KEY: &str = "tk_load";

pub(crate) struct Refold {
    pub(crate) simulator: Simulator,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl Refold {
    pub(crate) fn start(clock: &Clock) -> Result<Self, Failure> {
        let settings = Settings { org_keys: vec![ORG_KEY.to_owned()], ..Settings::default() };
        let simulator = Simulator::new(settings, clock.clone());
        let mut refold = Self { simulator, address: SocketAddr::from(([127, 0, 0, 1], 0)), stop: None };
        refold.revive()?;
        Ok(refold)
    }

    pub(crate) fn revive(&mut self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (simulator, address) = (self.simulator.clone(), self.address);
        let (stop, stopped) = oneshot::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        // The runtime ends with the thread, and every connection with the runtime.
        std::thread::spawn(move || {
            runtime.block_on(async {
                let serving = async {
                    let listener = TcpListener::bind(address).await?;
                    let _ = sender.send(listener.local_addr()?);
                    simulator.serve(listener).await
                };
                tokio::select! {
                    _ = serving => {}
                    _ = stopped => {}
                }
            });
        });
        self.address = receiver.recv()?;
        self.stop = Some(stop);
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for Refold {
    fn drop(&mut self) {
        self.kill();
    }
}
