//! Owns what an operator asks of a running worker: pausing, resuming, other settings. Must not know who asks, nor how.

use std::time::SystemTime;

use tokio::sync::watch;

/// What is wanted of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Wanted {
    paused_since: Option<SystemTime>,
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
    /// Wants consuming to pause; false if it does so already.
    pub fn pause(&self, now: SystemTime) -> bool {
        self.set_paused(Some(now))
    }

    /// Wants consuming to go on; false if it is not paused.
    pub fn resume(&self) -> bool {
        self.set_paused(None)
    }

    fn set_paused(&self, since: Option<SystemTime>) -> bool {
        self.0.send_if_modified(|wanted| {
            let changes = wanted.paused_since.is_some() != since.is_some();
            if changes {
                wanted.paused_since = since;
            }
            changes
        })
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
    /// Returns once something else is wanted than the receiver has seen.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Since when consuming is to pause, if it is.
    pub fn paused_since(&self) -> Option<SystemTime> {
        self.0.borrow().paused_since
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_receiver_sees_what_is_wanted_after_it_was_made() {
        let (steering, now) = (Steering::default(), SystemTime::now());
        assert!(steering.pause(now) && !steering.pause(now));
        let mut receiver = steering.subscribe();
        assert!(receiver.changed().now_or_never().is_none());
        assert_eq!(receiver.paused_since(), Some(now));
        assert!(steering.resume() && !steering.resume());
        assert!(receiver.changed().now_or_never().is_some() && receiver.paused_since().is_none());
        steering.settings_replaced();
        assert!(receiver.changed().now_or_never().is_some());
        assert!(!steering.resume() && receiver.changed().now_or_never().is_none());
    }
}
