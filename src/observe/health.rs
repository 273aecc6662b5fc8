//! Owns the state of the components that readiness depends on, and their problems. Written by the worker, read by the endpoints.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ticketlog_status::Component;

/// The problems of all components. Cheap to read and to write.
#[derive(Debug)]
pub struct Health {
    problems: Mutex<BTreeMap<Component, String>>,
    warnings: Mutex<BTreeMap<String, String>>,
}

impl Default for Health {
    /// Broker and store count as down until they have answered.
    fn default() -> Self {
        let starting = [Component::Broker, Component::Store].map(|component| (component, "starting".to_owned()));
        Health { problems: Mutex::new(starting.into()), warnings: Mutex::default() }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Component, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a component is up; true if it was not before.
    pub fn up(&self, component: Component) -> bool {
        self.lock().remove(&component).is_some()
    }

    /// Records the problem of a component, in words for an operator; true if it is a new one.
    pub fn down(&self, component: Component, problem: impl Into<String>) -> bool {
        let problem = problem.into();
        let before = self.lock().insert(component, problem.clone());
        before.is_none_or(|before| before != problem)
    }

    /// The problems by component; empty if ready.
    pub fn problems(&self) -> BTreeMap<Component, String> {
        self.lock().clone()
    }

    /// The problems as lines `component: problem`.
    pub fn problem_lines(&self) -> Vec<String> {
        self.lock().iter().map(|(component, problem)| format!("{}: {problem}", component.as_str())).collect()
    }

    /// Sets or removes a warning: what endangers messages but not readiness. True if it is a new one.
    pub fn set_warning(&self, subject: &str, warning: Option<String>) -> bool {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let before = warnings.remove(subject);
        let is_new = warning.is_some() && warning != before;
        warnings.extend(warning.map(|warning| (subject.to_owned(), warning)));
        is_new
    }

    /// The warnings.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether a component is up.
    pub fn is_up(&self, component: Component) -> bool {
        !self.lock().contains_key(&component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_not_ready_and_reports_only_changes() {
        let health = Health::default();
        assert_eq!(health.problems().len(), 2);
        assert!(health.up(Component::Store) && health.up(Component::Broker) && !health.up(Component::Broker));
        assert!(health.problems().is_empty());
        assert!(health.down(Component::Store, "gone") && !health.down(Component::Store, "gone"));
        assert!(health.down(Component::Store, "full"));
        assert!(!health.is_up(Component::Store) && health.is_up(Component::Breaker));
        assert_eq!(health.problem_lines(), ["store: full"]);
        assert!(health.set_warning("q", Some("w".into())) && !health.set_warning("q", Some("w".into())));
        assert_eq!(health.warnings(), ["w"]);
        assert!(!health.set_warning("q", None) && health.warnings().is_empty());
    }
}
