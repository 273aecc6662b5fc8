//! Owns which route is counted and logged for: while code runs in a scope, every series that it touches has the label `queue` of the
//! route, and every line of the log names the route.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use ::metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit, with_local_recorder,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use tracing::{Span, error_span};

/// The recorder of the process.
pub(super) static RECORDER: OnceLock<Arc<PrometheusRecorder>> = OnceLock::new();

/// A scope. The default one, of the only route, changes nothing.
#[derive(Clone)]
pub struct RouteScope {
    /// None: the recorder of the process adds the queue.
    recorder: Option<Arc<QueueRecorder>>,
    span: Span,
}

impl Default for RouteScope {
    fn default() -> Self {
        RouteScope { recorder: None, span: Span::none() }
    }
}

impl RouteScope {
    /// The scope of the first of several routes, whose queue is that of the process.
    pub fn of_first_route(name: &str) -> Self {
        // Of the highest level, so that no filter of the log removes it.
        RouteScope { recorder: None, span: error_span!("route", route = name) }
    }

    /// The scope of a further route, with all its series. To be called after `install`.
    pub fn of_route(name: &str, queue: &str) -> Self {
        let recorder = |recorder| QueueRecorder { queue: queue.to_owned().into(), recorder: Arc::clone(recorder) };
        let recorder = RECORDER.get().map(recorder).map(Arc::new);
        let scope = RouteScope { recorder, ..RouteScope::of_first_route(name) };
        scope.enter(super::create_series);
        scope
    }

    /// Runs a function in the scope.
    pub fn enter<T>(&self, function: impl FnOnce() -> T) -> T {
        match &self.recorder {
            None => self.span.in_scope(function),
            Some(recorder) => with_local_recorder(recorder.as_ref(), || self.span.in_scope(function)),
        }
    }

    /// Runs a future in the scope, but not the tasks that it spawns.
    pub async fn run<T>(self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| self.enter(|| future.as_mut().poll(context))).await
    }
}

/// Adds the label `queue`, which replaces that of the process.
struct QueueRecorder {
    queue: SharedString,
    recorder: Arc<PrometheusRecorder>,
}

impl QueueRecorder {
    fn key(&self, key: &Key) -> Key {
        key.with_extra_labels(vec![Label::new("queue", self.queue.clone())])
    }
}

impl Recorder for QueueRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(&self.key(key), metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(&self.key(key), metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.recorder.register_histogram(&self.key(key), metadata)
    }
}
