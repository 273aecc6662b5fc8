//! Owns `ticketlog run`: the process around the worker, with its signals, endpoints and exit. Must not know the flow.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::time::SystemTime;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Loaded, Settings};
use crate::mongodb::{self, Failure, FailureClass, Store};
use crate::observe::health::{Component, Health};
use crate::observe::http::{self, HttpState};
use crate::observe::metrics::{self, FlowMetrics};
use crate::observe::status::RecentActivity;
use crate::observe::{admin, logging, systemd, traces};
use crate::worker::backoff::Backoff;
use crate::worker::{self, KnownCauses, SharedConcurrency, SharedSettings, Steering, TrustedUsers, WorkerContext};
use crate::{rabbitmq, system};

use super::steer::{Action, Steerer};
use super::{CommandError, ConfigArgs, exit};

pub(super) fn run(config: ConfigArgs, loaded: Loaded) -> Result<u8, CommandError> {
    logging::exit_on_panic();
    let settings = loaded.settings.clone();
    let _logging = logging::install(&settings.log).map_err(|error| CommandError::new(exit::CONFIG, error))?;
    super::block_on(serve(settings, Arc::new(Steerer::new(config, loaded))))
}

async fn serve(settings: Settings, steerer: Arc<Steerer>) -> Result<u8, CommandError> {
    rabbitmq::check_settings(&settings.broker)?;
    let ignored = mongodb::check_settings(&settings.store)?;
    if !ignored.is_empty() {
        warn!("store.uri has options that change nothing here: {}", ignored.join(", "));
    }
    let prometheus =
        metrics::install(&settings.broker.queue).map_err(|error| CommandError::new(exit::SOFTWARE, error))?;
    let traces = traces::install(&settings.telemetry).map_err(|error| CommandError::new(exit::CONFIG, error))?;
    let stop = CancellationToken::new();
    follow_signals(&stop, &steerer)?;
    let _admin = serve_admin(&settings, &steerer)?;
    let listen = settings.http.listen;
    let listener = http::bind(listen)
        .await
        .with_context(|| format!("cannot listen on http.listen = {listen}; is another worker running here?"))
        .map_err(|error| CommandError::new(exit::UNAVAILABLE, error))?;
    metrics::set_requeue_after(settings.retry.requeue_after.0);
    let health = Arc::new(Health::default());
    let recent = Arc::<RecentActivity>::default();
    let state = http_state(&settings, prometheus, &health, &recent);
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    info!(version = env!("CARGO_PKG_VERSION"), http = address, queue = settings.broker.queue, "starting");
    tokio::spawn(http::serve(listener, Arc::new(state)));
    systemd::notify_ready(&health);
    let Some(store) = open_store(&settings, &health, &stop).await? else { return Ok(0) };
    let context = Arc::new(worker_context(settings, store, (health, recent), stop));
    steerer.set_worker(Arc::clone(&context));
    tokio::select! {
        () = worker::run(Arc::clone(&context)) => {}
        () = shutdown_timeout(&context) => {
            warn!("shutdown.timeout has passed: exiting; unacknowledged messages are in the queue");
        }
    }
    if let Some(traces) = traces {
        traces.finish().await;
    }
    Ok(0)
}

fn worker_context(
    settings: Settings,
    store: Store,
    (health, recent): (Arc<Health>, Arc<RecentActivity>),
    stop: CancellationToken,
) -> WorkerContext {
    let own_user = rabbitmq::user_name(&settings.broker);
    WorkerContext {
        rules: Arc::new(settings.rules()),
        store,
        causes: KnownCauses::default(),
        health,
        recent,
        metrics: FlowMetrics::new(),
        stop,
        writes_in_flight: AtomicUsize::new(0),
        unknown_code: AtomicBool::new(false),
        stored: Arc::default(),
        concurrency: SharedConcurrency::new(&settings),
        highest_delivery_count: AtomicI64::new(0),
        trusted_users: TrustedUsers::new(own_user.into_iter().chain(settings.dead_letter.operators.clone()).collect()),
        worker_name: format!("{}/{}", system::host_name(), env!("CARGO_PKG_VERSION")),
        settings: SharedSettings::new(settings),
        steering: Steering::default(),
        has_session: AtomicBool::new(false),
    }
}

fn http_state(
    settings: &Settings,
    metrics: PrometheusHandle,
    health: &Arc<Health>,
    recent: &Arc<RecentActivity>,
) -> HttpState {
    HttpState {
        health: Arc::clone(health),
        metrics,
        recent: Arc::clone(recent),
        started: SystemTime::now(),
        queue: settings.broker.queue.clone(),
        collection: format!("{}.{}", settings.store.database, settings.store.collection),
    }
}

/// Returns `shutdown.timeout` after the process was asked to stop: something does not answer.
async fn shutdown_timeout(context: &WorkerContext) {
    context.stop.cancelled().await;
    systemd::notify_stopping();
    tokio::time::sleep(context.settings.get().shutdown.timeout.0).await;
}

/// Opens the store; none if the process is asked to stop first. Only a URI that can never work ends the process: a name
/// that cannot be resolved is an outage.
async fn open_store(settings: &Settings, health: &Health, stop: &CancellationToken) -> Result<Option<Store>, Failure> {
    let mut backoff = Backoff::new(settings.retry.initial.0, settings.retry.max.0);
    let concurrency = settings.write.concurrency;
    loop {
        match Store::open(&settings.store, concurrency, Some(metrics::set_store_connections)).await {
            Ok(store) => return Ok(Some(store)),
            Err(failure) if failure.class != FailureClass::Transient => return Err(failure),
            Err(failure) => {
                health.down(Component::Store, failure.to_string());
                warn!(kind = failure.label(), "waiting for MongoDB: {failure}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

fn serve_admin(settings: &Settings, steerer: &Arc<Steerer>) -> Result<Option<admin::AdminSocket>, CommandError> {
    if settings.admin.socket.is_empty() {
        return Ok(None);
    }
    let path = &settings.admin.socket;
    let (listener, socket) = admin::bind(Path::new(path))
        .with_context(|| format!("cannot listen on admin.socket = {path}"))
        .map_err(|error| CommandError::new(exit::UNAVAILABLE, error))?;
    let steerer = Arc::clone(steerer);
    let act = move |name: &str| Some(steerer.act(name.parse::<Action>().ok()?));
    tokio::spawn(admin::serve(listener, Arc::new(act)));
    Ok(Some(socket))
}

/// SIGUSR1 pauses, SIGUSR2 resumes, SIGHUP reloads. The first SIGTERM or SIGINT stops the worker in order. The second ends the process
/// at once, which loses nothing: unacknowledged messages are in the queue.
fn follow_signals(stop: &CancellationToken, steerer: &Arc<Steerer>) -> std::io::Result<()> {
    let kinds = [(SignalKind::user_defined1(), Action::Pause), (SignalKind::user_defined2(), Action::Resume)];
    for (kind, action) in kinds.into_iter().chain([(SignalKind::hangup(), Action::Reload)]) {
        let (mut signals, steerer) = (signal(kind)?, Arc::clone(steerer));
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // What is refused is logged.
                let _ = steerer.act(action);
            }
        });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                warn!("second signal: exiting at once");
                logging::flush();
                std::process::exit(0);
            }
            stop.cancel();
        }
    });
    Ok(())
}
