//! Owns the choice of the prefetch. AMQP 0-9-1 limits unacknowledged messages by count, so a budget of bytes becomes a count, from the
//! message sizes seen. Pure.

/// How much heavier than the mean a message may be before the prefetch is too high for the budget.
const SIZE_MARGIN: f64 = 2.0;
/// Largest factor by which the prefetch grows in one step.
const MAX_GROWTH: u16 = 64;
/// Number of messages over which the mean size is taken.
const MEAN_OVER: u32 = 64;
/// At this multiple of the budget the session must end.
const OVERFLOW: f64 = 4.0;

/// The prefetch in force, and what is known for choosing the next one.
#[derive(Debug)]
pub struct Prefetch {
    max: u16,
    budget_bytes: f64,
    current: u16,
    /// Exponentially weighted mean of the bytes of a message: body, headers, texts and document.
    mean_bytes: f64,
    messages_seen: u32,
    /// Deliveries settled since the last change.
    settled: u32,
    bytes_in_flight: usize,
}

impl Prefetch {
    /// Starts with `initial`, or else so low that a first burst of messages of `max_message_bytes`, each held as body and as
    /// document, stays within `budget_bytes`. At least 1, at most `max`.
    pub fn new(max: u16, budget_bytes: usize, max_message_bytes: usize, initial: Option<u16>) -> Self {
        let fitting = u16::try_from(budget_bytes / max_message_bytes.max(1) / 2).unwrap_or(u16::MAX);
        let current = initial.unwrap_or(fitting).clamp(1, max.max(1));
        Prefetch {
            max,
            budget_bytes: budget_bytes as f64,
            current,
            mean_bytes: 0.0,
            messages_seen: 0,
            settled: 0,
            bytes_in_flight: 0,
        }
    }

    pub fn current(&self) -> u16 {
        self.current
    }

    /// A message of `bytes` has arrived.
    pub fn received(&mut self, bytes: usize) {
        self.messages_seen = self.messages_seen.saturating_add(1);
        self.mean_bytes += (bytes as f64 - self.mean_bytes) * self.weight();
        self.bytes_in_flight += bytes;
    }

    /// The message that arrived last also holds a document of `bytes`.
    pub fn document_added(&mut self, bytes: usize) {
        self.mean_bytes += bytes as f64 * self.weight();
        self.bytes_in_flight += bytes;
    }

    fn weight(&self) -> f64 {
        1.0 / f64::from(self.messages_seen.clamp(1, MEAN_OVER))
    }

    pub fn freed(&mut self, bytes: usize) {
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(bytes);
    }

    /// A message holds `to` bytes instead of `from`.
    pub fn resized(&mut self, from: usize, to: usize) {
        self.bytes_in_flight = (self.bytes_in_flight + to).saturating_sub(from);
    }

    pub fn settled(&mut self) {
        self.settled = self.settled.saturating_add(1);
    }

    /// Bytes of messages and documents in flight.
    pub fn bytes_in_flight(&self) -> usize {
        self.bytes_in_flight
    }

    /// The prefetch to change to, if the change is worth a new consumer: half or less when the budget is exceeded; up to
    /// 64-fold when a whole prefetch of messages was settled and the messages are small. Few steps, because messages that
    /// the broker has sent to a cancelled consumer are delivered again, and count towards the queue's delivery limit.
    pub fn target(&self) -> Option<u16> {
        if self.messages_seen == 0 {
            return None;
        }
        let fitting = self.budget_bytes / (self.mean_bytes * SIZE_MARGIN).max(1.0);
        let fitting = fitting.clamp(1.0, f64::from(self.max)) as u16;
        if self.bytes_in_flight as f64 > self.budget_bytes {
            let lower = fitting.min(self.current / 2).max(1);
            return (lower < self.current).then_some(lower);
        }
        let higher = fitting.min(self.current.saturating_mul(MAX_GROWTH));
        (self.settled >= u32::from(self.current) && higher >= self.current.saturating_mul(2)).then_some(higher)
    }

    /// The consumer was replaced by one with this prefetch.
    pub fn changed(&mut self, prefetch: u16) {
        self.current = prefetch;
        self.settled = 0;
    }

    /// Whether enough bytes are in flight for the session to end: four times the budget, and more than one message.
    pub fn overflows(&self) -> bool {
        self.current > 1 && self.bytes_in_flight as f64 > OVERFLOW * self.budget_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn grown(size: usize) -> Prefetch {
        let mut prefetch = Prefetch::new(4096, 32 * MIB, 8 * MIB, None);
        for _ in 0..20_000 {
            prefetch.received(size);
            prefetch.document_added(size);
            prefetch.freed(2 * size);
            prefetch.settled();
            if let Some(target) = prefetch.target() {
                prefetch.changed(target);
            }
        }
        prefetch
    }

    #[test]
    fn a_first_burst_fits_the_budget() {
        assert_eq!(Prefetch::new(5000, 32 * MIB, 8 * MIB, None).current(), 2);
        assert_eq!(Prefetch::new(5000, 32 * MIB, 8 * MIB, Some(1)).current(), 1);
        assert_eq!(
            Prefetch::new(5000, 32 * MIB, 8 * MIB, Some(8)).current(),
            8,
            "an initial prefetch may exceed the first burst"
        );
        assert_eq!(Prefetch::new(3, 32 * MIB, 10, None).current(), 3);
        assert_eq!(Prefetch::new(5000, 10, 8 * MIB, None).current(), 1);
    }

    #[test]
    fn grows_to_what_fits_the_budget() {
        assert_eq!(grown(300).current(), 4096);
        assert_eq!(grown(0).current(), 4096);
        assert_eq!(grown(MIB).current(), 8);
        assert_eq!(grown(8 * MIB).current(), 2);
    }

    #[test]
    fn shrinks_when_the_budget_is_exceeded_and_overflows_far_beyond() {
        let mut prefetch = grown(300);
        for _ in 0..40 {
            prefetch.received(MIB);
        }
        let lower = prefetch.target().unwrap();
        assert!(lower <= 2048);
        prefetch.changed(lower);
        assert!(!prefetch.overflows());
        for _ in 0..100 {
            prefetch.received(MIB);
        }
        assert!(prefetch.overflows());
        prefetch.changed(1);
        assert_eq!((prefetch.target(), prefetch.overflows()), (None, false));
    }

    #[test]
    fn large_documents_and_unsettled_messages_do_not_grow_it() {
        let mut prefetch = Prefetch::new(4096, 32 * MIB, 8 * MIB, None);
        for _ in 0..10 {
            prefetch.received(8 << 10);
            prefetch.document_added(8 * MIB);
            prefetch.freed(8 * MIB);
            prefetch.settled();
        }
        assert_eq!(prefetch.target(), None);
        let mut prefetch = Prefetch::new(4096, 32 * MIB, 8 * MIB, Some(1));
        (0..100).for_each(|_| prefetch.received(300));
        assert_eq!(prefetch.target(), None, "nothing was settled");
    }

    #[test]
    fn a_single_large_message_changes_nothing() {
        let mut prefetch = grown(300);
        prefetch.received(8 * MIB);
        assert_eq!(prefetch.target(), None);
    }
}
