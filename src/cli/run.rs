//! Owns `ticketlog run`: the process around the flow. Must not know the flow.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Settings;
use crate::health::Health;
use crate::http::{self, Exposed};
use crate::metrics::{self, Recorders};
use crate::pipeline::{self, Context};
use crate::store::{Class, Failure, Store};
use crate::{broker, retry, telemetry};

use super::Fault;

/// Stack of every thread in bytes; address space, not memory. lapin reads and writes headers recursively: 9 KB of them,
/// nested 1,500 deep, would overflow the usual 2 MiB and end the process, and the message would come back every time.
/// A frame of 128 KiB holds at most 26,000 levels, for which this is enough in debug builds, too.
const STACK: &str = "268435456";

pub(super) fn run(settings: Settings) -> Result<u8, Fault> {
    with_stack();
    telemetry::install(&settings.log).map_err(|error| Fault::new(78, error))?;
    telemetry::exit_on_panic();
    // A thread of its own, because the main thread's stack is the system's affair.
    let worker = std::thread::Builder::new().name("ticketlog".to_owned());
    let running = worker.spawn(move || {
        let runtime = super::runtime()?;
        let code = runtime.block_on(serve(settings));
        // A name being resolved, for instance, is not waited for.
        runtime.shutdown_timeout(Duration::from_millis(100));
        code
    })?;
    running.join().unwrap_or(Ok(u8::try_from(telemetry::PANIC_EXIT).unwrap_or(1)))
}

/// Replaces the process by itself with a larger default stack, which the standard library reads from the environment
/// once, before the first thread. Where that is not possible the worker runs with what there is.
fn with_stack() {
    use std::os::unix::process::CommandExt as _;
    if std::env::var_os("RUST_MIN_STACK").is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let _ =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).env("RUST_MIN_STACK", STACK).exec();
    }
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
    let health = Arc::new(Health::default());
    let exposed = Exposed {
        health: Arc::clone(&health),
        metrics: prometheus,
        started: SystemTime::now(),
        serving: (settings.broker.queue.clone(), format!("{}.{}", settings.store.database, settings.store.collection)),
    };
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    info!(version = env!("CARGO_PKG_VERSION"), http = address, queue = settings.broker.queue, "starting");
    tokio::spawn(http::serve(listener, Arc::new(exposed)));
    let Some(store) = open_store(&settings, &health, &stop).await? else { return Ok(0) };
    let context = Context {
        rules: Arc::new(settings.rules()),
        store,
        health,
        recorders: Recorders::new(),
        stop,
        writing: AtomicUsize::new(0),
        stored: Arc::default(),
        worker: worker(),
        settings,
    };
    let context = Arc::new(context);
    tokio::select! {
        () = pipeline::run(Arc::clone(&context)) => {}
        () = overdue(&context) => warn!("shutdown.timeout is over: ending; what is not acknowledged is in the queue"),
    }
    Ok(0)
}

/// Returns when a stop in good order has taken too long, because the broker does not answer, for instance.
async fn overdue(context: &Context) {
    context.stop.cancelled().await;
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
                std::process::exit(0);
            }
            stop.cancel();
        }
    });
    Ok(())
}

/// `host/version`.
fn worker() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}/{}", if host.is_empty() { "unknown" } else { host }, env!("CARGO_PKG_VERSION"))
}
