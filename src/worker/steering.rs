//! Owns what an operator asks of a running worker: pausing, resuming, other settings. Must not know who asks, nor how.

use tokio::sync::watch;

/// What is wanted of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Wanted {
    paused: bool,
    /// How often the settings were replaced.
    replaced: u64,
}

/// What an operator wants, shared by those who ask and the flow.
#[derive(Debug, Default)]
pub struct Steering(watch::Sender<Wanted>);

/// Sees the wishes that come after it was made.
#[derive(Debug)]
pub struct SteeringReceiver(watch::Receiver<Wanted>);

impl Steering {
    /// Wants consuming to pause, or to go on; false if it does so already.
    pub fn set_paused(&self, paused: bool) -> bool {
        self.0.send_if_modified(|wanted| std::mem::replace(&mut wanted.paused, paused) != paused)
    }

    /// The settings were replaced: the next session uses them.
    pub fn settings_replaced(&self) {
        self.0.send_modify(|wanted| wanted.replaced += 1);
    }

    /// A receiver that has seen everything so far.
    pub fn subscribe(&self) -> SteeringReceiver {
        SteeringReceiver(self.0.subscribe())
    }
}

impl SteeringReceiver {
    /// Returns once something else is wanted than the receiver has seen: the session must end.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether consuming is to pause.
    pub fn is_paused(&self) -> bool {
        self.0.borrow().paused
    }

    /// Returns once consuming is not paused; everything until then is seen.
    pub async fn resumed(&mut self) {
        if self.0.wait_for(|wanted| !wanted.paused).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_receiver_sees_what_is_wanted_after_it_was_made() {
        let steering = Steering::default();
        assert!(steering.set_paused(true) && !steering.set_paused(true));
        let mut receiver = steering.subscribe();
        assert!(receiver.changed().now_or_never().is_none() && receiver.resumed().now_or_never().is_none());
        assert!(steering.set_paused(false));
        assert!(receiver.resumed().now_or_never().is_some());
        assert!(receiver.changed().now_or_never().is_none(), "resuming was seen");
        steering.settings_replaced();
        assert!(receiver.changed().now_or_never().is_some());
    }
}
