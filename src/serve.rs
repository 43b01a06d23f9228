//! `tokend serve`: from the environment to a running service, and its orderly end.
//!
//! The order matters. Starting: configuration (all mistakes at once), logs, the listener (so that a
//! taken port is told before anything is touched), Redis, store, HTTP. Stopping is the reverse, and
//! never takes longer than 10 s.

use std::future::Future;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::cli::ServeArgs;
use crate::config::Config;
use crate::embedded::Embedded;
use crate::flows::Flows;
use crate::http::system::ShuttingDown;
use crate::listener::{self, Door};
use crate::metrics::Metrics;
use crate::server;
use crate::shared::{replica_name, shared};
use crate::store::Store;
use crate::traces::Traces;
use crate::version::version;

/// `EX_CONFIG` of sysexits.h: the configuration is wrong, starting again will not help.
const EXIT_CONFIG: u8 = 78;
/// Longest that a stop may take from its first signal: a little less than the 10 s that `docker stop`
/// waits (Kubernetes waits 30 s).
pub const SHUTDOWN_MAX: Duration = Duration::from_millis(9_500);
/// Longest that requests in flight are waited for: each is answered within 2 s, whatever Redis does.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Longest that the store may take to send what is queued.
const STORE_STOP_MAX: Duration = Duration::from_secs(2);
/// Longest that a collector may take for the last traces.
const TRACES_STOP_MAX: Duration = Duration::from_secs(1);
/// Kept back, while draining, for the steps after it.
const AFTER_DRAIN: Duration = Duration::from_secs(2);

/// Runs the service until a signal ends it. The flags win over the environment.
///
/// Exit codes: 0 after an orderly stop, 78 for a wrong configuration, 1 for anything else that keeps
/// it from running, 128 + n where a second signal n cut the stop short.
#[must_use]
pub fn run(flags: &ServeArgs) -> ExitCode {
    let mut config = match Config::load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("tokend: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    apply(flags, &mut config);
    crate::telemetry::init(&config.log_filter, config.log_format);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if flags.purge_interval.is_some() {
        tracing::info!("--purge-interval does nothing: expired tokens leave by themselves");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(serve(&config)).unwrap_or_else(|failure| {
        tracing::error!("{}", failure.why);
        failure.code
    });
    // Whatever still runs is not worth waiting for: all that mattered has been stopped.
    runtime.shutdown_background();
    code
}

fn apply(flags: &ServeArgs, config: &mut Config) {
    config.port = flags.port.unwrap_or(config.port);
    config.flows.dump |= flags.dump;
    if let Some(lifetime) = flags.token_lifetime {
        // Its parser lets no more than 96 h through.
        config.flows.limits.one_time.lifetime_ms =
            u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    }
}

/// Why it does not run: a sentence for the log, and how the process ends.
struct Failure {
    why: String,
    code: ExitCode,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        let code = ExitCode::FAILURE;
        Self { why, code }
    }
}

impl Failure {
    fn configuration(why: String) -> Self {
        let code = ExitCode::from(EXIT_CONFIG);
        Self { why, code }
    }
}

/// Starts everything and waits for its end.
async fn serve(config: &Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::install().map_err(|error| format!("signal handlers: {error}"))?;
    let listener = listener::bind(&config.host, config.port)?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let service = tokio::select! {
        service = Service::start(config, listener) => service?,
        // Nothing was promised to anyone yet. The embedded Redis dies with this process.
        stop = signals.next() => {
            tracing::info!("{} while starting", stop.name());
            return Ok(ExitCode::SUCCESS);
        }
    };
    announce(config, address);
    Ok(service.until_stopped(config, &mut signals).await?)
}

/// A host that a URL can name: where it listens on all addresses, this machine.
fn public_host(host: &str) -> String {
    match host {
        "0.0.0.0" | "::" => "localhost".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    }
}

/// One line on what is served where, and on a terminal how to try it.
fn announce(config: &Config, address: std::net::SocketAddr) {
    tracing::info!(
        "tokend {} serves http://{address} (Redis: {}, keys: {})",
        version(),
        config.redis(),
        config.key_prefix
    );
    if std::io::stdout().is_terminal() {
        println!(
            "try: curl -X POST http://{address}/tokens/generate -H 'content-type: application/json' -d '{{\"count\": 10}}'"
        );
    }
}

/// What runs, in the order in which it was started.
struct Service {
    embedded: Option<Embedded>,
    store: Store,
    door: Door,
    http: actix_web::dev::ServerHandle,
    http_ended: tokio::task::JoinHandle<std::io::Result<()>>,
    traces: Traces,
    shutting_down: ShuttingDown,
}

impl Service {
    async fn start(config: &Config, listener: TcpListener) -> Result<Self, Failure> {
        let (embedded, url) = match &config.redis_url {
            Some(url) => (None, url.expose().to_owned()),
            None => {
                let embedded = Embedded::start(&config.data_dir).await;
                let embedded = embedded.map_err(|error| error.to_string())?;
                let url = embedded.url().to_owned();
                (Some(embedded), url)
            }
        };
        let metrics = Arc::new(Metrics::new());
        let traces = match &config.traces {
            Some(settings) => {
                tracing::info!(
                    sampler = settings.sampler_name(),
                    "traces go to {}",
                    settings.host()
                );
                Traces::start(settings, &metrics).map_err(Failure::configuration)?
            }
            None => Traces::default(),
        };
        let shutting_down = ShuttingDown::default();
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let data_dir = embedded.as_ref().map(|_| config.data_dir.as_path());
        let public_url = format!("http://{}:{}", public_host(&config.host), address.port());
        let flows = Flows::new(config.flows.clone(), public_url, data_dir);
        let flows = flows.map_err(Failure::configuration)?;
        let shared = shared(replica_name(address.port()), config, &flows);
        // After the keys: what is wrong with those, waiting for Redis does not mend.
        let (counts, spans) = (Arc::clone(&metrics), traces.clone());
        let store = Store::start_shared(config.store(url), counts, spans, shared).await;
        let store = store.map_err(|error| error.to_string())?;
        let app = server::App {
            store: store.clone(),
            flows: Arc::new(flows),
            metrics,
            traces: traces.clone(),
            shutting_down: shutting_down.clone(),
        };
        let door = Door::of(&listener);
        let http = server::start(listener, app, config.workers)
            .map_err(|error| format!("starting HTTP: {error}"))?;
        Ok(Self {
            embedded,
            store,
            door,
            http: http.handle(),
            http_ended: tokio::spawn(http),
            traces,
            shutting_down,
        })
    }

    async fn until_stopped(
        mut self,
        config: &Config,
        signals: &mut Signals,
    ) -> Result<ExitCode, String> {
        let stop = tokio::select! {
            stop = signals.next() => stop,
            ended = &mut self.http_ended => {
                self.stop(Duration::ZERO).await;
                return Err(format!("the HTTP server ended by itself: {ended:?}"));
            }
        };
        // Ctrl-C is a person who wants it gone; SIGTERM comes with a load balancer that has to notice.
        let delay = match stop {
            Stop::Terminate => config.shutdown_delay,
            Stop::Interrupt | Stop::HangUp => Duration::ZERO,
        };
        tracing::info!("{}: stopping; a second signal ends it at once", stop.name());
        tokio::select! {
            () = self.stop(delay) => {
                tracing::info!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            second = signals.next() => {
                tracing::warn!("{}: ending at once", second.name());
                Ok(ExitCode::from(second.exit_code()))
            }
        }
    }

    /// Stops accepting, answers what is in flight, sends what is queued, ends Redis: each step within
    /// its limit and all of them within [`SHUTDOWN_MAX`]. Nothing acknowledged is lost if one is cut
    /// short.
    async fn stop(self, delay: Duration) {
        let deadline = Instant::now() + SHUTDOWN_MAX;
        self.shutting_down.begin();
        // Early, so that the others have taken over when this replica's sweeps end.
        self.store.leave().await;
        tokio::time::sleep(delay).await;
        self.door.shut();
        self.store.stop_waiting(); // or requests that wait for a token would be in flight for a minute
        until_quiet(&self.shutting_down, delay.min(listener::QUIET_MAX)).await;
        let drain = DRAIN_MAX.min(deadline.duration_since(Instant::now()) - AFTER_DRAIN);
        step(
            "requests in flight",
            Instant::now() + drain,
            self.http.stop(true),
        )
        .await;
        let store_deadline = deadline.min(Instant::now() + STORE_STOP_MAX);
        step("the store", store_deadline, self.store.stop()).await;
        // Neither needs the other, and the traces may lack their collector.
        let last = self.traces.stop(TRACES_STOP_MAX);
        tokio::join!(step("traces", deadline, last), async {
            if let Some(embedded) = self.embedded {
                step("redis-server", deadline, embedded.stop()).await;
            }
        });
    }
}

/// Until all who came in before the door was shut have their answers, or the time is over.
async fn until_quiet(shutting_down: &ShuttingDown, longest: Duration) {
    tokio::time::sleep(listener::QUIET_MIN).await;
    let until = Instant::now() + longest;
    while shutting_down.connections() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for one step of the stop, and says so if it has to be cut short.
async fn step(what: &str, deadline: Instant, step: impl Future<Output = ()>) {
    if tokio::time::timeout_at(deadline, step).await.is_err() {
        tracing::warn!("stopping: {what} took too long, going on without");
    }
}

/// What a signal asks for.
#[derive(Clone, Copy)]
enum Stop {
    Terminate,
    Interrupt,
    /// The terminal was closed.
    HangUp,
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
        }
    }

    /// What a shell reports for a process that the signal ended: 128 and its number.
    fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
            Self::HangUp => 128 + 1,
        }
    }
}

/// The signals that end the service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.hang_up.recv() => Stop::HangUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_delay_leaves_time_to_drain() {
        // `SHUTDOWN_DELAY` is at most 5 s; the subtraction in `stop` must not go below zero.
        assert!(
            SHUTDOWN_MAX
                > Duration::from_secs(5) + listener::QUIET_MIN + listener::QUIET_MAX + AFTER_DRAIN
        );
    }

    #[tokio::test]
    async fn a_step_that_hangs_is_cut_short() {
        let cut = step("this", Instant::now(), std::future::pending());
        let patience = Duration::from_secs(30);
        assert!(tokio::time::timeout(patience, cut).await.is_ok());
    }
}
