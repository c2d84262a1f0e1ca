//! Waiting for a condition that another task or process brings about.

use std::time::Duration;

/// The longest time that a test waits for anything.
const BOUND: Duration = Duration::from_secs(30);
/// Polls without a pause before the waiting task leaves the processor to others.
const EAGER_POLLS: u32 = 200;

/// The result of a future that ends soon.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("it ends within the bound")
}

/// Waits until a condition holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    within(async {
        let mut polls = 0;
        while !condition() {
            pause(&mut polls).await;
        }
    })
    .await;
}

/// Waits until a condition holds that takes requests to find out.
pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    within(async {
        let mut polls = 0;
        while !condition().await {
            pause(&mut polls).await;
        }
    })
    .await;
}

async fn pause(polls: &mut u32) {
    *polls += 1;
    if *polls < EAGER_POLLS {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lets time pass, in randomised runs whose faults last for a while.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
