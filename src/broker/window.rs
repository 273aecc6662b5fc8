//! Owns the choice of the prefetch: AMQP 0-9-1 can only count messages, so a budget of bytes becomes a count, from the
//! sizes seen. Pure. Must not know consumers or channels.

/// How much more than the mean a message may weigh before the prefetch is too large for the budget.
const MARGIN: f64 = 2.0;
/// Most that the prefetch grows by in one step.
const GROWTH: u16 = 64;

/// The prefetch in force, and what speaks for another.
#[derive(Debug)]
pub struct Window {
    most: u16,
    budget: f64,
    current: u16,
    /// Exponentially weighted mean of what a message holds, body and document.
    mean: f64,
    /// Messages weighed so far.
    weighed: u32,
    /// Deliveries that got their outcome since the last change.
    settled: u32,
    /// Bytes in hand.
    held: usize,
}

impl Window {
    /// Starts so low that a first burst of messages of `largest` bytes, each held as body and as document, stays within
    /// `budget`; or at `few`.
    pub fn new(most: u16, budget: usize, largest: usize, few: Option<u16>) -> Self {
        let fitting = u16::try_from(budget / largest.max(1) / 2).unwrap_or(u16::MAX).clamp(1, most.max(1));
        let current = few.map_or(fitting, |few| few.clamp(1, most.max(1)));
        Window { most, budget: budget as f64, current, mean: 0.0, weighed: 0, settled: 0, held: 0 }
    }

    /// The prefetch in force.
    pub fn prefetch(&self) -> u16 {
        self.current
    }

    /// A message with a body of `bytes` has arrived.
    pub fn received(&mut self, bytes: usize) {
        self.weighed = self.weighed.saturating_add(1);
        self.mean += (bytes as f64 - self.mean) * self.weight();
        self.held += bytes;
    }

    /// The message that arrived last also holds a document of `bytes`.
    pub fn grew(&mut self, bytes: usize) {
        self.mean += bytes as f64 * self.weight();
        self.held += bytes;
    }

    fn weight(&self) -> f64 {
        1.0 / f64::from(self.weighed.clamp(1, 64))
    }

    /// `bytes` were let go.
    pub fn released(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// A delivery got its outcome.
    pub fn settled(&mut self) {
        self.settled = self.settled.saturating_add(1);
    }

    /// Bytes in hand.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The prefetch to change to, if it is worth a new consumer: half or less when the budget is overdrawn, up to
    /// 64-fold when a whole window of messages was small and went through. Few steps: what the broker had under way to a
    /// cancelled consumer comes again as redelivered, and counts towards the queue's delivery limit.
    pub fn wanted(&self) -> Option<u16> {
        if self.weighed == 0 {
            return None;
        }
        let fitting = (self.budget / (self.mean * MARGIN).max(1.0)).clamp(1.0, f64::from(self.most)) as u16;
        if self.held as f64 > self.budget {
            let lower = fitting.min(self.current / 2).max(1);
            return (lower < self.current).then_some(lower);
        }
        let higher = fitting.min(self.current.saturating_mul(GROWTH));
        (self.settled >= u32::from(self.current) && higher >= self.current.saturating_mul(2)).then_some(higher)
    }

    /// The consumer was changed to this prefetch.
    pub fn changed(&mut self, prefetch: u16) {
        self.current = prefetch;
        self.settled = 0;
    }

    /// Whether so much is in hand that only a new session helps: four times the budget, and more than one message.
    pub fn overflows(&self) -> bool {
        self.current > 1 && self.held as f64 > 4.0 * self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn grown(size: usize) -> Window {
        let mut window = Window::new(4096, 32 * MIB, 8 * MIB, None);
        for _ in 0..20_000 {
            window.received(size);
            window.grew(size);
            window.released(2 * size);
            window.settled();
            if let Some(prefetch) = window.wanted() {
                window.changed(prefetch);
            }
        }
        window
    }

    #[test]
    fn a_first_burst_fits_the_budget() {
        assert_eq!(Window::new(5000, 32 * MIB, 8 * MIB, None).prefetch(), 2);
        assert_eq!(Window::new(5000, 32 * MIB, 8 * MIB, Some(1)).prefetch(), 1);
        assert_eq!(Window::new(5000, 32 * MIB, 8 * MIB, Some(8)).prefetch(), 8, "after releases, more than a burst");
        assert_eq!(Window::new(3, 32 * MIB, 10, None).prefetch(), 3);
        assert_eq!(Window::new(5000, 10, 8 * MIB, None).prefetch(), 1);
    }

    #[test]
    fn grows_to_what_the_budget_holds() {
        assert_eq!(grown(300).prefetch(), 4096);
        assert_eq!(grown(0).prefetch(), 4096);
        assert_eq!(grown(MIB).prefetch(), 8);
        assert_eq!(grown(8 * MIB).prefetch(), 2);
    }

    #[test]
    fn shrinks_when_overdrawn_and_gives_up_far_beyond() {
        let mut window = grown(300);
        for _ in 0..40 {
            window.received(MIB);
        }
        let lower = window.wanted().unwrap();
        assert!(lower <= 2048);
        window.changed(lower);
        assert!(!window.overflows());
        for _ in 0..100 {
            window.received(MIB);
        }
        assert!(window.overflows());
        window.changed(1);
        assert_eq!((window.wanted(), window.overflows()), (None, false));
    }

    #[test]
    fn small_bodies_with_large_documents_do_not_grow_it_and_neither_do_messages_that_get_stuck() {
        let mut window = Window::new(4096, 32 * MIB, 8 * MIB, None);
        for _ in 0..10 {
            window.received(8 << 10);
            window.grew(8 * MIB);
            window.released(8 * MIB);
            window.settled();
        }
        assert_eq!(window.wanted(), None);
        let mut window = Window::new(4096, 32 * MIB, 8 * MIB, Some(1));
        (0..100).for_each(|_| window.received(300));
        assert_eq!(window.wanted(), None, "nothing went through");
    }

    #[test]
    fn a_single_large_message_changes_nothing() {
        let mut window = grown(300);
        window.received(8 * MIB);
        assert_eq!(window.wanted(), None);
    }
}
