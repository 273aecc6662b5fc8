//! Owns `ticketlog run`: the process around the worker, with its signals, endpoints and exit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::mongodb::{self, Failure, FailureClass, PoolListener, Store};
use crate::observe::http::{self, HttpState, RouteState};
use crate::observe::metrics::{self, FlowMetrics, RouteScope};
use crate::observe::{logging, systemd, traces};
use crate::worker::backoff::Backoff;
use crate::worker::{self, KnownCauses, Steering, TrustedUsers, WorkerContext};
use ticketlog_config::system;
use ticketlog_config::{RouteSettings, Settings};
use ticketlog_contract::Contract;
use ticketlog_rabbitmq as rabbitmq;
use ticketlog_status::Component;

use super::{CommandError, ConfigArgs, exit};

pub(super) fn run(config: &ConfigArgs, early: Early) -> Result<u8, CommandError> {
    let Early { runtime, signals } = early;
    let mut loaded = config.read()?;
    let routes = config.select(&mut loaded)?;
    let _logging = logging::install(&loaded.settings.log).map_err(|error| CommandError::new(exit::CONFIG, error))?;
    loaded.ignored_variables.iter().for_each(|name| warn!("{}", super::ignored_variable(name)));
    super::block_on_runtime(runtime, serve(&loaded.settings, routes, signals))
}

/// What a worker has before it reads its configuration.
pub(super) struct Early {
    runtime: Runtime,
    signals: Signals,
}

impl Early {
    /// # Errors
    /// The system refuses what the runtime needs, or a handler.
    pub fn new() -> std::io::Result<Self> {
        rabbitmq::reserve_runtime();
        let runtime = super::runtime()?;
        let signals = {
            let _context = runtime.enter();
            Signals::new()?
        };
        Ok(Early { runtime, signals })
    }
}

async fn serve(settings: &Settings, routes: Vec<RouteSettings>, signals: Signals) -> Result<u8, CommandError> {
    let Some(first_queue) = routes.first().map(|route| route.queue.clone()) else { return Ok(0) };
    let shutdown = settings.shutdown.timeout.0;
    rabbitmq::check_settings(&settings.broker)?;
    let ignored = mongodb::check_settings(&settings.store)?;
    if !ignored.is_empty() {
        warn!("store.uri has options that change nothing here: {}", ignored.join(", "));
    }
    let prometheus = metrics::install(&first_queue).map_err(|error| CommandError::new(exit::SOFTWARE, error))?;
    let traces = traces::install(&settings.telemetry).map_err(|error| CommandError::new(exit::CONFIG, error))?;
    let (stop, steering) = (CancellationToken::new(), Arc::default());
    follow_signals(signals, &stop, &steering);
    let listen = settings.http.listen;
    let listener = http::bind(listen)
        .await
        .with_context(|| format!("cannot listen on http.listen = {listen}; is another worker running here?"))
        .map_err(|error| CommandError::new(exit::UNAVAILABLE, error))?;
    let states: Vec<RouteState> =
        routes.iter().enumerate().map(|(at, route)| route_state(route, at, routes.len())).collect();
    let contract = Contract::new(routes.iter().map(RouteSettings::contract).collect());
    show(listener, prometheus, states.clone(), &contract);
    let Some(contexts) = open_routes(routes, &states, &stop, &steering).await? else { return Ok(0) };
    tokio::select! {
        () = run_routes(&contexts) => {}
        () = shutdown_timeout(&stop, shutdown) => {
            warn!("shutdown.timeout has passed: exiting; unacknowledged messages are in the queue");
        }
    }
    if let Some(traces) = traces {
        traces.finish().await;
    }
    Ok(0)
}

/// Serves the endpoints, and tells systemd that the process has started.
fn show(listener: TcpListener, metrics: PrometheusHandle, routes: Vec<RouteState>, contract: &Contract) {
    let http = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    for route in &routes {
        let (version, queue) = (env!("CARGO_PKG_VERSION"), &route.queue);
        route.scope.enter(|| info!(version, http, queue, "starting"));
    }
    systemd::notify_ready(routes.clone());
    let contract = format!("{:#}\n", contract.to_json(false));
    let state = HttpState { metrics, started: SystemTime::now(), contract, routes };
    tokio::spawn(http::serve(listener, Arc::new(state)));
}

/// Runs the routes beside each other on this thread, until all have stopped.
async fn run_routes(contexts: &[Arc<WorkerContext>]) {
    let run = |context: &Arc<WorkerContext>| context.scope.clone().run(worker::run(Arc::clone(context)));
    contexts.iter().map(run).collect::<FuturesUnordered<_>>().collect::<()>().await;
}

/// What is shown of a route. The first one is counted as the process is.
fn route_state(settings: &RouteSettings, at: usize, count: usize) -> RouteState {
    let (name, queue) = (&settings.name, &settings.queue);
    let scope = match at {
        0 if count == 1 => RouteScope::default(),
        0 => RouteScope::of_first_route(name),
        _ => RouteScope::of_route(name, queue),
    };
    scope.enter(|| metrics::set_requeue_after(settings.retry.requeue_after.0));
    RouteState {
        name: name.clone(),
        queue: queue.clone(),
        collection: format!("{}.{}", settings.store.database, settings.collection),
        health: Arc::default(),
        recent: Arc::default(),
        metrics: Arc::new(scope.enter(FlowMetrics::new)),
        scope,
    }
}

/// Opens the stores; `None` if the process is asked to stop first.
async fn open_routes(
    routes: Vec<RouteSettings>,
    states: &[RouteState],
    stop: &CancellationToken,
    steering: &Arc<Steering>,
) -> Result<Option<Vec<Arc<WorkerContext>>>, Failure> {
    let mut contexts = Vec::new();
    for (settings, state) in routes.into_iter().zip(states) {
        let opened = state.scope.clone().run(open_store(&settings, state, stop)).await?;
        let Some(store) = opened else { return Ok(None) };
        let steering = Arc::clone(steering);
        contexts.push(Arc::new(worker_context(settings, store, state.clone(), stop.clone(), steering)));
    }
    Ok(Some(contexts))
}

fn worker_context(
    settings: RouteSettings,
    store: Store,
    state: RouteState,
    stop: CancellationToken,
    steering: Arc<Steering>,
) -> WorkerContext {
    let own_user = rabbitmq::user_name(&settings.broker);
    WorkerContext {
        rules: Arc::new(settings.rules()),
        store,
        causes: KnownCauses::default(),
        health: state.health,
        recent: state.recent,
        metrics: state.metrics,
        scope: state.scope,
        stop,
        writes_in_flight: AtomicUsize::new(0),
        unknown_code: AtomicBool::new(false),
        stored: Arc::default(),
        highest_delivery_count: AtomicI64::new(0),
        trusted_users: TrustedUsers::new(own_user.into_iter().chain(settings.dead_letter.operators.clone()).collect()),
        worker_name: format!("{}/{}", system::host_name(), env!("CARGO_PKG_VERSION")),
        settings,
        steering,
        has_session: AtomicBool::new(false),
    }
}

/// Returns `shutdown.timeout` after the process was asked to stop: something does not answer.
async fn shutdown_timeout(stop: &CancellationToken, timeout: Duration) {
    stop.cancelled().await;
    systemd::notify_stopping();
    tokio::time::sleep(timeout).await;
}

/// Opens the store; `None` if the process is asked to stop first. Only a URI that can never work ends the process: a name
/// that cannot be resolved is an outage.
async fn open_store(
    settings: &RouteSettings,
    state: &RouteState,
    stop: &CancellationToken,
) -> Result<Option<Store>, Failure> {
    let mut backoff = Backoff::new(settings.retry.initial.0, settings.retry.max.0);
    let scope = state.scope.clone();
    let listener: PoolListener =
        Arc::new(move |name, connections| scope.enter(|| metrics::set_store_connections(name, connections)));
    loop {
        match Store::open(settings, settings.write.concurrency, Some(Arc::clone(&listener))).await {
            Ok(store) => return Ok(Some(store)),
            Err(failure) if failure.class != FailureClass::Transient => return Err(failure),
            Err(failure) => {
                state.health.down(Component::Store, failure.to_string());
                warn!(kind = failure.label(), "waiting for MongoDB: {failure}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// The signals that a worker follows. From when they are made, none of them ends the process, and none is lost.
pub(super) struct Signals {
    pause: Signal,
    resume: Signal,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// # Errors
    /// The system refuses a handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals {
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// SIGUSR1 pauses, SIGUSR2 resumes. The first SIGTERM, SIGINT or SIGHUP stops the worker gracefully. A further SIGTERM or SIGINT ends the
/// process at once, which loses nothing: unacknowledged messages are in the queue.
fn follow_signals(signals: Signals, stop: &CancellationToken, steering: &Arc<Steering>) {
    let Signals { mut pause, mut resume, mut terminate, mut interrupt, mut hang_up } = signals;
    let steering = Arc::clone(steering);
    tokio::spawn(async move {
        loop {
            // Which of two signals at one moment came first is not known. Pausing is the safe side, so it comes last.
            tokio::select! {
                biased;
                _ = resume.recv() => {
                    info!("SIGUSR2: resuming");
                    steering.resume();
                }
                _ = pause.recv() => {
                    info!("SIGUSR1: pausing");
                    steering.pause(SystemTime::now());
                }
            }
        }
    });
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            // A terminal that closes, or a supervisor, sends SIGHUP besides another signal: it never is the second one.
            let may_end_at_once = tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                _ = hang_up.recv() => false,
            };
            if stop.is_cancelled() && may_end_at_once {
                warn!("second signal: exiting at once");
                logging::flush();
                std::process::exit(0);
            }
            stop.cancel();
        }
    });
}
