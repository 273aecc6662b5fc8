//! Pausing and resuming, as an operator asks for it.

use std::time::SystemTime;

use tokio::sync::watch;

/// Since when consuming is to pause, if it is: one value for all routes of a process.
#[derive(Debug, Default)]
pub struct Steering(watch::Sender<Option<SystemTime>>);

/// Sees the wishes that come after it was made.
#[derive(Debug)]
pub struct SteeringReceiver(watch::Receiver<Option<SystemTime>>);

impl Steering {
    /// Has no effect on a worker that is paused.
    pub fn pause(&self, now: SystemTime) {
        self.set_paused(Some(now));
    }

    /// Has no effect on a worker that is not paused.
    pub fn resume(&self) {
        self.set_paused(None);
    }

    fn set_paused(&self, since: Option<SystemTime>) {
        self.0.send_if_modified(|paused_since| {
            let changes = paused_since.is_some() != since.is_some();
            if changes {
                *paused_since = since;
            }
            changes
        });
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

    /// Since when consuming is to pause.
    pub fn paused_since(&self) -> Option<SystemTime> {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_receiver_sees_what_is_wanted_after_it_was_made() {
        let (steering, now) = (Steering::default(), SystemTime::now());
        steering.pause(now);
        let mut receiver = steering.subscribe();
        assert!(receiver.changed().now_or_never().is_none());
        steering.pause(SystemTime::now());
        assert!(receiver.changed().now_or_never().is_none(), "it is already paused");
        assert_eq!(receiver.paused_since(), Some(now));
        steering.resume();
        assert!(receiver.changed().now_or_never().is_some() && receiver.paused_since().is_none());
        steering.resume();
        assert!(receiver.changed().now_or_never().is_none(), "it is not paused");
    }
}
