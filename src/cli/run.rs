//! Owns `ticketlog run`: the process around the flow. Must not know the flow.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Settings;
use crate::health::Health;
use crate::http::{self, Exposed};
use crate::metrics::{self, Recorders};
use crate::pipeline::{self, Context, Tuning};
use crate::recent::Recent;
use crate::store::{Class, Failure, Store};
use crate::{broker, retry, supervision, telemetry};

use super::Fault;

pub(super) fn run(settings: Settings) -> Result<u8, Fault> {
    super::stack::deep(move || {
        let _logging = telemetry::install(&settings.log).map_err(|error| Fault::new(78, error))?;
        let runtime = super::runtime()?;
        let code = runtime.block_on(serve(settings));
        // A name being resolved, for instance, is not waited for.
        runtime.shutdown_timeout(Duration::from_millis(100));
        code
    })
}

async fn serve(settings: Settings) -> Result<u8, Fault> {
    broker::check_address(&settings.broker)?;
    let prometheus = metrics::install().map_err(|error| Fault::new(70, error))?;
    let stop = CancellationToken::new();
    end_on_signals(&stop)?;
    let listener = http::bind(settings.http.listen)
        .await
        .with_context(|| {
            format!("http.listen = {} cannot be bound; is another worker running here?", settings.http.listen)
        })
        .map_err(|error| Fault::new(69, error))?;
    metrics::configured(settings.retry.release_after.0);
    let health = Arc::new(Health::default());
    let recent = Arc::<Recent>::default();
    let exposed = exposed(&settings, prometheus, &health, &recent);
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    info!(version = env!("CARGO_PKG_VERSION"), http = address, queue = settings.broker.queue, "starting");
    tokio::spawn(http::serve(listener, Arc::new(exposed)));
    supervision::begin(&health);
    let Some(store) = open_store(&settings, &health, &stop).await? else { return Ok(0) };
    let context = context(settings, store, (health, recent), stop);
    let context = Arc::new(context);
    tokio::select! {
        () = pipeline::run(Arc::clone(&context)) => {}
        () = overdue(&context) => warn!("shutdown.timeout is over: ending; what is not acknowledged is in the queue"),
    }
    Ok(0)
}

fn context(
    settings: Settings,
    store: Store,
    (health, recent): (Arc<Health>, Arc<Recent>),
    stop: CancellationToken,
) -> Context {
    Context {
        rules: Arc::new(settings.rules()),
        store,
        health,
        recent,
        recorders: Recorders::new(),
        stop,
        writing: AtomicUsize::new(0),
        stored: Arc::default(),
        tuning: Tuning::new(&settings),
        logins: broker::login(&settings.broker).into_iter().chain(settings.dead_letter.operators.clone()).collect(),
        worker: worker(),
        settings,
    }
}

fn exposed(settings: &Settings, metrics: PrometheusHandle, health: &Arc<Health>, recent: &Arc<Recent>) -> Exposed {
    Exposed {
        recent: Arc::clone(recent),
        health: Arc::clone(health),
        metrics,
        started: SystemTime::now(),
        serving: (settings.broker.queue.clone(), format!("{}.{}", settings.store.database, settings.store.collection)),
    }
}

/// Returns when a stop in good order has taken too long, because the broker does not answer, for instance.
async fn overdue(context: &Context) {
    context.stop.cancelled().await;
    supervision::stopping();
    tokio::time::sleep(context.settings.shutdown.timeout.0).await;
}

/// Opens the store. Only a URI that can never work ends the process; a name that cannot be resolved is an outage.
async fn open_store(settings: &Settings, health: &Health, stop: &CancellationToken) -> Result<Option<Store>, Failure> {
    let policy = retry::Policy { initial: settings.retry.initial.0, max: settings.retry.max.0 };
    let mut delays = retry::Delays::new(policy);
    loop {
        match Store::open(&settings.store, settings.write.concurrency).await {
            Ok(store) => return Ok(Some(store)),
            Err(failure) if failure.class != Class::Transient => return Err(failure),
            Err(failure) => {
                health.down(crate::health::Part::Store, failure.to_string());
                warn!(kind = failure.kind, "waiting for the store: {failure}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(delays.draw()) => {}
        }
    }
}

/// The first SIGTERM or SIGINT asks for a stop in good order; the second ends the process where it stands, which loses
/// nothing: what is not acknowledged is still in the queue.
fn end_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
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
                warn!("a second signal: ending at once");
                telemetry::flush();
                std::process::exit(0);
            }
            stop.cancel();
        }
    });
    Ok(())
}

/// `host/version`.
fn worker() -> String {
    format!("{}/{}", crate::host::name(), env!("CARGO_PKG_VERSION"))
}
